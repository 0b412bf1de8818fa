"""What a reader of labels finds in a folder, and the files of that folder: the same for every format.

A reader never runs anything that a file holds, and reads no file that is larger than its bound.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable
from typing import Any

from mnet_jax.data.folder import LeftOut
from mnet_jax.data.layout import files_below, opened, split_of
from mnet_jax.data.tensorflow_setup import tf

# By these the files of a folder are taken for images; whether they are is told by their bytes.
IMAGES = (".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".heic", ".heif", ".avif", ".tif", ".tiff")


class Fault(Exception):
    """Why an image cannot be used: nobody can say what is on it."""


@dataclasses.dataclass(frozen=True)
class Object:
    """One object as its label says it; the box may still lie anywhere."""

    name: str  # of its class
    box: tuple[float, float, float, float]  # x1, y1, x2, y2
    where: str  # in the file of its label: "annotation 17", "object 3", "line 4"
    ignore: bool = False  # COCO's crowds, VOC's difficult ones
    area: float | None = None  # in pixels of the picture; None: that of the box
    outline: Any = None  # COCO's segmentation as it stands in the file: polygons or runs


@dataclasses.dataclass(frozen=True)
class Labelled:
    """One image with its objects."""

    path: str  # of the image, below the root
    source: str  # the file of its labels, below the root; "" where it has none
    split: str  # "" where its place says none
    objects: tuple[Object, ...]
    size: tuple[int, int] | None = None  # height and width as the label says them


@dataclasses.dataclass(frozen=True)
class Found:
    """All that a reader found."""

    kind: str  # of the format
    hint: str  # what its boxes must be, for who has written something else
    in_pixels: bool  # whether boxes are in pixels of the picture; else in shares of its sides
    class_names: tuple[str, ...]
    images: tuple[Labelled, ...]
    left_out: tuple[LeftOut, ...]  # paths below the root
    note: str = ""  # one line that its owner should know


class Tree:
    """The files of a folder, local or gs://, that are not hidden; paths are below `root`, with slashes."""

    def __init__(self, root: str):
        if not tf.io.gfile.isdir(root):
            raise ValueError(f"no such folder: {root} (data.folder)")
        self.root = root
        self.files = tuple(path[len(root) :].lstrip("/") for path in files_below(root, root))
        self.images = tuple(file for file in self.files if file.lower().endswith(IMAGES))

    @functools.cached_property
    def known(self) -> frozenset[str]:
        """All files, for looking one up."""
        return frozenset(self.files)

    @functools.cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _grouped(self.files, os.path.basename)

    @functools.cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped(self.images, stem)

    def path(self, file: str) -> str:
        """Returns where a file is."""
        return os.path.join(self.root, file)

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Returns the files whose names end so, in order."""
        return [file for file in self.files if file.lower().endswith(suffixes)]

    def read(self, file: str, most: int) -> bytes:
        """Returns the bytes of a file. Raises Fault if it has more than `most`, or cannot be read."""
        try:
            with opened(self.path(file)) as label:
                contents = label.read(most + 1)
        except (OSError, tf.errors.OpError) as error:
            raise Fault(f"cannot be read: {type(error).__name__}") from error
        if len(contents) > most:
            raise Fault(f"is too large: at most {most >> 20:,} MiB are read")
        return contents

    def text(self, file: str, most: int) -> str:
        """Returns a file as text. Raises Fault if it is none."""
        try:
            return self.read(file, most).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Fault("is no text in UTF-8") from error

    def beside(self, used: Iterable[str]) -> list[str]:
        """Returns the other images in the folders of the used files; not those of folders of masks, for example."""
        used = set(used)
        folders = {os.path.dirname(file) for file in used}
        return [file for file in self.images if file not in used and os.path.dirname(file) in folders]

    def named(self, name: str, beside: str, split: str) -> str:
        """Returns the file that a label calls `name`. Raises Fault if there is none, or one cannot tell which.

        Args:
          name: a path, of which the end must be right; nothing outside the folder is ever looked at.
          beside: the file of the label; the same folder comes first.
          split: of the label; of several files of one name that one which lies in such a folder.
        """
        name = name.replace("\\", "/")
        near = os.path.normpath(os.path.join(os.path.dirname(beside), name))
        if near in self.known:
            return near
        there = self._by_name.get(os.path.basename(name), [])
        return _one_of(there, name, split)

    def of_stem(self, label: str, name: str, split: str) -> str:
        """Returns the image whose name is that of the file `label`, else the one called `name`. Raises Fault."""
        there = self._by_stem.get(stem(label), [])
        near = [file for file in there if os.path.dirname(file) == os.path.dirname(label)] or there
        named = [file for file in near if os.path.basename(file) == os.path.basename(name.replace("\\", "/"))]
        if near:
            return _one_of(named or near, stem(label), split)
        return self.named(name or stem(label), label, split)


def _grouped(files: tuple[str, ...], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups = collections.defaultdict(list)
    for file in files:
        groups[key(file)].append(file)
    return dict(groups)


def _one_of(files: list[str], name: str, split: str) -> str:
    if not files:
        raise Fault(f"no such image: {name}")
    whole = [file for file in files if f"/{file}".endswith(f"/{name}")] or files
    same = [file for file in whole if split_of(file) == split] or whole
    if len(same) > 1:
        raise Fault(f"{name} may be {same[0]} or {same[1]}")
    return same[0]


def stem(file: str) -> str:
    """Returns the name of a file without its folder and its last suffix."""
    return os.path.splitext(os.path.basename(file))[0]


def number(value: object) -> float | None:
    """Returns a number of a file, or of its text, as a finite float; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
