"""`mnet features`: what a network sees in the images of a folder, as arrays with file names. `mnet probe` judges it."""

import argparse
import dataclasses
import io
import json
import pathlib
from typing import TextIO

import numpy as np

from mnet_jax.commands import arguments
from mnet_jax.files import tell, write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which model, which images, where to."""
    add_model_and_folder(parser)
    parser.add_argument("--out", required=True, metavar="FILE.npz", help="where the arrays go")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Writes the file and says what is in it."""
    path = pathlib.Path(args.out)
    if path.suffix != ".npz":
        raise ValueError(f"--out {args.out}: a name that ends with .npz expected")
    if not path.parent.is_dir():
        raise ValueError(f"--out {args.out}: there is no directory {path.parent}")
    found = embed(args, classes=False)
    file = io.BytesIO()
    np.savez(
        file,
        features=found.values,
        files=found.files,
        splits=found.splits,
        labels=found.labels,
        class_names=np.array(found.class_names),
        model=np.array(found.model),
    )
    write_whole(path, file.getvalue())
    count, size = found.values.shape
    if args.json:
        result = {"out": str(path), "images": count, "features": size, "classes": list(found.class_names)}
        print(json.dumps(result, indent=2), file=out)
        return 0
    print(f"{path}: features float32 [{count:,}, {size:,}], files, splits, labels, class_names, model", file=out)
    return 0


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """What the classifier sees of the evaluation's crop of each of N images, before dropout."""

    values: np.ndarray  # float32 [N, F]
    files: np.ndarray  # str [N], relative to the folder
    splits: np.ndarray  # str [N], "train", "val" ...; "" in a folder without classes
    labels: np.ndarray  # int32 [N], -1 in a folder without classes
    class_names: tuple[str, ...]
    model: str  # where the weights came from

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns (values, labels) of one split."""
        rows = self.splits == split
        return self.values[rows], self.labels[rows]


def add_model_and_folder(parser: argparse.ArgumentParser) -> None:
    """Adds which model and which folder: for the commands that start with `embed`."""
    arguments.add_model(parser)
    parser.add_argument("folder", metavar="FOLDER", help="FOLDER/<class>/..., FOLDER/train/<class>/... or just images")


def embed(args: argparse.Namespace, *, classes: bool) -> Embeddings:
    """Returns what the command line's model makes of its folder; what cannot be read is told on stderr and left out.

    Args:
      args: the command line's.
      classes: whether the folder must have classes.

    Raises:
      ValueError: in one line, if there is no such model, or nothing to run it on.
    """
    from mnet_jax.data import folder
    from mnet_jax.data.annotations import Label
    from mnet_jax.data.dataset import Dataset
    from mnet_jax.runtime import cache_compilations, keep_memory
    from mnet_jax.trained import build_model, build_task
    from mnet_jax.training.embeddings import Extractor
    from mnet_jax.training.parallel import Devices

    keep_memory()
    cache_compilations()
    trained = arguments.load_model(args, classifier=False)
    config = trained.config.copy_and_resolve_references()
    data = config.data
    data.name, data.folder, data.manifest, data.split_from = "folder", args.folder, None, None
    data.train_split = data.eval_split = None
    root = folder.folder_path(data)
    unsorted = not classes and not folder.has_classes(root)
    dataset = Dataset.open(data, {} if unsorted else {"label": Label()})
    listing = dataset.listing
    if complaint := dataset.complaint():
        tell(complaint)
    info = dataclasses.replace(trained.info, num_classes=max(1, trained.info.num_classes))
    task = build_task(config, info)
    extract = Extractor(
        build_model(config, info, task=task),
        task,
        trained.variables,
        config,
        dataset,
        Devices(),
        directory=None,
        log=tell,
    )
    values = [extract(split, 1)[:, 0] for split in listing.splits]
    entries = listing.entries(root)
    labels = [-1 if unsorted else file.label for files in listing.splits.values() for file in files]
    return Embeddings(
        values=np.concatenate(values),
        files=np.array([entry.file for entry in entries]),
        splits=np.array(["" if unsorted else entry.split for entry in entries]),
        labels=np.array(labels, np.int32),
        class_names=listing.class_names,
        model=trained.path,
    )
