"""Features of all images of a folder under a trained model: what `mnet features` writes and `mnet probe` judges."""

import argparse
import dataclasses
import sys

import numpy as np

from mnet_jax.commands import arguments


@dataclasses.dataclass(frozen=True)
class Features:
    """Of N images: what the classifier sees of the evaluation's crop of each, before dropout."""

    values: np.ndarray  # float32 [N, F]
    files: np.ndarray  # str [N], relative to the folder
    splits: np.ndarray  # str [N], "train", "val" ...; "" in a folder without classes
    labels: np.ndarray  # int32 [N], -1 in a folder without classes
    class_names: tuple[str, ...]
    model: str  # where the weights came from

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """(values, labels) of one split."""
        rows = self.splits == split
        return self.values[rows], self.labels[rows]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, and which folder."""
    arguments.add_model(parser)
    parser.add_argument("folder", metavar="FOLDER", help="FOLDER/<class>/..., FOLDER/train/<class>/... or just images")


def load(args: argparse.Namespace, *, classes: bool) -> Features:
    """Runs the model of the command line over its folder. What cannot be read is told on stderr and left out.

    Args:
      args: the command line's.
      classes: whether the folder must have classes.

    Raises:
      ValueError: in one line, if there is no such model, or nothing to run it on.
    """
    from mnet_jax.data import catalog, folder
    from mnet_jax.runtime import cache_compilations
    from mnet_jax.trained import build_model, build_task
    from mnet_jax.training.embeddings import Extractor
    from mnet_jax.training.parallel import Devices

    cache_compilations()
    trained = arguments.load_model(args, classifier=False)
    config = trained.config.copy_and_resolve_references()
    data = config.data
    data.name, data.folder, data.manifest, data.split_from = "folder", args.folder, None, None
    root = catalog.folder_path(data)
    unsorted = not classes and not folder.has_classes(root)
    data.train_split, data.eval_split = None, folder.UNSORTED if unsorted else None
    listing = catalog.listing(data)
    if complaint := listing.complaint(root):
        print(f"mnet: {complaint}", file=sys.stderr)
    info = dataclasses.replace(trained.info, num_classes=max(1, trained.info.num_classes))
    extract = Extractor(
        build_model(config, info),
        build_task(config, info),
        trained.variables,
        config,
        info,
        Devices(),
        directory=None,
        log=lambda line: print(f"mnet: {line}", file=sys.stderr),
    )
    values = [extract(split, 1)[:, 0] for split in listing.splits]
    entries = listing.entries(root)
    labels = [-1 if unsorted else file.label for files in listing.splits.values() for file in files]
    return Features(
        values=np.concatenate(values),
        files=np.array([entry.file for entry in entries]),
        splits=np.array(["" if unsorted else entry.split for entry in entries]),
        labels=np.array(labels, np.int32),
        class_names=listing.class_names,
        model=trained.path,
    )
