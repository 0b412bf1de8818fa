"""Which labelled images a command works on: its arguments, and the data set that they name."""

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnet_jax.data.catalog import DatasetInfo
    from mnet_jax.training.trained import Trained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--data`, `--data_dir`, `--folder` and `--split`; without them, what the model was evaluated on in training."""
    parser.add_argument(
        "--data", metavar="NAME", help="a TFDS name, digits or folder (default: what it was trained on)"
    )
    parser.add_argument("--data_dir", metavar="DIR", help="the TFDS directory (default: as in training)")
    parser.add_argument(
        "--folder", metavar="DIR", help="images in DIR/<class>/ or DIR/val/<class>/; means --data folder"
    )
    parser.add_argument("--split", help="split to evaluate (default: as in training)")


def check(args: argparse.Namespace) -> None:
    """ValueError if the arguments contradict each other; before anything is loaded."""
    if args.folder is not None and args.data not in (None, "folder"):
        raise ValueError(f"--folder goes with --data folder, not with --data {args.data}: give one of them")


def choose(args: argparse.Namespace, trained: "Trained") -> "DatasetInfo":
    """Puts the choice into the model's config and looks the data set up.

    Its images are normalised as the network is used to, whatever the statistics of this set.

    Raises:
      ValueError: if it is not there, or has other classes than the model.
    """
    from mnet_jax.data import catalog

    check(args)
    data = trained.config.data
    if args.data is not None or args.folder is not None:
        data.name = "folder" if args.folder is not None else args.data
        data.train_split = data.eval_split = None  # those of the training set
    if args.folder is not None:
        data.folder, data.manifest, data.split_from = args.folder, None, None
    if args.data_dir is not None:
        data.data_dir = args.data_dir
    if args.split is not None:
        data.eval_split = args.split

    info = catalog.describe(data)
    complaint = catalog.complaint(data)
    if complaint:
        print(f"mnet: {complaint}", file=sys.stderr)
    _check_classes(info.class_names, trained.class_names, info.name)
    return dataclasses.replace(info, mean=trained.info.mean, std=trained.info.std)


def _check_classes(found: tuple[str, ...], known: tuple[str, ...], name: str) -> None:
    """Labels are numbers: they mean the same classes only where the names agree, in order."""
    if len(found) != len(known):
        raise ValueError(
            f"{name} has {len(found)} classes, the checkpoint knows {len(known)}: "
            "give --data (with --data_dir or --folder) a set of the same classes"
        )
    if found != known:
        place, theirs, ours = next((i, a, b) for i, (a, b) in enumerate(zip(found, known, strict=True)) if a != b)
        print(
            f"mnet: warning: class {place} is {theirs!r} in {name}, {ours!r} in the checkpoint; "
            "classes are compared by number",
            file=sys.stderr,
        )
