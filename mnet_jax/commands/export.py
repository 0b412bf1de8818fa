"""`mnet export`, and the same as a function: a trained model -> a file that a phone, a browser or a server runs."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from mnet_jax.commands import arguments
from mnet_jax.commands.summary import image_size

if TYPE_CHECKING:
    import numpy as np

    from mnet_jax.deploy.graph import Graph
    from mnet_jax.deploy.metadata import About
    from mnet_jax.trained import Trained


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
    parser.add_argument("--output", default="probabilities", help="probabilities or logits (default: probabilities)")
    parser.add_argument(
        "--image_size", type=image_size, metavar="PIXELS", help="a number or HEIGHTxWIDTH (default: the model's own)"
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
    )
    size = file_size(args.out)
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


def export(
    trained: "Trained",
    path: str | os.PathLike,
    *,
    format: str,
    quantize: str = "none",
    input: str = "uint8",
    output: str = "probabilities",
    image_size: int | tuple[int, int] | None = None,
    date: str | None = None,
    calibration: str | os.PathLike | None = None,
) -> "About":
    """Writes a trained model for another runtime; returns what its metadata say.

    Args:
      trained: from `load_checkpoint` or `load_pretrained`.
      path: file, or directory for "savedmodel"; replaced whole, or left as it is on an error.
      format: "stablehlo", "tflite", "onnx" or "savedmodel".
      quantize: "none"; for TFLite also "float16", "dynamic" or "int8".
      input: "uint8": RGB pixels, normalised inside; "float": images normalised before, by the metadata's mean and std.
      output: "probabilities" or "logits".
      image_size: pixels, one number or (height, width), at least 32; None: that of the model's own evaluation.
      date: for the metadata, as "2026-01-31"; without it the same weights give the same file.
      calibration: for int8, a folder of images like those of training; None: the training images that the model's
        config names, or, after quantisation-aware training, what that learnt.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    from mnet_jax.deploy import formats

    formats.check(format, quantize)
    if calibration is not None and quantize != "int8":
        raise ValueError(f"calibration images are for int8, not for quantize {quantize!r}: leave --calibration out")
    graph, about = prepare(trained, quantize=quantize, input=input, output=output, image_size=image_size, date=date)
    if quantize == "int8":
        from mnet_jax.files import placed

        with formats.needs_extra(), placed(path) as part:
            from mnet_jax.commands.calibration import batches
            from mnet_jax.deploy.int8.quantize import int8_model

            def images() -> "Iterator[np.ndarray]":
                return batches(trained, about.image_size, folder=calibration)

            learnt = trained.variables["batch_stats"] if calibration is None else None
            part.write_bytes(int8_model(graph, about, images, batch_stats=learnt))
    else:
        formats.write(graph, about, path, format)
    return about


def prepare(
    trained: "Trained",
    *,
    quantize: str,
    input: str,
    output: str,
    image_size: int | tuple[int, int] | None,
    date: str | None,
) -> tuple["Graph", "About"]:
    """The folded graph and its metadata; arguments as in `export`."""
    import mnet_jax
    from mnet_jax.data.pipeline import image_shape
    from mnet_jax.deploy.fold import check_size, fold
    from mnet_jax.deploy.metadata import About, check_date
    from mnet_jax.trained import build_model, build_task

    if trained.info.num_classes == 0:
        raise ValueError(f"{trained.path} has no classifier: train one before you export it")
    check_date(date)
    plan = build_model(trained.config, trained.info).plan
    task = build_task(trained.config, trained.info)
    size = check_size(image_shape(trained.config.data) if image_size is None else image_size)
    graph = fold(plan, trained.variables, image_size=size, input=input, output=output, mean=task.mean, std=task.std)
    about = About(
        model=plan.name,
        width=plan.width,
        class_names=trained.class_names,
        image_size=size,
        input=input,
        output=output,
        quantize=quantize,
        mean=task.mean,
        std=task.std,
        eval_crop=trained.config.data.eval_crop,
        interpolation=trained.config.data.interpolation,
        source=trained.path,
        step=trained.step,
        version=mnet_jax.__version__,
        date=date,
    )
    return graph, about


def file_size(path: str | os.PathLike) -> int:
    """Bytes of a file, or of all files in a directory."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


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
    return f"--checkpoint {args.checkpoint}" if args.checkpoint else f"--weights {args.weights}"
