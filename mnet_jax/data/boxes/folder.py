"""A folder of images with boxes as a data set: COCO JSON, Pascal VOC XML or YOLO text, recognised by itself.

Images lie in their owner's splits, or are split here by a hash of their content. What is wrong with a label is told by
file. There are two rules:

* Of an object that is there and of which nobody can say what or where it is (an unknown class, no numbers, corners in
  the wrong order), the whole image is left out: training would teach that nothing is there.
* What is no object (a box without height or width, one outside the picture, the same one again) is dropped, and the
  image stays. A box that reaches beyond its picture is cut off there.

Of an image with EXIF orientation boxes are those of the upright picture.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Container, Iterator, Mapping

import ml_collections
import numpy as np

from mnet_jax.data import formats, layout, manifest, records
from mnet_jax.data.annotations import Annotation, Boxes
from mnet_jax.data.boxes import coco, voc, yolo
from mnet_jax.data.boxes.found import Found, Labelled, Object, Tree
from mnet_jax.data.folder import LeftOut, folder_path
from mnet_jax.data.listed import AnnotatedListing, Arranger, Dropped, ListedFile, ListedFolder
from mnet_jax.data.tensorflow_setup import tf

READERS = (coco, voc, yolo)
_BEYOND = 1.0  # pixels by which a box may reach beyond its picture without a word: tools round


@dataclasses.dataclass(frozen=True)
class BoxFile(ListedFile):
    """One image with its objects; boxes are y1, x1, y2, x2 as shares of the picture, inside it."""

    boxes: tuple[tuple[float, float, float, float], ...] = ()
    ignored: tuple[bool, ...] = ()
    areas: tuple[float, ...] = ()  # in pixels of the picture


@dataclasses.dataclass(frozen=True)
class BoxListing(AnnotatedListing):
    """The images of a folder by split, each split in the order of its paths."""

    def class_of(self, file: BoxFile) -> str:
        """Returns what a manifest says of an image: how many objects of each class it has, such as "cat 2, dog 1"."""
        return _summary([self.class_names[number] for number in file.classes])


class BoxFolder(ListedFolder):
    """The images of `data.folder` with boxes."""

    def __init__(self, data: ml_collections.ConfigDict, annotations: Mapping[str, Annotation]):
        other = [f"{name} ({one.kind})" for name, one in annotations.items() if not isinstance(one, Boxes)]
        if other:
            raise ValueError(
                f"data.name='folder' has boxes here, and not {', '.join(other)} beside them: name a TFDS set that has "
                "all in data.name"
            )
        root, self._names = folder_path(data), tuple(annotations)
        super().__init__(root, scan(root, data.manifest, data.split_from))

    def open_split(self, split: str) -> records.Table:
        """Returns the paths of a split's images, and their objects."""
        files = self.files(split)
        lengths = [len(file.classes) for file in files]

        def ragged(kind: type, values: Iterator, width: int = 1) -> tf.RaggedTensor:
            flat = np.array([value for row in values for value in row], kind).reshape(-1)
            return tf.RaggedTensor.from_row_lengths(flat, np.array(lengths, np.int64) * width)

        parts = {
            "": ragged(np.float32, (file.boxes for file in files), 4),
            "class": ragged(np.int64, (file.classes for file in files)),
            "ignore": ragged(np.int64, (file.ignored for file in files)),
            "area": ragged(np.float32, (file.areas for file in files)),
        }
        paths = layout.as_tensor(file.path for file in files)
        return records.Table(paths, dict.fromkeys(self._names, parts), are_paths=True)


def scan(root: str, manifest_path: str | None = None, split_from: str | None = None) -> BoxListing:
    """Returns the images with boxes of a folder (local or gs://) by split.

    Args:
      root: the folder.
      manifest_path: CSV of `data.manifest`: these images and no others, in the splits that it names.
      split_from: CSV of `data.split_from`: an image that it names keeps its split.

    Raises:
      ValueError: if there are no labels, those of two formats, or none that make sense; if there is no split for
        training; if an image of the manifest is gone or has other objects.
    """
    found = read(Tree(root))
    files, splits, left_out, beyond = _measured(root, found, manifest.known(manifest_path, split_from))
    contents = {path: _summary([found.class_names[number] for number in file.classes]) for path, file in files.items()}
    arranged = Arranger(root, found.kind, "other objects")(files, splits, contents, manifest_path, split_from)
    notes = [found.note] if found.note else []
    notes += [f"{beyond} boxes reach beyond their pictures and are cut off there"] if beyond else []
    return BoxListing(
        found.class_names,
        arranged.splits,
        tuple(sorted((*left_out, *arranged.left_out), key=lambda one: one.path)),
        arranged.newcomers,
        "; ".join(notes),
    )


def read(tree: Tree) -> Found:
    """Returns what the labels of a folder say, in whichever format they are.

    Raises:
      ValueError: if there are none, or those of two formats.
    """
    found = [one for reader in READERS if (one := reader.read(tree)) is not None]
    if len(found) > 1:
        kinds = " and ".join(f"{one.kind} ({next((i.source for i in one.images if i.source), '')})" for one in found)
        raise ValueError(f"{tree.root} has labels as {kinds}: keep one of them, or give the folder of one")
    if not found:
        raise ValueError(
            f"{tree.root} has {len(tree.images)} images and no boxes that can be read: COCO JSON (images, annotations, "
            "categories), Pascal VOC XML (an .xml for each image) or YOLO text (a .txt for each image, data.yaml or "
            "classes.txt) expected; docs/detection.md shows the layouts"
        )
    return found[0]


# --- From labels to objects ---


def _measured(
    root: str, found: Found, known: Container[str]
) -> tuple[dict[str, BoxFile], dict[str, str], list[LeftOut], int]:
    """Returns the usable images and their splits by path, what is left out, and how many boxes were cut off.

    Images of the digests `known` were found to be good before.

    Raises:
      ValueError: if the boxes are no such as the format has.
    """
    verdicts = formats.judge([os.path.join(root, image.path) for image in found.images], known)
    files, splits, beyond, boxes = {}, {}, 0, 0
    left_out = [LeftOut(os.path.join(root, one.path), one.why) for one in found.left_out]
    numbers = {name: number for number, name in enumerate(found.class_names)}
    largest = 0.0
    for image, verdict in zip(found.images, verdicts, strict=True):
        path = os.path.join(root, image.path)
        why = verdict.fault or _other_size(image, verdict.size)
        kept, dropped = [], []
        for one in () if why else image.objects:
            sides = verdict.size[::-1] * 2  # x, y, x, y
            box = one.box if found.in_pixels else tuple(v * side for v, side in zip(one.box, sides, strict=True))
            largest, boxes = max(largest, *one.box), boxes + 1
            if box[0] > box[2] or box[1] > box[3]:
                why = f"{_place(image, one)}: the sides of its box are negative: {_text(one.box)}"
                break
            cut = tuple(min(max(v, 0.0), float(side)) for v, side in zip(box, sides, strict=True))
            beyond += max(abs(v - w) for v, w in zip(box, cut, strict=True)) > _BEYOND
            if fault := _no_object(one, box, cut, kept):
                where = f"{_place(image, one)}: {fault}: {_text(one.box)}"
                dropped.append(Dropped(path, where))
            else:
                kept.append((one, cut))
        if why:
            left_out.append(LeftOut(path, why))
        elif path in files:
            left_out.append(LeftOut(path, "is listed twice: its first entry is used"))
        else:
            left_out += dropped
            files[path], splits[path] = _file(path, verdict, kept, numbers), image.split
    if not any(file.classes for file in files.values()):
        why = f", such as {os.path.relpath(left_out[0].path, root)} ({left_out[0].why})" if left_out else ""
        raise ValueError(f"{root}: no image has an object, of {len(found.images)} in {found.kind}{why}")
    wrong = "all are within one pixel" if found.in_pixels and largest <= 1 else ""
    if beyond > max(5, boxes / 2):
        wrong = f"{beyond} of {boxes} reach beyond their pictures"
    if wrong:
        example = next(image for image in found.images if image.objects)
        raise ValueError(
            f"{root}: the boxes make no sense: {wrong}, such as {example.source}, {example.objects[0].where}. In "
            f"{found.kind} {found.hint}"
        )
    return files, splits, left_out, beyond


def _other_size(image: Labelled, size: tuple[int, int]) -> str | None:
    """Returns why the size that a label says makes its image unusable, if it does."""
    if image.size in (None, size):
        return None
    said, there = (f"{width} x {height}" for height, width in (image.size, size))
    return f"{image.source} is about {said} pixels, the picture has {there}: was it turned or resized after labelling?"


def _no_object(one: Object, box: tuple, cut: tuple, kept: list) -> str | None:
    if box[0] == box[2] or box[1] == box[3]:
        return "a box without height or width"
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        return "a box outside the picture"
    if any(other.name == one.name and other.box == one.box for other, _ in kept):
        return "the same class and box again"
    return None


def _place(image: Labelled, one: Object) -> str:
    return f"{image.source}, {one.where}"


def _text(box: tuple) -> str:
    return f"({', '.join(f'{v:g}' for v in box)})"


def _file(path: str, verdict: formats.Verdict, kept: list, numbers: dict[str, int]) -> BoxFile:
    height, width = verdict.size
    return BoxFile(
        path,
        0,
        verdict.digest,
        boxes=tuple((y1 / height, x1 / width, y2 / height, x2 / width) for _, (x1, y1, x2, y2) in kept),
        classes=tuple(numbers[one.name] for one, _ in kept),
        ignored=tuple(one.ignore for one, _ in kept),
        areas=tuple(one.area or (x2 - x1) * (y2 - y1) for one, (x1, y1, x2, y2) in kept),
    )


def _summary(names: list[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(collections.Counter(names).items()))
