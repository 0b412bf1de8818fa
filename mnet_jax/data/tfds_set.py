"""A prepared TFDS data set as a source of examples; nothing is ever downloaded."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections
import numpy as np
import tensorflow_datasets as tfds

from mnet_jax import errors
from mnet_jax.data import digits, records
from mnet_jax.data.annotations import Annotation
from mnet_jax.data.imagenet_names import NAMES
from mnet_jax.data.pixel_map import PixelMap
from mnet_jax.data.source import Source
from mnet_jax.data.tensorflow_setup import graph_function, tf
from mnet_jax.files import check_bucket


class TFDSSet(Source):
    """The set that `data.name` names in `data.data_dir`; the digits are written there first."""

    slices = True

    def __init__(self, data: ml_collections.ConfigDict, annotations: Mapping[str, Annotation]):
        self.builder = open_builder(data)
        self.sizes = {name: info.num_examples for name, info in self.builder.info.splits.items()}
        features = _features(self.builder)
        annotations = {name: one.found_in(data.name, features) for name, one in annotations.items()}
        self._annotations, self._image = annotations, _image_feature(features)
        self._features = {name: features.get(annotation.feature) for name, annotation in annotations.items()}
        fitting = (annotation.fits(self._features[name]) for name, annotation in annotations.items())
        if self._image is None or not all(fitting):
            wanted = ["image (Image)", *(f"{one.feature} ({one.kind})" for one in annotations.values())]
            there = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
            raise ValueError(f"{data.name} cannot be used: {' and '.join(wanted)} expected, it has {there}")
        known = (annotation.class_names(self._features[name]) for name, annotation in annotations.items())
        self.class_names = tuple(NAMES.get(name, name) for name in next(filter(None, known), ()))

    def annotations(self, wanted: Mapping[str, Annotation], eval_split: str) -> dict[str, Annotation]:
        """Returns the kinds with the names of their features and, of a pixel map, the largest of the split."""
        del wanted
        return {
            name: dataclasses.replace(one, largest=self._largest(name, eval_split))
            if isinstance(one, PixelMap)
            else one
            for name, one in self._annotations.items()
        }

    def _largest(self, name: str, split: str) -> tuple[int, int]:
        """Returns height and width that no map of a split exceeds: those of all, or from the headers of the files."""
        shape = self._features[name].shape[:2]
        if None not in shape:
            return tuple(shape)
        opened, largest = self.open_split(split), np.zeros(2, np.int64)
        if isinstance(opened, records.TFRecords):
            chunks = opened.chunks(opened.read())
        else:
            rows = tf.data.Dataset.range(opened.num_examples).batch(records.MOST_AT_ONCE)
            chunks = rows.map(graph_function(opened.gather))
        for chunk in chunks.map(graph_function(lambda chunk: chunk["annotations"][name][""])):
            headers = tf.io.decode_raw(tf.strings.substr(chunk, 16, 8), tf.uint8)  # PNG: width and height, big-endian
            numbers = headers.numpy().reshape(-1, 2, 4).astype(np.int64) @ (256 ** np.arange(3, -1, -1))
            largest = np.maximum(largest, numbers[:, ::-1].max(0))
        return int(largest[0]), int(largest[1])

    def count(self, split: str) -> int | None:
        """Returns how many examples a split, or a slice of one, has."""
        try:
            return self.builder.info.splits[split].num_examples
        except (ValueError, KeyError, AssertionError):  # TFDS's own: a misspelt name, a wrong slice, one out of range
            return None

    def open_split(self, split: str) -> records.Split:
        """Returns the examples of a split, or of a slice of one."""
        return records.open_tfds(self.builder, split, self._parse)

    def _parse(self, serialized: tf.Tensor) -> records.Chunk:
        """Returns contents, string [n], and annotations of serialized examples, string [n]."""
        wanted: dict[str, Any] = {self._image: tf.io.FixedLenFeature([], tf.string)}
        for name, annotation in self._annotations.items():
            wanted |= annotation.record_features(self._features[name])
        found = tf.io.parse_example(serialized, wanted)
        return {
            "contents": found[self._image],
            "annotations": {name: annotation.from_records(found) for name, annotation in self._annotations.items()},
        }


def open_builder(data: ml_collections.ConfigDict) -> tfds.core.DatasetBuilder:
    """Returns the prepared TFDS data set that `data` names; `digits` is prepared here.

    Raises:
      ValueError: that says what to type, if it is not there.
    """
    if data.name == "digits":
        return tfds.builder_from_directory(digits.prepare(data_dir(data)))
    check_bucket(data_dir(data), "data.data_dir", tf.io.gfile.exists)
    try:
        builder = tfds.core.read_only_builder.builder_from_files(data.name, data_dir=data_dir(data))
    except (ValueError, AssertionError, OSError) as error:
        raise ValueError(_missing(data.name, data_dir(data), tfds.list_builders())) from error
    if builder.info.file_format.value not in ("tfrecord", "array_record"):
        raise ValueError(
            f"{data.name} is stored as {builder.info.file_format.value}: tfrecord or array_record expected"
        )
    return builder


def faults(directory: str) -> Iterator[tuple[str, int, str | None]]:
    """Yields ("digits train", records, fault or None) of each split of a prepared set, all of which is read.

    ArrayRecord files, which have no sums of their own, are only counted.
    """
    builder = tfds.builder_from_directory(directory)
    for name, split in sorted(builder.info.splits.items()):
        opened = records.open_tfds(builder, name, lambda serialized: {"contents": serialized})
        fault = opened.fault(float("inf")) if isinstance(opened, records.TFRecords) else None
        yield f"{builder.info.name} {name}", split.num_examples, fault


def data_dir(data: ml_collections.ConfigDict) -> str:
    """Returns the TFDS directory of a run: `data.data_dir`, else what TFDS itself would use."""
    return os.path.expanduser(data.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def _features(builder: tfds.core.DatasetBuilder) -> dict[str, object]:
    features = builder.info.features
    return dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}


def _image_feature(features: Mapping[str, object]) -> str | None:
    """Returns the name of the pictures: "image", or of cityscapes "image_left"; None if there are none."""
    names = (name for name in ("image", "image_left") if isinstance(features.get(name), tfds.features.Image))
    return next(names, None)


def _missing(name: str, directory: str, known: list[str]) -> str:
    """Returns what to say about a data set that is not there."""
    base = name.split("/")[0].split(":")[0]
    if base == "imagenet2012":
        return (
            f"imagenet2012 is not in {directory}. Register at https://image-net.org/download-images, put "
            f"ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar into a directory DIR, and type: "
            f"mnet prepare --data imagenet2012 --archives DIR --out {directory}"
        )
    if base in known:
        return (
            f"{name} is not in {directory}. To download and prepare it, type: "
            f"mnet prepare --data {name} --data_dir {directory}"
        )
    near = errors.nearest(base, [*known, "digits", "folder"], count=3)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return (
        f"unknown data set {name!r}: {meant}There are digits (offline), folder (with data.folder), any name from "
        f"https://www.tensorflow.org/datasets/catalog, and what is prepared in {directory}"
    )
