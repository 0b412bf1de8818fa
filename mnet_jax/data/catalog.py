"""What each data set is: where it lies, its splits, classes, and the statistics of its pixels."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import ml_collections

from mnet_jax.data import digits, folder

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

Channels = tuple[float, float, float]

# Mean and standard deviation per channel (red, green, blue) of pixels in 0 .. 255. ImageNet's are those of torchvision,
# timm and Flax's example; CIFAR's are over all training pixels; other sets take ImageNet's.
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_STATISTICS: dict[str, tuple[Channels, Channels]] = {
    "cifar10": ((125.307, 122.950, 113.865), (62.993, 62.089, 66.705)),
    "cifar100": ((129.304, 124.070, 112.434), (68.170, 65.392, 70.418)),
}
# Without a split of its own for it, the last tenth of the training split is for evaluation.
_TRAIN_PART, _EVAL_PART = "train[:90%]", "train[90%:]"


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


def describe(data: ml_collections.ConfigDict) -> DatasetInfo:
    """Looks the data set of `config.data` up. Raises ValueError that says what to type if it, or a split, is missing.

    Splits, unless the config names them: "train"; for evaluation "validation" if there is one, else "test", else the
    last tenth of "train". ImageNet's classes have readable names instead of WordNet numbers.
    """
    if data.name == "folder":
        files = listing(data)
        splits, names = files.splits, files.class_names
    else:
        builder = open_builder(data)
        splits, names = builder.info.splits, _class_names(builder)
    train_split, eval_split = _choose_splits(data, splits)
    mean, std = _STATISTICS.get(data.name.split(":")[0], _IMAGENET)
    return DatasetInfo(
        name=data.name,
        num_classes=len(names),
        class_names=names,
        num_train=count(data, train_split),
        num_eval=count(data, eval_split),
        train_split=train_split,
        eval_split=eval_split,
        mean=mean,
        std=std,
    )


def published(data: ml_collections.ConfigDict) -> DatasetInfo | None:
    """ImageNet or CIFAR with their published sizes, without looking for the files; None for other sets and splits.

    For what needs no images: compiling for a machine elsewhere. Classes are numbers.
    """
    sizes = {
        "imagenet2012": (1000, 1_281_167, 50_000, "validation"),
        "cifar10": (10, 50_000, 10_000, "test"),
        "cifar100": (100, 50_000, 10_000, "test"),
    }
    if data.name not in sizes or data.train_split or data.eval_split:
        return None
    num_classes, num_train, num_eval, eval_split = sizes[data.name]
    mean, std = _STATISTICS.get(data.name, _IMAGENET)
    return DatasetInfo(
        name=data.name,
        num_classes=num_classes,
        class_names=tuple(map(str, range(num_classes))),
        num_train=num_train,
        num_eval=num_eval,
        train_split="train",
        eval_split=eval_split,
        mean=mean,
        std=std,
    )


def folder_path(data: ml_collections.ConfigDict) -> str:
    """Where the images of the data set "folder" are."""
    if not data.folder:
        raise ValueError("data.name is 'folder' but data.folder is not set: type --config.data.folder=/path/to/photos")
    return os.path.expanduser(data.folder)


def listing(data: ml_collections.ConfigDict) -> folder.Listing:
    """The images of the data set "folder", in the splits of `data.manifest` or `data.split_from` if there is one."""
    if data.eval_split == folder.UNSORTED:
        return folder.scan_unsorted(folder_path(data))
    return folder.scan(folder_path(data), data.manifest, data.split_from)


def complaint(data: ml_collections.ConfigDict) -> str | None:
    """One line about files that cannot be used, if there are any."""
    return listing(data).complaint(folder_path(data)) if data.name == "folder" else None


def count(data: ml_collections.ConfigDict, split: str) -> int:
    """Images in a split, or in a TFDS slice of one. Raises ValueError that says which splits there are."""
    if data.name == "folder":
        sizes = {name: len(files) for name, files in listing(data).splits.items()}
        number = sizes.get(split)
    else:
        splits = open_builder(data).info.splits
        sizes = {name: info.num_examples for name, info in splits.items()}
        try:
            number = splits[split].num_examples
        except (
            ValueError,
            KeyError,
            AssertionError,
        ):  # TFDS's own, for a misspelt name, a wrong slice, one out of range
            number = None
    if number:
        return number
    there = ", ".join(f"{name} ({size:,})" for name, size in sizes.items())
    slices = "" if data.name == "folder" else f", and slices such as '{next(iter(sizes))}[:10%]'"
    near = difflib.get_close_matches(split, sizes, 1)
    meant = f"; did you mean {near[0]!r}?" if near and number is None else ""
    what = "no split" if number is None else "nothing in split"
    raise ValueError(f"{data.name} has {what} {split!r}: there are {there}{slices}{meant}")


def open_builder(data: ml_collections.ConfigDict) -> tfds.core.DatasetBuilder:
    """The prepared TFDS data set that `config.data` names; `digits` is prepared here, nothing is ever downloaded."""
    import tensorflow_datasets as tfds

    import mnet_jax.data.host  # noqa: F401  (sets tensorflow up; TFDS imports it only when it reads)

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
    features = builder.info.features
    features = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    wanted = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    if not all(isinstance(features.get(name), kind) for name, kind in wanted.items()):
        there = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
        raise ValueError(f"{data.name} cannot be used: image (Image) and label (ClassLabel) expected, it has {there}")
    return builder


def data_dir(data: ml_collections.ConfigDict) -> str:
    """The TFDS directory of a run: `data.data_dir`, else what TFDS itself would use."""
    return os.path.expanduser(data.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def _choose_splits(data: ml_collections.ConfigDict, there: Iterable[str]) -> tuple[str, str]:
    """The splits to train and to evaluate on."""
    held_out = next((name for name in folder.HELD_OUT if name in there), None)
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


def _class_names(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
    from mnet_jax.data.imagenet_names import NAMES

    return tuple(NAMES.get(name, name) for name in builder.info.features["label"].names)


def _missing(name: str, directory: str, known: list[str]) -> str:
    """What to say about a data set that is not there."""
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
    near = difflib.get_close_matches(base, [*known, "digits", "folder"], 3)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return (
        f"unknown data set {name!r}: {meant}There are digits (offline), folder (with data.folder), any name from "
        f"https://www.tensorflow.org/datasets/catalog, and what is prepared in {directory}"
    )
