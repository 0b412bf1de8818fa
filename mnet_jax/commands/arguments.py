"""Arguments that several commands share: which trained model, and which labelled images; and what they name."""

import argparse
import dataclasses
from typing import TYPE_CHECKING

from mnet_jax.files import tell

if TYPE_CHECKING:
    import ml_collections

    from mnet_jax.data.catalog import DatasetInfo
    from mnet_jax.data.dataset import Dataset
    from mnet_jax.trained import Trained


def add_model(parser: argparse.ArgumentParser) -> None:
    """`--checkpoint` with its steps and averages, or `--weights`."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--checkpoint", metavar="DIR", help="directory of a run (train.py's --workdir), local or gs://")
    which.add_argument(
        "--weights",
        metavar="SOURCE",
        help="published weights: a name of `mnet weights`, or a file of weights (docs/weights.md)",
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


def load_model(args: argparse.Namespace, *, classifier: bool = True) -> "Trained":
    """The model of `add_model`.

    Args:
      args: the command line's.
      classifier: whether the command needs one; "no top" weights have none.

    Raises:
      ValueError: in one line, if there is no such model, or it lacks its classifier.
    """
    if args.weights is not None:
        from mnet_jax.pretrained.load import load_pretrained

        if args.step is not None:
            raise ValueError(f"--step {args.step} goes with --checkpoint: published weights have no steps")
        trained = load_pretrained(args.weights, like=args.like, ema=args.ema)
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
        "--batch_size", type=positive, metavar="N", help="images at a time; changes the speed, not the result"
    )


# --- A network without weights, by name or by config ---


def add_network(parser: argparse.ArgumentParser) -> None:
    """`MODEL`, also a detector or a segmenter, with its width and classes; or the network of `--config FILE`."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help="one of `mnet models`")
    parser.add_argument("--config", metavar="FILE", help="in place of MODEL: a file in configs/, as for train.py")
    parser.add_argument("--width", type=float, help="width multiplier (default: 1.0)")
    parser.add_argument(
        "--num_classes",
        type=int,
        help="a background counts for masks alone (default: 1000; detectors 90, masks 21)",
    )


def check_network(args: argparse.Namespace, *of_model: str) -> None:
    """Raises ValueError unless there is MODEL or `--config`, and with the latter none of the options `of_model`."""
    if (args.model is None) == (args.config is None):
        raise ValueError("give MODEL, one of `mnet models`, or --config FILE" + (", not both" if args.model else ""))
    for name in of_model if args.config is not None else ():
        if getattr(args, name) is not None:
            raise ValueError(
                f"--{name} goes with MODEL: override the field of {args.config}, as --config.model.width=0.5"
            )


def describe_data(config: "ml_collections.ConfigDict") -> "DatasetInfo":
    """Returns what is published of ImageNet, CIFAR and COCO, without their files, and what is found of another set."""
    from mnet_jax.data import catalog
    from mnet_jax.data.dataset import Dataset
    from mnet_jax.trained import annotations

    known = catalog.published(config.data)
    return Dataset.open(config.data, annotations(config)).info if known is None else known


def positive(text: str) -> int:
    """Returns a whole number of at least 1 from the command line."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def _step(text: str) -> int | str:
    if text in ("best", "latest"):
        return text
    if text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"must be best, latest or a number, got {text!r}")


# --- Labelled images ---


def add_data(parser: argparse.ArgumentParser) -> None:
    """`--data`, `--data_dir`, `--folder` and `--split`; without them, what the model was evaluated on in training."""
    parser.add_argument(
        "--data", metavar="NAME", help="a TFDS name, digits or folder (default: what it was trained on)"
    )
    parser.add_argument("--data_dir", metavar="DIR", help="the TFDS directory (default: as in training)")
    parser.add_argument(
        "--folder", metavar="DIR", help="every image in DIR/<class>/ or DIR/val/<class>/; means --data folder"
    )
    parser.add_argument(
        "--split", help="split to evaluate, of folders also several, train+val (default: as in training)"
    )


def check_data(args: argparse.Namespace) -> None:
    """ValueError if the arguments contradict each other; before anything is loaded."""
    if args.folder is not None and args.data not in (None, "folder"):
        raise ValueError(f"--folder goes with --data folder, not with --data {args.data}: give one of them")


def open_data(
    args: argparse.Namespace, trained: "Trained", *, image_size: tuple[int, int] | None = None
) -> "tuple[Dataset, ml_collections.ConfigDict]":
    """Returns the data set of `add_data` and the model's config with it in its section `data`.

    Its images are normalised as the network is used to, whatever the statistics of this set.

    Args:
      args: the command line's.
      trained: the model; its own config stays as it is.
      image_size: (height, width) of the images; None: as in the model's evaluation.

    Raises:
      ValueError: if it is not there, or has other classes than the model.
    """
    from mnet_jax.config import set_field
    from mnet_jax.data.dataset import Dataset
    from mnet_jax.trained import annotations

    check_data(args)
    config = trained.config.copy_and_resolve_references()
    data = config.data
    if args.data is not None or args.folder is not None:
        data.name = "folder" if args.folder is not None else args.data
        data.train_split = data.eval_split = None  # those of the training set
    if args.folder is not None:
        data.folder, data.manifest, data.split_from = args.folder, None, None
    if args.data_dir is not None:
        data.data_dir = args.data_dir
    if args.split is not None:
        data.eval_split = args.split
    if image_size is not None:
        set_field(config, "data.image_size", tuple(image_size))

    judged_by = () if args.folder is None else trained.class_names
    dataset = Dataset.open(data, annotations(config), judged_by)
    if complaint := dataset.complaint():
        tell(complaint)
    _check_classes(dataset.info.class_names, trained.class_names, dataset.info.name)
    info = dataclasses.replace(dataset.info, mean=trained.info.mean, std=trained.info.std)
    return dataclasses.replace(dataset, info=info), config


def _check_classes(found: tuple[str, ...], known: tuple[str, ...], name: str) -> None:
    """Raises ValueError for another number of classes, and warns of other names: labels are compared by number."""
    if len(found) != len(known):
        raise ValueError(
            f"{name} has {len(found)} classes, the checkpoint knows {len(known)}: "
            "give --data (with --data_dir or --folder) a set of the same classes"
        )
    if found != known:
        place, theirs, ours = next((i, a, b) for i, (a, b) in enumerate(zip(found, known, strict=True)) if a != b)
        tell(
            f"warning: class {place} is {theirs!r} in {name}, {ours!r} in the checkpoint; "
            "classes are compared by number"
        )
