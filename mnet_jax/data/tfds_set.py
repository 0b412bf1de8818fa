"""A prepared TFDS data set as a source of examples; nothing is ever downloaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ml_collections
import tensorflow_datasets as tfds

from mnet_jax import errors
from mnet_jax.data import digits, records
from mnet_jax.data.annotations import Annotation
from mnet_jax.data.imagenet_names import NAMES
from mnet_jax.data.source import Source
from mnet_jax.data.tensorflow_setup import tf


class TFDSSet(Source):
    """The set that `data.name` names in `data.data_dir`; the digits are written there first."""

    slices = True

    def __init__(self, data: ml_collections.ConfigDict, annotations: Mapping[str, Annotation]):
        self.builder = open_builder(data)
        self.sizes = {name: info.num_examples for name, info in self.builder.info.splits.items()}
        self._annotations, features = annotations, _features(self.builder)
        self._features = {name: features.get(annotation.feature) for name, annotation in annotations.items()}
        fitting = (annotation.fits(self._features[name]) for name, annotation in annotations.items())
        if not isinstance(features.get("image"), tfds.features.Image) or not all(fitting):
            wanted = ["image (Image)", *(f"{one.feature} ({one.kind})" for one in annotations.values())]
            there = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
            raise ValueError(f"{data.name} cannot be used: {' and '.join(wanted)} expected, it has {there}")
        known = (annotation.class_names(self._features[name]) for name, annotation in annotations.items())
        self.class_names = tuple(NAMES.get(name, name) for name in next(filter(None, known), ()))

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
        wanted: dict[str, Any] = {"image": tf.io.FixedLenFeature([], tf.string)}
        for name, annotation in self._annotations.items():
            wanted |= annotation.record_features(self._features[name])
        found = tf.io.parse_example(serialized, wanted)
        return {
            "contents": found["image"],
            "annotations": {name: annotation.from_records(found) for name, annotation in self._annotations.items()},
        }


def open_builder(data: ml_collections.ConfigDict) -> tfds.core.DatasetBuilder:
    """Returns the prepared TFDS data set that `data` names; `digits` is prepared here.

    Raises:
      ValueError: that says what to type, if it is not there.
    """
    if data.name == "digits":
        return tfds.builder_from_directory(digits.prepare(data_dir(data)))
    try:
        builder = tfds.core.read_only_builder.builder_from_files(data.name, data_dir=data_dir(data))
    except (ValueError, AssertionError, OSError) as error:
        raise ValueError(_missing(data.name, data_dir(data), tfds.list_builders())) from error
    if builder.info.file_format.value not in ("tfrecord", "array_record"):
        raise ValueError(
            f"{data.name} is stored as {builder.info.file_format.value}: tfrecord or array_record expected"
        )
    return builder


def data_dir(data: ml_collections.ConfigDict) -> str:
    """Returns the TFDS directory of a run: `data.data_dir`, else what TFDS itself would use."""
    return os.path.expanduser(data.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def _features(builder: tfds.core.DatasetBuilder) -> dict[str, object]:
    features = builder.info.features
    return dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}


def _missing(name: str, directory: str, known: list[str]) -> str:
    """Returns what to say about a data set that is not there."""
    base = name.split("/")[0].split(":")[0]
    command = (
        f'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='{directory}').download_and_prepare()\""
    )
    if base == "imagenet2012":
        return (
            f"imagenet2012 is not in {directory}. Register at https://image-net.org/download-images, put "
            f"ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar into {directory}/downloads/manual, "
            f"and type: {command}"
        )
    if base in known:
        return f"{name} is not in {directory}. To download and prepare it, type: {command}"
    near = errors.nearest(base, [*known, "digits", "folder"], count=3)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return (
        f"unknown data set {name!r}: {meant}There are digits (offline), folder (with data.folder), any name from "
        f"https://www.tensorflow.org/datasets/catalog, and what is prepared in {directory}"
    )
