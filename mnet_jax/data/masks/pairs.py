"""Masks in files of their own, each beside its image: where they are, and what their pixels say.

A mask is the PNG (or BMP) of its image's name in a folder called masks, labels, annotations or SegmentationClass beside
that of the images, or in the same folder with "_mask" or "_label" behind the name. Its values are indices of the list
of classes, whatever colours its palette has for them; or colours, where the list has them.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import os
import re

import numpy as np

from mnet_jax.data.boxes.found import Fault, Tree, stem
from mnet_jax.data.folder import LeftOut
from mnet_jax.data.layout import split_of_folder
from mnet_jax.data.masks.classes import Classes
from mnet_jax.data.pixel_map import VOID
from mnet_jax.data.source import HELD_OUT

_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annots", "segmentationclass", "segmentation", "gt")
_BESIDE = re.compile(r"[_-](?:mask|masks|label|labels|seg)$")
_LISTS = "ImageSets/Segmentation/"
_MOST = 256 << 20  # bytes of a mask


@dataclasses.dataclass(frozen=True)
class Pair:
    """One image with the file of its mask; paths are below the root."""

    image: str
    mask: str
    split: str  # "" where its place says none


@dataclasses.dataclass(frozen=True)
class Pairs:
    """What was found in a folder."""

    pairs: tuple[Pair, ...]
    left_out: tuple[LeftOut, ...]
    voc: bool  # whether the folder has VOC's layout


def find(tree: Tree) -> Pairs | None:
    """Returns the images of a folder with their masks; None if there is no mask.

    Splits are the lists ImageSets/Segmentation/train.txt, val.txt, test.txt if there are such, else the folders.

    Raises:
      ValueError: if an image is in two lists.
    """
    masks = [file for file in tree.images if _is_mask(file)]
    if not masks:
        return None
    images = [file for file in tree.images if file not in set(masks) and not _elsewhere(file)]
    by_key = collections.defaultdict(list)
    for file in masks:
        by_key[_key(file)].append(file)
    lists, left_out, pairs, used = _lists(tree), [], [], set()
    for image in images:
        found = by_key.get(_key(image), [])
        used |= set(found)
        if len(found) == 1:
            split = split_of_folder(image) if lists is None else lists.get(stem(image), "")
            pairs.append(Pair(image, found[0], split))
        elif found:
            left_out.append(LeftOut(image, f"its mask may be {found[0]} or {found[1]}"))
        else:
            left_out.append(LeftOut(image, f"no mask of this name ({stem(image)}.png)"))
    left_out += [LeftOut(file, "a mask without an image of its name") for file in masks if file not in used]
    return Pairs(tuple(pairs), tuple(left_out), any("SegmentationClass/" in file for file in masks))


def _is_mask(file: str) -> bool:
    folders = os.path.dirname(file).lower().split("/")
    beside = file.lower().endswith((".png", ".bmp")) and _BESIDE.search(stem(file).lower())
    return any(part in _FOLDERS for part in folders) or bool(beside)


def _elsewhere(file: str) -> bool:
    """Returns whether an image is for another purpose: VOC's and labelme's pictures beside the masks."""
    return any(part.startswith("segmentation") for part in os.path.dirname(file).lower().split("/"))


def _key(file: str) -> tuple[str, str]:
    """Returns what an image and its mask have in common: the split that a folder names, and the name."""
    return split_of_folder(file), _BESIDE.sub("", stem(file)) if _is_mask(file) else stem(file)


def _lists(tree: Tree) -> dict[str, str] | None:
    """Returns the split of each image by its name; None where there are no lists."""
    found: dict[str, str] = {}
    there = {stem(file): file for file in tree.files if _LISTS in file and file.endswith(".txt")}
    wanted = [name for name in ("train", *HELD_OUT) if name in there]
    if "trainval" in there and "train" not in there:
        wanted.append("trainval")
    for name in wanted:
        try:
            lines = tree.text(there[name], 64 << 20).splitlines()
        except Fault as fault:
            raise ValueError(f"{tree.path(there[name])} {fault}; the name of an image a line expected") from fault
        split = "train" if name == "trainval" else name
        for image in filter(None, map(str.strip, lines)):
            if found.setdefault(image, split) != split:
                raise ValueError(
                    f"{tree.path(there[name])}: {image} is in {found[image]}.txt too: an image has one split"
                )
    return found or None


def read(tree: Tree, file: str, classes: Classes) -> np.ndarray:
    """Returns the classes of a mask, uint8 [h, w], VOID where it says none.

    Raises:
      Fault: that says what is wrong with the file.
    """
    from PIL import Image

    contents = tree.read(file, _MOST)
    if not contents.startswith((b"\x89PNG", b"BM")):
        kind = "a JPEG, whose values are not exact" if contents.startswith(b"\xff\xd8") else "no PNG"
        raise Fault(f"{file} is {kind}: a PNG expected")
    try:
        with Image.open(io.BytesIO(contents)) as image:
            mode, has_colours = image.mode, image.mode in ("RGB", "RGBA", "P")
            coloured = np.asarray(image.convert("RGB")) if has_colours and (classes.colours or mode != "P") else None
            values = None if mode in ("RGB", "RGBA") else np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Fault(f"{file} is damaged") from error
    if values is not None and values.ndim == 3:  # grey with transparency
        values = values[..., 0]
    if classes.colours:
        if coloured is None:
            grey = values.astype(np.int64) * (255 if values.dtype == bool else 1)
            coloured = np.repeat(grey[..., None], 3, -1) if grey.max(initial=0) < 256 else None
        if coloured is not None:
            found, unknown = _by_colour(coloured, classes)
            if not unknown.any():
                return found
            if values is None:
                row, column = np.argwhere(unknown)[0]
                colour = tuple(coloured[row, column].tolist())
                raise Fault(
                    f"{file}: the colour {colour} in row {row}, column {column} is none of the "
                    f"{len(classes.colours)} of {classes.source}"
                )
    if values is None:
        raise Fault(
            f"{file} has colours (RGB) where an index is due: save indices, or give each class its colour in "
            f"{classes.source} (cat 255 0 0)"
        )
    values = values.astype(np.int64)
    unknown = (values != VOID) & ((values >= len(classes.numbers)) | (values < 0))
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        raise Fault(f"{file}: the value {values[row, column]} in row {row}, column {column}; {classes.said()}")
    table = np.full(256, VOID, np.uint8)
    table[: len(classes.numbers)] = classes.numbers
    return table[values]


def _by_colour(pixels: np.ndarray, classes: Classes) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes of colours [h, w, 3], uint8 [h, w], and which colours are unknown, bool [h, w]."""
    codes = pixels.astype(np.int64) @ np.array([65536, 256, 1])
    known = sorted((red * 65536 + green * 256 + blue, number) for (red, green, blue), number in classes.colours.items())
    keys, numbers = (np.array(column) for column in zip(*known, strict=True))
    places = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
    return numbers[places].astype(np.uint8), keys[places] != codes
