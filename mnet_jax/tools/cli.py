"""The `mnet` command: what it accepts and how it ends. The work is in one file a subcommand, imported when it runs.

Results go to stdout, everything else to stderr. Exit codes: 0 done; 1 done, but not for every image (predict);
2 an error that the user can mend, told in one line; 130 interrupted; 141 nobody reads the output any more.
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

# Before anything imports them: TensorFlow, absl and JAX tell of processor features and missing accelerators otherwise.
_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}

_COMMANDS = ("models", "summary", "evaluate", "predict")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    argv = list(sys.argv[1:] if argv is None else argv)
    traceback = "--traceback" in argv
    try:
        _check_command(argv)
        args = _parser().parse_args(argv)
        # libraries that print go to stderr: stdout holds the result only
        out = sys.stdout
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="backslashreplace")  # a file or class name that this terminal cannot show
        with contextlib.redirect_stdout(sys.stderr):
            code = _run(args, out)
        out.flush()
    except BrokenPipeError:
        # `| head` has left; what Python still holds for stdout goes nowhere instead of failing again at exit
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("mnet: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if traceback:
            raise
        print(f"mnet: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return code


def _run(args: argparse.Namespace, out: TextIO) -> int:
    if args.command == "models":
        from mnet_jax.tools import models_table

        return models_table.run(out, as_json=args.json)
    if args.command == "summary":
        from mnet_jax.tools import models_table

        return models_table.run_summary(
            out,
            name=args.name,
            width=args.width,
            image_size=args.image_size,
            num_classes=args.num_classes,
            width_rule=args.width_rule,
            stem_stride=args.stem_stride,
            as_json=args.json,
        )
    if args.command == "evaluate":
        from mnet_jax.tools import evaluate

        return evaluate.run(
            out,
            checkpoint=args.checkpoint,
            step=args.step,
            ema=args.ema,
            data=args.data,
            data_dir=args.data_dir,
            folder=args.folder,
            split=args.split,
            batch_size=args.batch_size,
            as_json=args.json,
        )
    from mnet_jax.tools import predict

    return predict.run(
        out,
        checkpoint=args.checkpoint,
        step=args.step,
        ema=args.ema,
        images=args.images,
        top=args.top,
        batch_size=args.batch_size,
        as_json=args.json,
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of a page of usage."""
        self.exit(2, f"mnet: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mnet", description="MobileNet v1 to v4 in JAX.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    models = _add(commands, "models", "list the models with their sizes")

    summary = _add(commands, "summary", "show a model block by block: shapes, parameters, multiply-adds")
    summary.add_argument("name", metavar="NAME", help="one of `mnet models`")
    summary.add_argument("--width", type=float, default=1.0, help="width multiplier (default: 1.0)")
    summary.add_argument(
        "--image_size", type=_image_size, metavar="PIXELS", help="a number or HEIGHTxWIDTH (default: the model's own)"
    )
    summary.add_argument("--num_classes", type=int, default=1000, help="size of the classifier (default: 1000)")
    summary.add_argument(
        "--width_rule", default="tf", help="how widths are rounded: tf, timm or torchvision (default: tf)"
    )
    summary.add_argument(
        "--stem_stride",
        type=int,
        default=4,
        help="stride after the first two strided layers: 4, or 2 or 1 for small images (default: 4)",
    )

    evaluate = _add(commands, "evaluate", "measure a checkpoint on a data set, counting every image once")
    _add_checkpoint(evaluate)
    evaluate.add_argument(
        "--data", metavar="NAME", help="a TFDS name, digits or folder (default: what it was trained on)"
    )
    evaluate.add_argument("--data_dir", metavar="DIR", help="the TFDS directory (default: as in training)")
    evaluate.add_argument(
        "--folder", metavar="DIR", help="images in DIR/<class>/ or DIR/val/<class>/; means --data folder"
    )
    evaluate.add_argument("--split", help="split to evaluate (default: as in training)")

    predict = _add(commands, "predict", "name what is on images, with probabilities")
    _add_checkpoint(predict)
    predict.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, directories or patterns such as 'photos/*.jpg'"
    )
    predict.add_argument("--top", type=int, default=5, metavar="K", help="classes to show for each image (default: 5)")

    for command in (models, summary, evaluate, predict):
        command.add_argument("--json", action="store_true", help="print one JSON document")
        command.add_argument(
            "--traceback", action="store_true", help="show where an error came from, not only what it is"
        )
    return parser


def _add(commands: "argparse._SubParsersAction[_Parser]", name: str, purpose: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.", allow_abbrev=False
    )


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", required=True, metavar="DIR", help="directory of a run (train.py's --workdir), local or gs://"
    )
    parser.add_argument("--step", type=_step, default=None, help="best, latest or a step's number (default: latest)")
    parser.add_argument(
        "--batch_size", type=int, metavar="N", help="images at a time; changes the speed, not the result"
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--ema",
        dest="ema",
        action="store_true",
        default=True,
        help="the averaged weights, where there are any (default)",
    )
    weights.add_argument("--raw", dest="ema", action="store_false", help="the weights of the last step")


def _step(text: str) -> int | str:
    if text in ("best", "latest"):
        return text
    if text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"must be best, latest or a number, got {text!r}")


def _image_size(text: str) -> int | tuple[int, int]:
    parts = text.lower().split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts) or len(parts) > 2:
        raise argparse.ArgumentTypeError(f"must be a number of pixels or HEIGHTxWIDTH, got {text!r}")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def _check_command(argv: Sequence[str]) -> None:
    if argv and not argv[0].startswith("-") and argv[0] not in _COMMANDS:
        from mnet_jax.models.specs import check_choice

        check_choice("command", argv[0], _COMMANDS)


if __name__ == "__main__":
    sys.exit(main())
