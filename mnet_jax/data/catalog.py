"""What each data set is: where it lies, its splits, classes, and the statistics of its pixels."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import ml_collections

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

Channels = tuple[float, float, float]

# Mean and standard deviation per channel (red, green, blue) of pixels in 0 .. 255.
IMAGENET_MEAN: Channels = (0.485 * 255, 0.456 * 255, 0.406 * 255)  # as torchvision, timm and Flax's example use
IMAGENET_STD: Channels = (0.229 * 255, 0.224 * 255, 0.225 * 255)


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a run needs to know about its data."""

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    num_train: int
    num_eval: int
    train_split: str
    eval_split: str
    mean: Channels
    std: Channels


def data_dir(data: ml_collections.ConfigDict) -> str:
    """The TFDS directory of a run: `data.data_dir`, else what TFDS itself would use."""
    return os.path.expanduser(data.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def open_builder(data: ml_collections.ConfigDict) -> tfds.core.DatasetBuilder:
    """The prepared TFDS data set that `config.data` names."""
    import tensorflow_datasets as tfds

    if data.name == "digits":
        from mnet_jax.data import digits

        digits.prepare(data_dir(data))
    return tfds.core.read_only_builder.builder_from_files(data.name, data_dir=data_dir(data))


def describe(data: ml_collections.ConfigDict) -> DatasetInfo:
    """Looks the data set up. Raises ValueError that says what to type if it, or a split of it, is missing."""
    builder = open_builder(data)
    splits = builder.info.splits
    train_split = data.train_split or "train"
    eval_split = data.eval_split or ("validation" if "validation" in splits else "test")
    label = builder.info.features["label"]
    return DatasetInfo(
        name=data.name,
        num_classes=label.num_classes,
        class_names=tuple(label.names),
        num_train=splits[train_split].num_examples,
        num_eval=splits[eval_split].num_examples,
        train_split=train_split,
        eval_split=eval_split,
        mean=tuple(data.mean or IMAGENET_MEAN),
        std=tuple(data.std or IMAGENET_STD),
    )
