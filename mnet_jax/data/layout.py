"""How a folder is laid out: which of its files and folders count, and which of their names say a split."""

from __future__ import annotations

import os
import re

from mnet_jax.data.source import HELD_OUT
from mnet_jax.data.tensorflow_setup import tf

_SPLITS = ("train", *HELD_OUT)
_SPLIT = re.compile(rf"(?:^|[^a-z])({'|'.join(sorted(_SPLITS, key=len, reverse=True))})(?:\d+)?(?=[^a-z0-9]|$)")


def files_below(root: str, top: str) -> list[str]:
    """Returns the files in `top` and below that are not hidden, nor in a folder that is (below `root`)."""
    return sorted(
        join(directory, file)
        for directory, _, files in tf.io.gfile.walk(top)
        for file in files
        if not file.startswith(".") and "/." not in directory[len(root) :]
    )


def folders(path: str) -> list[str]:
    """Returns the names of the folders in a folder that are not hidden, in order."""
    return [name for name, is_folder in listed(path) if is_folder]


def loose_files(path: str) -> list[str]:
    """Returns the names of the files in a folder that are not hidden, in order."""
    return [name for name, is_folder in listed(path) if not is_folder]


def listed(path: str) -> list[tuple[str, bool]]:
    """Returns (name, whether it is a folder) of what is not hidden, in order."""
    names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(path))  # a bucket's folders end with a slash
    return [(name, tf.io.gfile.isdir(join(path, name))) for name in names if name and not name.startswith(".")]


def join(*parts: str) -> str:
    """Returns the parts as one path."""
    return os.path.join(*parts)  # not pathlib, which makes one slash of the two in gs://


# --- Splits ---


def split_of(file: str) -> str:
    """Returns the split that a path names, the last one; "" if none: "valid/a.json", "instances_train2017.json"."""
    found = _SPLIT.findall(file.lower())
    return found[-1] if found else ""


def split_of_folder(file: str) -> str:
    """Returns the split that a folder of the path is called after, whatever the file itself is called; "" if none."""
    found = [part for part in map(split_of, os.path.dirname(file).split("/")) if part]
    return found[-1] if found else ""
