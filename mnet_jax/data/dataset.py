"""A data set as a run uses it: looked up once by `Dataset.open`, and passed down.

Everything that was found then stays: the TFDS builder or the listing of a folder, splits, classes, sizes. Two data sets
that are open at the same time know nothing of each other.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import ml_collections
import numpy as np

from mnet_jax import config, errors
from mnet_jax.data import batch, catalog
from mnet_jax.data.annotations import Annotation, Boxes
from mnet_jax.data.batch import Field
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.label_set import LabelSet
from mnet_jax.data.pixel_map import PixelMap
from mnet_jax.data.source import HELD_OUT, UNSORTED, Source

if TYPE_CHECKING:
    from mnet_jax.data import folder, records

# Without a split of its own for it, the last tenth of the training split is for evaluation.
_TRAIN_PART, _EVAL_PART = "train[:90%]", "train[90%:]"
_READ_AT_ONCE = 1024  # examples


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set that is there, with the annotations that a task takes from it."""

    data: ml_collections.ConfigDict  # the config's section
    info: DatasetInfo
    annotations: Mapping[str, Annotation]  # by their name in a batch
    source: Source

    @classmethod
    def open(
        cls, data: ml_collections.ConfigDict, annotations: Mapping[str, Annotation], judged_by: tuple[str, ...] = ()
    ) -> Dataset:
        """Returns the data set that `data` names, with these annotations.

        Splits, unless the config names them: "train"; for evaluation "validation" if there is one, else "test", else
        the last tenth of "train". ImageNet's classes have readable names instead of WordNet numbers. What the config
        says later changes nothing here.

        Args:
          data: the section of a run's config.
          annotations: kinds of annotation, by their name in a batch; {}: images alone.
          judged_by: the classes of a model: a folder of photos with labels has these, and all of its photos are for
            evaluation; () and for other sets: those of the set.

        Raises:
          ValueError: that says what to type, if the set or a split is missing, or it has not those annotations.
        """
        data = data.copy_and_resolve_references()
        source = _open_source(data, annotations, judged_by)
        if list(source.sizes) == [UNSORTED]:
            train_split = eval_split = UNSORTED
        elif source.is_judged:
            train_split = eval_split = data.eval_split or next(iter(source.sizes))
        else:
            train_split, eval_split = _choose_splits(data, source)
        mean, std = catalog.statistics(data.name)
        info = DatasetInfo(
            name=data.name,
            num_classes=len(source.class_names),
            class_names=source.class_names,
            num_train=_count(data.name, source, train_split),
            num_eval=_count(data.name, source, eval_split),
            train_split=train_split,
            eval_split=eval_split,
            mean=mean,
            std=std,
        )
        return cls(data, info, source.annotations(annotations, eval_split), source)

    # --- The batch ---

    def fields(self, *, train: bool) -> dict[str, Field]:
        """Returns every array of a batch on the host by its name, without its first axis."""
        return batch.spec(self.annotations, config.image_size(self.data), train=train)

    def batch_spec(self, *, train: bool) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns (shape, type) of every array of a batch on the devices by its name, without its first axes."""
        return {name: (field.shape, field.device_dtype) for name, field in self.fields(train=train).items()}

    # --- The examples of a split ---

    def open_split(self, split: str) -> records.Split:
        """Returns the examples of a split, or of a TFDS slice of one.

        Raises:
          ValueError: if there is none; says which there are.
        """
        _count(self.info.name, self.source, split)
        return self.source.open_split(split)

    def table(self, split: str) -> records.RandomAccess:
        """Returns a split whose examples can be read at any place, from memory if need be.

        Raises:
          ValueError: if it is larger than `data.cache_mb`.
        """
        from mnet_jax.data import records

        opened = self.open_split(split)
        if not isinstance(opened, records.TFRecords):
            return opened
        if opened.num_bytes > self.data.cache_mb << 20:
            raise ValueError(
                f"{self.info.name} {split!r} has {opened.num_bytes >> 20:,} MB, more than "
                f"data.cache_mb={self.data.cache_mb}: this needs a set that fits in memory; try "
                "--config.data.cache_mb or a slice of the split"
            )
        return opened.load()

    def values(self, field: str, split: str) -> np.ndarray:
        """Returns one annotation of all examples of a split, in its order, without decoding an image.

        Args:
          field: its name in a batch: "label" gives int32 [N]. Of what an image has several times, such as
            "boxes_class", those of all images one after the other.
          split: its name, or a TFDS slice.
        """
        from mnet_jax.data import records

        name, _, part = next(
            (name, None, part)
            for name, annotation in self.annotations.items()
            for part in annotation.fields(config.image_size(self.data))
            if batch.part_name(name, part) == field
        )
        table = self.table(split)
        if isinstance(table, records.Table):  # in memory as it is: without what `gather` pads
            found = [table.annotations[name][part]]
        else:
            found = [table.gather(rows)["annotations"][name][part] for rows in _rows(table.num_examples)]
        flat = [getattr(values, "flat_values", values).numpy() for values in found]
        values = np.concatenate(flat)
        if values.dtype == object:  # encoded
            return self.annotations[name].values(part, values)
        return values.astype(self.fields(train=True)[field].dtype)

    def digests(self, split: str) -> list[str]:
        """Returns a hash of each image's content, 32 hexadecimal digits, in the order of the split."""
        known = self.source.digests(split)
        if known is not None:
            return known
        table = self.table(split)
        parts = (table.gather(rows)["contents"].numpy() for rows in _rows(table.num_examples))
        return [hashlib.blake2b(contents, digest_size=16).hexdigest() for part in parts for contents in part]

    def file_names(self, split: str) -> list[str] | None:
        """Returns the path of each image of a split, in its order; None where they have none."""
        return self.source.file_names(split)

    # --- Folders ---

    @property
    def listing(self) -> folder.Listing | None:
        """The files of a folder of images; None where the set is none."""
        return getattr(self.source, "listing", None)

    def complaint(self) -> str | None:
        """Returns one line about files that cannot be used, if there are any."""
        return self.source.complaint()


def _open_source(
    data: ml_collections.ConfigDict, annotations: Mapping[str, Annotation], judged_by: tuple[str, ...]
) -> Source:
    if data.name == "folder":
        if any(isinstance(one, Boxes) for one in annotations.values()):
            from mnet_jax.data.boxes.folder import BoxFolder

            return BoxFolder(data, annotations)
        if any(isinstance(one, PixelMap) for one in annotations.values()):
            from mnet_jax.data.masks.folder import MaskFolder

            return MaskFolder(data, annotations)
        if any(isinstance(one, LabelSet) for one in annotations.values()):
            from mnet_jax.data.labels.folder import TaggedFolder

            return TaggedFolder(data, annotations, judged_by)
        from mnet_jax.data.folder import Folder
        from mnet_jax.data.imagenet import in_place

        unpacked = in_place.open_folder(data, annotations)
        if judged_by and (unpacked is None or unpacked.class_names != judged_by):
            from mnet_jax.data.judged import JudgedFolder

            return JudgedFolder(data, annotations, judged_by)
        return unpacked or Folder(data, annotations)
    from mnet_jax.data.tfds_set import TFDSSet

    return TFDSSet(data, annotations)


def _choose_splits(data: ml_collections.ConfigDict, source: Source) -> tuple[str, str]:
    """Returns the splits to train and to evaluate on."""
    held_out = next((name for name in HELD_OUT if name in source.sizes), None)
    if held_out:
        return data.train_split or "train", data.eval_split or held_out
    if not data.train_split and not data.eval_split:
        return _TRAIN_PART, _EVAL_PART
    if not data.train_split or not data.eval_split:
        raise ValueError(
            f"{data.name} has no split for evaluation: set both data.train_split and data.eval_split, "
            f"such as {_TRAIN_PART!r} and {_EVAL_PART!r}"
        )
    return data.train_split, data.eval_split


def _count(name: str, source: Source, split: str) -> int:
    """Returns how many examples a split has. Raises ValueError that says which splits there are."""
    number = source.count(split)
    if number:
        return number
    there = ", ".join(f"{name} ({size:,})" for name, size in source.sizes.items())
    slices = f", and slices such as '{next(iter(source.sizes))}[:10%]'" if source.slices else ""
    near = errors.nearest(split, source.sizes)
    meant = f"; did you mean {near[0]!r}?" if near and number is None else ""
    what = "no split" if number is None else "nothing in split"
    raise ValueError(f"{name} has {what} {split!r}: there are {there}{slices}{meant}")


def _rows(num_examples: int) -> Iterator[np.ndarray]:
    for start in range(0, num_examples, _READ_AT_ONCE):
        yield np.arange(start, min(start + _READ_AT_ONCE, num_examples))
