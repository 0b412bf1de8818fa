"""Which trained model a command works on: its arguments, and the model that they name."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnet_jax.training.checkpoint import Trained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--checkpoint`, and which of its steps and weights."""
    parser.add_argument(
        "--checkpoint", required=True, metavar="DIR", help="directory of a run (train.py's --workdir), local or gs://"
    )
    parser.add_argument("--step", type=_step, default=None, help="best, latest or a step's number (default: latest)")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--ema",
        dest="ema",
        action="store_true",
        default=True,
        help="the averaged weights, where there are any (default)",
    )
    weights.add_argument("--raw", dest="ema", action="store_false", help="the weights of the last step")


def load(args: argparse.Namespace) -> "Trained":
    """The model of `add_arguments`. Raises ValueError, in one line, if there is none."""
    from mnet_jax.training import checkpoint

    return checkpoint.load(args.checkpoint, ema=args.ema, step=args.step)


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """`--batch_size` of the commands that run a model over images."""
    parser.add_argument(
        "--batch_size", type=_positive, metavar="N", help="images at a time; changes the speed, not the result"
    )


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def _step(text: str) -> int | str:
    if text in ("best", "latest"):
        return text
    if text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"must be best, latest or a number, got {text!r}")
