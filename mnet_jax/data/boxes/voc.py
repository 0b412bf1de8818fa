"""Pascal VOC XML, as labelImg, CVAT and Roboflow write it: one file an image, of the same name.

Read of it: size, and of each object its name, difficult, and bndbox (xmin, ymin, xmax, ymax) in pixels of the picture,
taken as they are: nothing is subtracted, as in TFDS. The class list is what the files have, sorted, or a classes.txt.
"""

from __future__ import annotations

import dataclasses
import os
from xml.parsers import expat

from mnet_jax.data.boxes.found import Fault, Found, Labelled, Object, Tree, number, stem
from mnet_jax.data.folder import LeftOut
from mnet_jax.data.layout import split_of_folder
from mnet_jax.data.source import HELD_OUT

_MOST, _DEEPEST = 16 << 20, 32  # bytes; elements inside each other
_LISTS = "ImageSets/Main/"
HINT = "bndbox must have xmin, ymin, xmax and ymax in pixels of the picture"


def read(tree: Tree) -> Found | None:
    """Returns the images of all VOC files of a folder; None if there are none.

    Splits are the lists ImageSets/Main/train.txt, val.txt, test.txt if there are such, else the folders.

    Raises:
      ValueError: if the lists contradict each other.
    """
    files = tree.with_suffix(".xml")
    left_out: list[LeftOut] = []
    parsed: dict[str, Element] = {}
    for file in files:
        try:
            root = parse(tree.read(file, _MOST))
            if root.name == "annotation":
                parsed[file] = root
        except Fault as fault:
            left_out.append(LeftOut(file, str(fault)))
    if not parsed:
        if left_out:
            raise ValueError(f"{tree.path(left_out[0].path)}: {left_out[0].why}; Pascal VOC XML expected")
        return None
    lists = _lists(tree)
    images: dict[str, Labelled] = {}
    for file, root in parsed.items():
        path = file
        try:
            folder = split_of_folder(file)
            path = tree.of_stem(file, root.text("filename"), folder)
            if path in images:
                raise Fault(f"{images[path].source} and {file} are both for this image")
            split = folder if lists is None else lists.get(stem(file), "")
            objects = tuple(_object(at, one) for at, one in enumerate(root.all("object"), 1))
            images[path] = Labelled(path, file, split, objects, _size(root))
        except Fault as fault:
            left_out.append(LeftOut(path, f"{file}: {fault}" if path != file else str(fault)))
    said = {one.path for one in left_out} | images.keys()
    why = "no XML file of this name; one without objects makes it a negative example"
    left_out += [LeftOut(file, why) for file in tree.beside(said)]
    names = _class_names(tree, images)
    return Found("Pascal VOC XML", HINT, True, names, tuple(images.values()), tuple(left_out))


def _class_names(tree: Tree, images: dict[str, Labelled]) -> tuple[str, ...]:
    used = {one.name for image in images.values() for one in image.objects}
    lists = [file for file in tree.files if os.path.basename(file) == "classes.txt"]
    if not lists:
        return tuple(sorted(used))
    try:
        lines = tree.text(lists[0], _MOST).splitlines()
    except Fault as fault:
        raise ValueError(f"{tree.path(lists[0])} {fault}; a class a line expected") from fault
    names = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if unknown := sorted(used - set(names)):
        raise ValueError(
            f"{tree.path(lists[0])} lacks classes that objects have: {', '.join(unknown[:5])}: add them, a class a line"
        )
    return names


def _lists(tree: Tree) -> dict[str, str] | None:
    """Returns the split of each image by its name; None where there are no lists."""
    found: dict[str, str] = {}
    there = [file for file in tree.files if _LISTS in f"{file}/" and file.endswith(".txt")]
    by_name = {stem(file): file for file in there}
    wanted = [name for name in ("train", *HELD_OUT) if name in by_name]
    if "trainval" in by_name and "train" not in by_name:
        wanted.append("trainval")
    for name in wanted:
        try:
            lines = tree.text(by_name[name], _MOST).splitlines()
        except Fault as fault:
            raise ValueError(f"{tree.path(by_name[name])} {fault}; the name of an image a line expected") from fault
        split = "train" if name == "trainval" else name
        for image in filter(None, map(str.strip, lines)):
            if found.setdefault(image, split) != split:
                raise ValueError(
                    f"{tree.path(by_name[name])}: {image} is in {found[image]}.txt too: an image has one split"
                )
    return found or None


def _size(root: Element) -> tuple[int, int] | None:
    """Returns height and width; None where the file has none, or zeros as some tools write."""
    size = root.first("size")
    height, width = (number(size.text(name)) if size else None for name in ("height", "width"))
    return (int(height), int(width)) if height and width else None


def _object(at: int, one: Element) -> Object:
    where, name = f"object {at}", one.text("name")
    if not name:
        raise Fault(f"{where} has no name")
    box = one.first("bndbox")
    if box is None:
        raise Fault(f"{where} has no bndbox")
    sides = ("xmin", "ymin", "xmax", "ymax")
    numbers = [number(box.text(side)) for side in sides]
    if None in numbers:
        given = ", ".join(f"{side}={box.text(side)[:20]!r}" for side in sides)
        raise Fault(f"{where}: {given}: four numbers expected")
    difficult = number(one.text("difficult") or "0")
    return Object(name, tuple(numbers), where, bool(difficult))


# --- XML, of which elements and their text are all that is read ---


@dataclasses.dataclass
class Element:
    """An element, its text and those inside it."""

    name: str
    pieces: list[str] = dataclasses.field(default_factory=list)
    inside: list[Element] = dataclasses.field(default_factory=list)

    def all(self, name: str) -> list[Element]:
        """Returns the elements of this name just inside."""
        return [one for one in self.inside if one.name == name]

    def first(self, name: str) -> Element | None:
        """Returns the first element of this name just inside."""
        return next((one for one in self.inside if one.name == name), None)

    def text(self, name: str) -> str:
        """Returns the text of the first element of this name; "" if there is none."""
        one = self.first(name)
        return "".join(one.pieces).strip() if one else ""


def parse(contents: bytes) -> Element:
    """Returns the outermost element of a document. Raises Fault if it is no XML, or has a document type.

    Without a document type there are no entities: none that grow, and none that name other files.
    """
    parser = expat.ParserCreate()
    top = Element("")
    stack = [top]

    def start(name: str, attributes: dict[str, str]) -> None:
        del attributes
        if len(stack) > _DEEPEST:
            raise Fault(f"has elements more than {_DEEPEST} deep")
        stack.append(Element(name))
        stack[-2].inside.append(stack[-1])

    def end(name: str) -> None:
        del name
        stack.pop()

    def refuse(*unused: object) -> None:
        raise Fault("has a document type (<!DOCTYPE ...>), which labels do not need and is not read")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda text: stack[-1].pieces.append(text)
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(contents, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise Fault(f"is no XML ({error})") from error
    return top.inside[0]
