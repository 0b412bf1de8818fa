"""Which trained model a command works on: its arguments, and the model that they name."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnet_jax.training.trained import Trained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--checkpoint` with its steps and averages, or `--weights`."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--checkpoint", metavar="DIR", help="directory of a run (train.py's --workdir), local or gs://")
    which.add_argument(
        "--weights",
        metavar="SOURCE",
        help="published weights: a name of `mnet weights`, or a .h5/.safetensors/.pth file",
    )
    parser.add_argument(
        "--like", metavar="NAME", help="for a weights file that does not say how its images are prepared: whose it is"
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


def load(args: argparse.Namespace, *, classifier: bool = True) -> "Trained":
    """The model of `add_arguments`.

    Args:
      args: the command line's.
      classifier: whether the command needs one; "no top" weights have none.

    Raises:
      ValueError: in one line, if there is no such model, or it lacks its classifier.
    """
    if args.weights is not None:
        from mnet_jax.pretrained.load import load_pretrained

        trained = load_pretrained(args.weights, like=args.like, ema=args.ema, step=args.step)
    elif args.like is not None:
        raise ValueError("--like goes with --weights: a checkpoint knows how its images are prepared")
    else:
        from mnet_jax.training import checkpoint

        trained = checkpoint.load(args.checkpoint, ema=args.ema, step=args.step)
    if classifier and trained.info.num_classes == 0:
        raise ValueError(
            f"{trained.path} has no classifier: train one with python train.py --config configs/finetune.py "
            f"--config.init.weights={trained.path} --config.data.folder=DIR"
        )
    return trained


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
