"""ImageNet unpacked: a folder a class for training; for validation folders again, or all images in one.

Two layouts: train/ beside val/, and Kaggle's ILSVRC/Data/CLS-LOC with its LOC_val_solution.csv. What was listed is
kept beside the tree, so that only the first start has to read all its folders.
"""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import os

from mnet_jax.data import layout
from mnet_jax.data.imagenet import facts
from mnet_jax.data.remembered import Remembered
from mnet_jax.data.tensorflow_setup import tf

VALIDATION = ("val", "validation", "valid")
_KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
_SOLUTION = "LOC_val_solution.csv"


@dataclasses.dataclass(frozen=True)
class Tree:
    """Where an unpacked ImageNet has its parts."""

    root: str
    train: str
    validation: str
    is_flat: bool  # all validation images in one folder
    solution: str | None = None  # Kaggle's list of their classes

    def listing(self) -> dict[str, dict[str, list[str]]]:
        """Returns the names of the images by split and class, both in ImageNet's order.

        Raises:
          ValueError: if a class is none of ImageNet's, or nobody says what a validation image is of.
        """
        folders = {"train": _class_folders(self.train)}
        if not self.is_flat:
            folders["validation"] = _class_folders(self.validation)
        paths = [(split, wnid, path) for split, named in folders.items() for wnid, path in named.items()]
        where = [path for _, _, path in paths] + [self.validation] * self.is_flat
        stamps = _stamps([self.train, self.validation, *where, *([self.solution] if self.solution else [])])
        remembered = Remembered(self.root, "listing")
        kept = remembered.read()
        if stamps and kept.get("stamps") == stamps:
            return kept["splits"]
        splits: dict[str, dict[str, list[str]]] = {"train": {}, "validation": {}}
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for (split, wnid, _), names in zip(paths, pool.map(_files, [path for _, _, path in paths]), strict=True):
                splits[split][wnid] = names
        if self.is_flat:
            splits["validation"] = self._sorted_out(_files(self.validation))
        if stamps:
            remembered.write({"stamps": stamps, "splits": splits})
        return splits

    def path(self, split: str, wnid: str, name: str) -> str:
        """Returns where an image is."""
        if split == "train":
            return f"{self.train}/{wnid}/{name}"
        return f"{self.validation}/{name}" if self.is_flat else f"{self.validation}/{wnid}/{name}"

    def _sorted_out(self, names: list[str]) -> dict[str, list[str]]:
        """Returns validation images that lie in one folder by their classes."""
        known = {} if self.solution is None else _solution(self.solution)
        found: dict[str, list[str]] = {}
        for name in names:
            wnid = known.get(name.partition(".")[0]) or facts.wnid_of(facts.file_name(name))
            if wnid is None:
                raise ValueError(
                    f"nobody says what {self.validation}/{name} is of: ILSVRC2012_val_00000001.JPEG to "
                    f"ILSVRC2012_val_00050000.JPEG expected, or folders named after the classes"
                )
            found.setdefault(wnid, []).append(name)
        return {wnid: found[wnid] for wnid in facts.WNIDS if wnid in found}


def find(root: str) -> Tree | None:
    """Returns the unpacked ImageNet in a folder; None if it is none.

    It is one in Kaggle's layout, or where the classes are all 1,000 of ImageNet's, or where validation images lie in
    one folder and are called as ImageNet's. Other folders named after some of its classes are sets of their own.
    """
    for inside in _KAGGLE:
        data = f"{root}/{inside}"
        if tf.io.gfile.isdir(f"{data}/train"):
            places = (f"{root}/{_SOLUTION}", f"{root}/ILSVRC/{_SOLUTION}")
            solution = next((path for path in places if tf.io.gfile.exists(path)), None)
            return Tree(root, f"{data}/train", f"{data}/val", is_flat=not _some_class(f"{data}/val"), solution=solution)
    validation = next((f"{root}/{name}" for name in VALIDATION if tf.io.gfile.isdir(f"{root}/{name}")), None)
    train = f"{root}/train"
    if validation is None or not tf.io.gfile.isdir(train):
        return None
    names = {name.rstrip("/") for name in layout.names(train)}
    if not set(facts.WNIDS) <= names and not (names & set(facts.WNIDS) and _some_image(validation)):
        return None
    return Tree(root, train, validation, is_flat=not _some_class(validation))


def _some_class(path: str) -> bool:
    return tf.io.gfile.isdir(path) and any(facts.is_wnid(name.rstrip("/")) for name in layout.names(path))


def _some_image(path: str) -> bool:
    return any(facts.is_validation_name(name) for name in layout.names(path))


def _class_folders(path: str) -> dict[str, str]:
    """Returns the folder of each class, in ImageNet's order."""
    names = {name.rstrip("/") for name in layout.names(path)}
    strangers = sorted(
        name for name in names if name.startswith("n") and name[1:].isdigit() and not facts.is_wnid(name)
    )
    for name in strangers:
        facts.label(name, path)
    return {wnid: f"{path}/{wnid}" for wnid in facts.WNIDS if wnid in names}


def _files(path: str) -> list[str]:
    """Returns the names of the images in a folder, in order."""
    return sorted(name for name in layout.names(path) if not name.startswith(".") and not name.endswith("/"))


def _solution(path: str) -> dict[str, str]:
    """Returns the class of each validation image as Kaggle's list has it, by the image's name without its ending."""
    with tf.io.gfile.GFile(path) as file:
        rows = csv.reader(file.read().splitlines()[1:])
        return {image: found.split()[0] for image, found in rows if found.strip()}


def _stamps(paths: list[str]) -> list[int]:
    """Returns when files were last put into these local folders, or taken out; [] where the place cannot say."""
    if any("://" in path for path in paths):
        return []
    return [os.stat(path).st_mtime_ns for path in paths]
