"""A folder of photos that a model is judged on: all of its photos, in the model's classes.

Either DIR/<class>/..., of which nothing is held back, or the folders of splits, of which one alone will do. A class is
found by its name (`class_names.places`); not every class of the model needs photos.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Mapping

import ml_collections

from mnet_jax.data import class_names, folder
from mnet_jax.data.annotations import Annotation
from mnet_jax.data.folder import File, Folder, LeftOut, Listing
from mnet_jax.data.source import HELD_OUT

ALL = "all"  # the one split of a folder of classes
SPLITS = (*HELD_OUT, "train", ALL)  # the first that is there is judged unless another is asked for


class JudgedFolder(Folder):
    """The images of `data.folder` with the labels of a model; splits are joined with "+": "train+val"."""

    is_judged = True

    def __init__(self, data: ml_collections.ConfigDict, annotations: Mapping[str, Annotation], known: tuple[str, ...]):
        self.root, self._labels = folder.folder_path(data), tuple(annotations)
        self.listing, self.renamed = scan(self.root, known)
        self.sizes = {name: len(files) for name, files in self.listing.splits.items()}
        self.class_names = known

    def files(self, split: str) -> tuple[File, ...] | None:
        """Returns the images of a split, or of several with a "+" between them; None if there is no such split."""
        names = split.split("+")
        if not set(names) <= self.sizes.keys() or len(set(names)) < len(names):
            return None
        return tuple(file for name in names for file in self.listing.splits[name])

    def complaint(self) -> str | None:
        """Returns one line about the files that were left out, classes under other names and those without photos."""
        there = {file.label for files in self.listing.splits.values() for file in files}
        parts = [self.listing.complaint(self.root), *notes(self.class_names, there, self.renamed)]
        said = "; ".join(filter(None, parts))
        return said if not said or said.startswith(self.root) else f"{self.root}: {said}"


def scan(root: str, known: tuple[str, ...]) -> tuple[Listing, dict[str, str]]:
    """Returns the images of a folder with labels into `known`, and the classes that are called otherwise there.

    Raises:
      ValueError: if there are no images, or a class that the model has not.
    """
    images, unusable = folder.inspect(root, for_training=False)
    there = sorted({image.class_name for image in images})
    if not there:
        raise ValueError(
            f"{root} has no images in folders of classes: {os.path.join(root, known[0])}, for example, expected"
        )
    numbers = places(root, there, known)
    named = [dataclasses.replace(image, class_name=known[numbers[image.class_name]]) for image in images]
    named, copies = folder.without_copies(root, named, {})
    splits: dict[str, list[File]] = {split: [] for split in SPLITS if any(split == (one.split or ALL) for one in named)}
    for image in sorted(named, key=lambda image: image.path):
        splits[image.split or ALL].append(File(image.path, known.index(image.class_name), image.digest))
    left_out: tuple[LeftOut, ...] = tuple(sorted((*unusable, *copies), key=lambda file: file.path))
    renamed = {name: known[number] for name, number in numbers.items() if name != known[number]}
    return Listing(known, {split: tuple(files) for split, files in splits.items()}, left_out), renamed


def places(root: str, there: Iterable[str], known: tuple[str, ...]) -> dict[str, int]:
    """Returns the number in `known` of each class of a folder.

    Raises:
      ValueError: if the model has not all of them.
    """
    there = sorted(there)
    numbers = class_names.places(there, known)
    if unknown := [name for name in there if name not in numbers]:
        raise ValueError(
            f"{root} has {'classes' if len(unknown) > 1 else 'a class'} that the model does not know: "
            f"{_some(unknown)}; it knows {len(known):,}: {_some(known)}. Rename the folders, or give another set"
        )
    return numbers


def notes(known: tuple[str, ...], there: Collection[int], renamed: Mapping[str, str]) -> list[str]:
    """Returns what to say of classes that are called otherwise in a folder, and of those without photos."""
    parts, lacking = [], [name for number, name in enumerate(known) if number not in there]
    if renamed:
        pairs = [f"{theirs!r} is {ours!r}" for theirs, ours in renamed.items()]
        parts.append(f"classes are compared by name: {_some(pairs)}")
    if lacking:
        parts.append(f"no photos of {len(lacking):,} of the model's {len(known):,} classes: {_some(lacking)}")
    return parts


def _some(names: list[str] | tuple[str, ...], shown: int = 5) -> str:
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
