"""What every form of a data set has in common: where its examples are, for whoever opens it."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnet_jax.data import records
    from mnet_jax.data.annotations import Annotation

HELD_OUT = ("validation", "val", "valid", "test")  # names of a split for evaluation, the first that is there
UNSORTED = "unsorted"  # the one split of images without annotations in a folder


class Source(abc.ABC):
    """Where the examples of a data set are, for the annotations of a task."""

    sizes: dict[str, int]  # examples by split
    class_names: tuple[str, ...]
    is_judged: bool = False  # whether there is nothing to train on; the first split is evaluated
    slices: bool = False  # whether parts of a split such as "train[:10%]" are splits too

    @abc.abstractmethod
    def count(self, split: str) -> int | None:
        """Returns how many examples a split has, None if there is no such split."""

    @abc.abstractmethod
    def open_split(self, split: str) -> records.Split:
        """Returns the examples of a split that there is."""

    def annotations(self, wanted: Mapping[str, Annotation], eval_split: str) -> dict[str, Annotation]:
        """Returns the kinds of annotation that were asked for, with what this set and its split know of them."""
        del eval_split
        return dict(wanted)

    def digests(self, split: str) -> list[str] | None:
        """Returns what `Dataset.digests` does, where it is known without reading the images."""
        del split
        return None

    def file_names(self, split: str) -> list[str] | None:
        """Returns the path of each image of a split; None where they have none."""
        del split
        return None

    def complaint(self) -> str | None:
        """Returns one line about files that cannot be used, if there are any."""
        return None
