"""`mnet export`: a trained model -> a file that a phone, a browser or a server runs."""

import argparse
import json
import shlex
import sys
from typing import TYPE_CHECKING, TextIO

from mnet_jax.commands import arguments
from mnet_jax.commands.summary import image_size

if TYPE_CHECKING:
    from mnet_jax.deploy.metadata import About


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, in which form, and where to."""
    arguments.add_model(parser)
    parser.add_argument("--format", required=True, help="stablehlo, tflite, onnx or savedmodel")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write; a directory for savedmodel")
    parser.add_argument("--quantize", default="none", help="tflite: none, float16, dynamic or int8 (default: none)")
    parser.add_argument(
        "--calibration",
        metavar="FOLDER",
        help="int8: images like those of training (default: the training images, or what configs/quantize.py learnt)",
    )
    parser.add_argument(
        "--input",
        default="uint8",
        help="uint8: RGB pixels, normalised inside; float: normalised before (default: uint8)",
    )
    parser.add_argument("--output", help="of classification probabilities or logits (default: the task's first)")
    parser.add_argument(
        "--image_size", type=image_size, metavar="PIXELS", help="a number or HEIGHTxWIDTH (default: the model's own)"
    )
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="what the file has otherwise than the model of its config's section task, such as score_threshold=0.2",
    )
    parser.add_argument(
        "--date", help="date for the metadata, as 2026-01-31 (default: none, and the same weights give the same file)"
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Exports, and says what was written."""
    from mnet_jax.deploy import formats

    formats.check(args.format, args.quantize)
    formats.check_path(args.out, args.format)
    trained = arguments.load_model(args)
    from mnet_jax.deploy.export import export

    about = export(
        trained,
        args.out,
        format=args.format,
        quantize=args.quantize,
        input=args.input,
        output=args.output,
        image_size=args.image_size,
        date=args.date,
        calibration=args.calibration,
        task=_task_settings(args.task),
    )
    size = formats.file_size(args.out)
    if args.json:
        print(
            json.dumps({"file": args.out, "format": args.format, "bytes": size, **_fields(about)}, indent=2), file=out
        )
        return 0
    height, width = about.image_size
    print(f"file     {args.out} ({args.format}, {size / 1e6:.2f} MB)", file=out)
    print(f"model    {about.model} x{about.width:g}, {len(about.class_names)} classes, from {about.source}", file=out)
    print(f"input    {height} x {width} RGB, {_preparation(about)}", file=out)
    print(f"output   {about.output}, quantisation {about.quantize}", file=out)
    if about.quantize == "int8":
        _print_int8(args.out, out)
    print(f"mnet: to check it on images, type mnet verify-export {args.out} {_same_model(args)}", file=sys.stderr)
    return 0


def _task_settings(given: list[str]) -> dict[str, object]:
    """Returns the values of `--task`, which are numbers where they look like numbers."""
    settings = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ValueError(f"--task takes FIELD=VALUE, such as score_threshold=0.2, got {text!r}")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def _fields(about: "About") -> dict[str, object]:
    fields = about.to_dict()
    fields["num_classes"] = len(fields.pop("class_names"))
    return fields


def _print_int8(path: str, out: TextIO) -> None:
    """Where the operations of an int8 model run."""
    import pathlib

    from mnet_jax.deploy import edgetpu, tflite

    model = pathlib.Path(path).read_bytes()
    left = tflite.left_out(model)
    print(f"XNNPACK  {'every operation' if not left else 'all but ' + ', '.join(left)}", file=out)
    problems = edgetpu.problems(model)
    text = "every operation is on its compiler's list" if not problems else "; ".join(problems)
    print(f"Edge TPU {text}", file=out)


def _preparation(about: "About") -> str:
    if about.input == "uint8":
        return "uint8, normalised inside"
    return f"float32, (pixel - {list(about.mean)}) / {list(about.std)}"


def _same_model(args: argparse.Namespace) -> str:
    """Returns the options by which another command takes the very same model."""
    options = ["--checkpoint", args.checkpoint] if args.checkpoint else ["--weights", args.weights]
    options += ["--like", args.like] if args.like else []
    options += ["--step", str(args.step)] if args.step is not None else []
    return shlex.join(options if args.ema else [*options, "--raw"])
