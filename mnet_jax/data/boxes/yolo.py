"""YOLO text, as Ultralytics, Roboflow, Label Studio and labelImg write it: one .txt an image, an object a line.

A line is `class x y width height`, the centre and the sides as shares of the picture, or `class x1 y1 x2 y2 ...`, a
polygon, whose box is taken. The classes are those of data.yaml, classes.txt or a file .names. The label of
images/train/a.jpg is labels/train/a.txt; it may also lie beside the image. An image without one has no objects.
"""

from __future__ import annotations

import os
import re

import yaml

from mnet_jax.data.boxes.found import Fault, Found, Labelled, Object, Tree, number, stem
from mnet_jax.data.folder import LeftOut
from mnet_jax.data.layout import split_of_folder

_MOST, _MOST_YAML = 16 << 20, 1 << 20  # bytes
_KEYS = {"train": "train", "val": "val", "valid": "valid", "validation": "validation", "test": "test"}
HINT = "a line must be `class x y width height`: the centre and the sides as shares (0 .. 1) of the picture's"


def read(tree: Tree) -> Found | None:
    """Returns the images of a folder with YOLO labels; None if there are none.

    Splits are the folders that data.yaml names, else those called train, val, valid, validation or test.

    Raises:
      ValueError: if there are labels and no list of classes, or that cannot be read.
    """
    labels = {file: _label_of(tree, file) for file in tree.images}
    texts = [label for label in labels.values() if label]
    if not texts:
        return None
    names, places = _description(tree)
    left_out, images, used = [], [], set(texts)
    labelled = {file for file, label in labels.items() if label}
    named = [file for file in tree.images if any(file.startswith(f"{place}/") for place, _ in places)]
    wanted = labelled.union(tree.beside(labelled), named)  # and no folders of masks, for example
    for file, label in labels.items():
        if file not in wanted:
            left_out.append(LeftOut(file, "no image of its folder has a label file"))
            continue
        split = next((split for place, split in places if file.startswith(f"{place}/")), split_of_folder(file))
        try:
            objects = _objects(tree.text(label, _MOST), names) if label else ()
            images.append(Labelled(file, label, split, objects))
        except Fault as fault:
            left_out.append(LeftOut(file, f"{label}: {fault}"))
    for file in tree.with_suffix(".txt"):
        if "labels" in file.split("/")[:-1] and file not in used and os.path.basename(file) != "classes.txt":
            left_out.append(LeftOut(file, "no image of this name"))
    without = len(wanted) - len(labelled)
    note = f"{without} images have no label file and count as images without objects" if without else ""
    return Found("YOLO text", HINT, False, names, tuple(images), tuple(left_out), note)


def _label_of(tree: Tree, image: str) -> str:
    """Returns the file of an image's labels, "" if there is none."""
    parts = image.split("/")[:-1]
    places = ["/".join(parts)]
    for at in reversed(range(len(parts))):
        if parts[at] == "images":
            places.insert(0, "/".join([*parts[:at], "labels", *parts[at + 1 :]]))
            break
    for place in places:
        file = os.path.join(place, f"{stem(image)}.txt")
        if file in tree.known and os.path.basename(file) not in ("classes.txt", "labels.txt"):
            return file
    return ""


def _objects(text: str, names: tuple[str, ...]) -> tuple[Object, ...]:
    found = []
    for at, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"line {at}"
        numbers = [number(word) for word in words]
        if None in numbers:
            raise Fault(f"{where}: {line.strip()[:60]!r} is not all numbers")
        kind, *rest = numbers
        if kind != int(kind) or not 0 <= kind < len(names):
            raise Fault(f"{where}: class {words[0]}: 0 .. {len(names) - 1} expected")
        if len(rest) == 4:
            x, y, width, height = rest
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        elif len(rest) >= 6 and len(rest) % 2 == 0:
            box = (min(rest[::2]), min(rest[1::2]), max(rest[::2]), max(rest[1::2]))
        else:
            raise Fault(f"{where} has {len(words)} numbers: 5 expected, or the corners of a polygon")
        found.append(Object(names[int(kind)], box, where))
    return tuple(found)


# --- The description of the set ---


def _description(tree: Tree) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Returns the names of the classes, and (folder, split) of those that a data.yaml names."""
    described = {file: value for file in tree.with_suffix(".yaml", ".yml") if (value := _yaml(tree, file))}
    if len(described) > 1:
        first, second, *_ = described
        raise ValueError(f"{tree.root}: {first} and {second} both have names of classes: keep one")
    for file, content in described.items():
        return _names_of_yaml(tree, file, content), _places(tree, content)
    lists = [file for file in tree.files if os.path.basename(file) in ("classes.txt", "labels.txt", "obj.names")]
    lists = lists or tree.with_suffix(".names")
    if not lists:
        raise ValueError(
            f"{tree.root} has YOLO labels and no names of classes: write them into {tree.path('classes.txt')}, a class "
            "a line, or into a data.yaml as Ultralytics has it"
        )
    try:
        texts = {file: tree.text(file, _MOST_YAML).splitlines() for file in lists}
    except Fault as fault:
        raise ValueError(f"{tree.path(lists[0])} {fault}; a class a line expected") from fault
    found = {tuple(line.strip() for line in lines if line.strip()): file for file, lines in texts.items()}
    if len(found) > 1:
        first, second, *_ = found.values()
        raise ValueError(f"{tree.root}: {first} and {second} have other classes: keep one")
    (names, file), *_ = found.items()
    return _checked(tree, file, names), []


def _yaml(tree: Tree, file: str) -> dict | None:
    """Returns a YAML file that has names of classes; None if it is another one."""
    try:
        text = tree.text(file, _MOST_YAML)
        if not re.search(r"^names\s*:", text, re.MULTILINE):
            return None
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise Fault("has aliases (*name), which can grow without end and are not read")
        content = yaml.safe_load(text)
    except (Fault, yaml.YAMLError, RecursionError, ValueError) as error:
        why = str(error) if isinstance(error, Fault) else f"is no YAML ({str(error).splitlines()[0]})"
        raise ValueError(f"{tree.path(file)} {why}") from error
    return content if isinstance(content, dict) else None


def _names_of_yaml(tree: Tree, file: str, content: dict) -> tuple[str, ...]:
    names = content["names"]
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise ValueError(f"{tree.path(file)}: names must have the numbers 0 .. {len(names) - 1}, each once")
        names = [names[at] for at in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{tree.path(file)}: names must be a list of the classes, or {{0: first, 1: second}}")
    count = content.get("nc", len(names))
    if count != len(names):
        raise ValueError(f"{tree.path(file)}: nc is {count} and there are {len(names)} names: they must agree")
    return _checked(tree, file, tuple(str(name).strip() for name in names))


def _checked(tree: Tree, file: str, names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(names) or not names:
        what = f"the class {twice[0]!r} is there twice" if twice else "a class without a name"
        raise ValueError(f"{tree.path(file)}: {what}: give each a name of its own")
    return names


def _places(tree: Tree, content: dict) -> list[tuple[str, str]]:
    """Returns (folder, split), the longest path first; of paths that lead elsewhere as much as is there, from the end.

    Roboflow writes ../train/images for what is train/images beside the file.
    """
    folders = {os.path.dirname(file) for file in tree.images}
    folders |= {"/".join(folder.split("/")[:at]) for folder in folders for at in range(1, folder.count("/") + 1)}
    found = []
    for key, split in _KEYS.items():
        values = content.get(key) or []
        for value in values if isinstance(values, list) else [values]:
            parts = [part for part in str(value).replace("\\", "/").split("/") if part not in ("", ".", "..")]
            ends = ["/".join(parts[at:]) for at in range(len(parts))]
            if place := next((end for end in ends if end in folders), None):
                found.append((place, split))
    return sorted(found, key=lambda pair: -len(pair[0]))
