"""The list of classes beside a folder of masks: names in the order of their numbers, with or without colours."""

from __future__ import annotations

import dataclasses
import os
import re

from mnet_jax.data.boxes.found import Fault, Tree
from mnet_jax.data.pixel_map import VOID

FILES = ("classes.txt", "labelmap.txt", "label_colors.txt", "class_names.txt")  # ours; CVAT's, CamVid's, labelme's
_MOST = 1 << 20  # bytes
_COLOUR = re.compile(r"(?<![\w#])(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})(?!\w)|#([0-9a-fA-F]{6})\b")
_VOIDS = ("void", "ignore", "ignored", "unlabeled", "unlabelled", "__ignore__")  # no classes, by their names
# Pascal VOC, in the order of its indices; for its own layout without a list.
VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Classes:
    """What the values and the colours of masks mean."""

    names: tuple[str, ...]  # without those that are void
    numbers: tuple[int, ...]  # of each index from 0 on: its class, or VOID
    colours: dict[tuple[int, int, int], int]  # classes, or VOID, by red, green and blue; {}: masks have indices
    source: str  # the file

    def said(self) -> str:
        """Returns what is allowed, for messages: "classes.txt has 12 indices (0 .. 11), 255 is void"."""
        return f"{self.source} has {len(self.numbers)} indices (0 .. {len(self.numbers) - 1}), {VOID} is void"


def find(tree: Tree, *, voc: bool) -> Classes:
    """Returns the classes of a folder.

    Args:
      tree: of the folder; the list is a file of `FILES` at its top, or the only one below.
      voc: whether VOC's own classes are meant where there is no list.

    Raises:
      ValueError: if there is no list, or it is none.
    """
    there = sorted(
        (file for file in tree.files if os.path.basename(file) in FILES),
        key=lambda file: (file.count("/"), FILES.index(os.path.basename(file))),
    )
    if not there and voc:
        return of_lines(VOC, "Pascal VOC's list")
    if not there:
        raise ValueError(
            f"{tree.root} has masks and no classes.txt: write one, a class a line in the order of the masks' values "
            "from 0 on, and behind each name its colour where masks have colours (cat 255 0 0)"
        )
    try:
        text = tree.text(there[0], _MOST)
    except Fault as fault:
        raise ValueError(f"{tree.path(there[0])} {fault}; a class a line expected") from fault
    lines = [line.strip() for line in text.splitlines()]
    try:
        return of_lines([line for line in lines if line and not line.startswith(("#", "//"))], there[0])
    except ValueError as error:
        raise ValueError(f"{tree.path(there[0])}: {error}") from error


def of_lines(lines: list[str] | tuple[str, ...], source: str) -> Classes:
    """Returns the classes of lines such as "cat", "cat 255 0 0", "255 0 0 cat", "cat,#ff0000" or "cat:255,0,0::".

    Raises:
      ValueError: that says which line is wrong.
    """
    names, numbers, colours = [], [], {}
    with_colour = sum(bool(_COLOUR.search(line)) for line in lines)
    if with_colour not in (0, len(lines)):
        bare = next(line for line in lines if not _COLOUR.search(line))
        raise ValueError(f"{with_colour} of {len(lines)} lines have a colour, {bare!r} has none: give all or none one")
    for at, line in enumerate(lines, 1):
        found = _COLOUR.search(line)
        name = (line[: found.start()] + " " + line[found.end() :] if found else line).strip(" \t,;:")
        if not name or name in names:
            raise ValueError(f"line {at} ({line!r}) {'has no name' if not name else 'has the name of another line'}")
        void = name.lower() in _VOIDS
        number = VOID if void else len(names)
        names += [] if void else [name]
        numbers.append(number)
        if found:
            colour = tuple(bytes.fromhex(found[4])) if found[4] else tuple(int(value) for value in found.groups()[:3])
            if max(colour) > 255 or colour in colours:
                what = "a value above 255" if max(colour) > 255 else "the colour of another line"
                raise ValueError(f"line {at} ({line!r}) has {what}")
            colours[colour] = number
    if len(names) < 2 or len(numbers) > VOID:
        raise ValueError(f"{len(names)} classes: from 2 to {VOID} expected, a class a line")
    return Classes(tuple(names), tuple(numbers), colours, source)
