"""How a folder is laid out: which of its files and folders count, and which of their names say a split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np

from mnet_jax.data.source import HELD_OUT
from mnet_jax.data.tensorflow_setup import tf

# Words that say a split, with the split; the others of HELD_OUT are splits of their own.
_WORDS = {"train": "train", "training": "train", **{name: name for name in HELD_OUT}, "testing": "test"}
_SPLIT = re.compile(rf"(?:^|[^a-z])({'|'.join(sorted(_WORDS, key=len, reverse=True))})(?:\d+)?(?=[^a-z0-9]|$)")


def files_below(root: str, top: str) -> list[str]:
    """Returns the files in `top` and below that are not hidden, nor in a folder that is (below `root`), in order.

    Links are followed, but not to a folder that they lie in: that would go on for ever.
    """
    if "://" not in top:
        return [] if "/." in top[len(root) :] else sorted(_local_files(top, (os.path.realpath(top),)))
    return sorted(
        join(directory, file)
        for directory, _, files in tf.io.gfile.walk(top)
        for file in files
        if not file.startswith(".") and "/." not in directory[len(root) :]
    )


def _local_files(folder: str, above: tuple[str, ...]) -> Iterator[str]:
    """Yields the files in a folder and below; `above` has the places of it and of the folders on the way to it."""
    for entry in _entries(folder):
        if not entry.is_dir():
            yield entry.path
        elif not entry.is_symlink():
            yield from _local_files(entry.path, (*above, join(above[-1], entry.name)))
        elif not _leads_back(place := os.path.realpath(entry.path), above):
            yield from _local_files(entry.path, (*above, place))


def _entries(folder: str) -> list[os.DirEntry]:
    """Returns what is in a local folder and not hidden. A name that is not UTF-8 is as Python has it (PEP 383)."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(f"cannot read the folder {folder}: {error.strerror}") from error


def _leads_back(place: str, above: tuple[str, ...]) -> bool:
    """Returns whether a folder is one of `above`, or has one of them in it."""
    return any(f"{one}/".startswith(f"{place.rstrip('/')}/") for one in above)


def folders(path: str) -> list[str]:
    """Returns the names of the folders in a folder that are not hidden, in order."""
    return [name for name, is_folder in listed(path) if is_folder]


def loose_files(path: str) -> list[str]:
    """Returns the names of the files in a folder that are not hidden, in order."""
    return [name for name, is_folder in listed(path) if not is_folder]


def listed(path: str) -> list[tuple[str, bool]]:
    """Returns (name, whether it is a folder) of what is not hidden, in order."""
    if "://" in path:
        found = sorted(name.rstrip("/") for name in names(path))
        return [(name, tf.io.gfile.isdir(join(path, name))) for name in found if name and not name.startswith(".")]
    here = (os.path.realpath(path),)
    inside = [(entry.name, entry.is_dir(), entry.is_symlink()) for entry in _entries(path)]
    return sorted(
        (name, is_folder)
        for name, is_folder, is_link in inside
        if not (is_folder and is_link and _leads_back(os.path.realpath(join(path, name)), here))
    )


def join(*parts: str) -> str:
    """Returns the parts as one path."""
    return os.path.join(*parts)  # not pathlib, which makes one slash of the two in gs://


def names(path: str) -> list[str]:
    """Returns all names in a folder, whatever bytes they are made of; those of a bucket's folders end with a slash."""
    return tf.io.gfile.listdir(path) if "://" in path else os.listdir(path)


def opened(path: str) -> BinaryIO:
    """Returns a file, local or gs://, open to be read; tensorflow takes no local name that is not UTF-8."""
    return tf.io.gfile.GFile(path, "rb") if "://" in path else open(path, "rb")


def as_tensor(paths: Iterable[str]) -> tf.Tensor:
    """Returns paths as tensorflow opens them, string [N], whatever bytes their names are made of."""
    return tf.constant([os.fsencode(path) for path in paths], tf.string)


def read_if_there(path: tf.Tensor) -> tf.Tensor:
    """Returns the contents of a file (path: scalar string), or none of one that cannot be read."""

    def read(path: bytes | np.ndarray) -> bytes:
        try:
            with opened(os.fsdecode(path)) as file:
                return file.read()
        except (OSError, tf.errors.OpError):
            return b""

    return tf.ensure_shape(tf.numpy_function(read, [path], tf.string, stateful=False), [])


# --- Splits ---


def split_of(file: str) -> str:
    """Returns the split that a path names, the last one; "" if none: "valid/a.json", "Training/a", "seg_train2017"."""
    found = _SPLIT.findall(file.lower())
    return _WORDS[found[-1]] if found else ""


def split_of_folder(file: str) -> str:
    """Returns the split that a folder of the path is called after, whatever the file itself is called; "" if none."""
    found = [part for part in map(split_of, os.path.dirname(file).split("/")) if part]
    return found[-1] if found else ""


def split_folders(root: str, *, for_training: bool = True) -> dict[str, str]:
    """Returns the folder of each split in a folder, by split; {} where what lies in it are classes.

    A folder is a split's where its name says one ("Train", "testing", "seg_val") and there are folders in that of
    "train". Where its name says more than the split ("train_station"), another split has to be there too.

    Args:
      root: the folder.
      for_training: whether there has to be a split "train"; else any will do.

    Raises:
      ValueError: if two folders are for one split.
    """
    said = [(name, split) for name in folders(root) if (split := split_of(name))]
    full = [(name, split) for name, split in said if folders(join(root, name))]
    needed = [one for one in full if one[1] == "train" or not for_training]
    plain = any(name.lower() in _WORDS for name, _ in needed)
    if not needed or (not plain and len({split for _, split in full}) < 2):
        return {}
    by_split: dict[str, list[str]] = {}
    for name, split in said:
        if (name, split) in full or all(split != other for _, other in full):
            by_split.setdefault(split, []).append(name)
    return {
        split: _unwrapped(join(root, _chosen(root, split, by_split[split])), split)
        for split in ("train", *HELD_OUT)
        if split in by_split
    }


def _chosen(root: str, split: str, names: list[str]) -> str:
    """Returns the folder of a split: the one of just this name, else of a word for it, else the only one."""
    words = [name for name in names if name == split] or [name for name in names if name.lower() in _WORDS] or names
    if len(words) > 1:
        raise ValueError(f"{root} has {words[0]!r} and {words[1]!r}, both for {split!r}: one of them expected")
    return words[0]


def _unwrapped(path: str, split: str) -> str:
    """Returns the folder that a split's own name has once more inside it, as archives do: seg_train/seg_train."""
    inside = listed(path)
    if len(inside) == 1 and inside[0][1] and split_of(inside[0][0]) == split:
        return _unwrapped(join(path, inside[0][0]), split)
    return path
