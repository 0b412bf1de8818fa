"""A folder of images with masks as a data set: files of masks beside images, or COCO JSON with polygons and runs.

Images lie in their owner's splits, or are split here by a hash of their content. A mask that says of any pixel what
nobody can understand leaves its image out, and the reason is told by file; what was found out is remembered until the
mask changes. Maps are made when they are needed (`maps.py`). Of an image with EXIF orientation the mask is that of the
upright picture.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
from collections.abc import Container, Mapping

import ml_collections

from mnet_jax.data import formats, layout, manifest, records
from mnet_jax.data.annotations import Annotation
from mnet_jax.data.boxes import coco
from mnet_jax.data.boxes.found import Fault, Tree
from mnet_jax.data.folder import LeftOut, folder_path
from mnet_jax.data.listed import AnnotatedListing, Arranger, ListedFile, ListedFolder
from mnet_jax.data.masks import classes, pairs
from mnet_jax.data.masks.maps import Facts, InFile, Known, Maps, Mask, OfObjects, all_facts, encoded
from mnet_jax.data.pixel_map import VOID, PixelMap

BACKGROUND = "background"  # of COCO JSON: class 0, where no object is


@dataclasses.dataclass(frozen=True)
class MaskFile(ListedFile):
    """One image with its map; `classes` are those that it has pixels of, of COCO JSON those of its objects."""

    size: tuple[int, int] = (0, 0)  # height and width of the picture
    map_digest: str = ""
    mask: Mask | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def contents(self) -> bytes:
        """The map, made now: a greyscale PNG of the classes. Raises Fault."""
        return encoded(self.mask.map(self.size))

    def said(self) -> str:
        """Returns what a manifest says of an image: the number of its classes, and a hash of its map."""
        return f"{len(self.classes)} classes, map {self.map_digest}"


@dataclasses.dataclass(frozen=True)
class MaskListing(AnnotatedListing):
    """The images of a folder by split, each split in the order of its paths."""

    def class_of(self, file: MaskFile) -> str:
        """Returns what a manifest says of an image."""
        return file.said()


class MaskFolder(ListedFolder):
    """The images of `data.folder` with masks."""

    def __init__(self, data: ml_collections.ConfigDict, annotations: Mapping[str, Annotation]):
        other = [f"{name} ({one.kind})" for name, one in annotations.items() if not isinstance(one, PixelMap)]
        if other:
            raise ValueError(
                f"data.name='folder' has masks here, and not {', '.join(other)} beside them: name a TFDS set that has "
                "all in data.name"
            )
        root, self._names = folder_path(data), tuple(annotations)
        self._train_split = data.train_split or "train"
        super().__init__(root, scan(root, data.manifest, data.split_from))
        files = (file for listed in self.listing.splits.values() for file in listed)
        self._maps = Maps({file.path: functools.partial(_contents, file) for file in files})

    def annotations(self, wanted: Mapping[str, Annotation], eval_split: str) -> dict[str, Annotation]:
        """Returns the kinds with the largest picture of the split that is evaluated, and what makes the maps."""
        sizes = [file.size for file in self.files(eval_split)]
        largest = (max(height for height, _ in sizes), max(width for _, width in sizes))
        return {name: dataclasses.replace(one, largest=largest, read=self._maps) for name, one in wanted.items()}

    def complaint(self) -> str | None:
        """Returns one line about classes of which training sees no pixel, and about what was left out."""
        there = {number for file in self.files(self._train_split) or () for number in file.classes}
        missing = [name for number, name in enumerate(self.class_names) if number not in there]
        found = super().complaint()
        if not there or not missing:
            return found
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        line = f"{self.root}: no pixel in {self._train_split!r} to learn from: {shown}"
        return f"{line}; {found.removeprefix(f'{self.root}: ')}" if found else line

    def open_split(self, split: str) -> records.Table:
        """Returns the paths of a split's images, by which the kinds of `annotations` make their maps too."""
        paths = layout.as_tensor(file.path for file in self.files(split))
        return records.Table(paths, {name: {"": paths} for name in self._names}, are_paths=True)


def _contents(file: MaskFile) -> bytes:
    return file.contents


def scan(root: str, manifest_path: str | None = None, split_from: str | None = None) -> MaskListing:
    """Returns the images with masks of a folder (local or gs://) by split.

    Args:
      root: the folder.
      manifest_path: CSV of `data.manifest`: these images and no others, in the splits that it names.
      split_from: CSV of `data.split_from`: an image that it names keeps its split.

    Raises:
      ValueError: if there are no masks, or no list of their classes, or none that can be used; if there is no split for
        training; if an image of the manifest is gone or has another mask.
    """
    found = read(Tree(root))
    files, left_out = _checked(root, found, manifest.known(manifest_path, split_from))
    said = {os.path.join(root, one.image): one.split for one in found.images}
    contents = {path: file.said() for path, file in files.items()}
    arranged = Arranger(root, found.kind, "another mask")(files, said, contents, manifest_path, split_from)
    return MaskListing(
        found.class_names,
        arranged.splits,
        tuple(sorted((*left_out, *arranged.left_out), key=lambda one: one.path)),
        arranged.newcomers,
        found.note,
    )


@dataclasses.dataclass(frozen=True)
class Masked:
    """One image, and how its map is made."""

    image: str  # below the root
    split: str
    mask: Mask


@dataclasses.dataclass(frozen=True)
class FoundMasks:
    """All that a folder has."""

    kind: str
    class_names: tuple[str, ...]
    images: tuple[Masked, ...]
    left_out: tuple[LeftOut, ...]  # paths below the root
    note: str = ""
    known: Known | None = None  # what is remembered of files of masks


def read(tree: Tree) -> FoundMasks:
    """Returns the images of a folder that have masks, in files or in COCO JSON.

    Raises:
      ValueError: if there are none.
    """
    paired = pairs.find(tree)
    if paired is not None:
        listed = classes.find(tree, voc=paired.voc)
        known = Known(tree.root, listed)
        images = tuple(Masked(one.image, one.split, InFile(tree, one.mask, listed, known)) for one in paired.pairs)
        return FoundMasks("masks in files", listed.names, images, paired.left_out, known=known)
    labelled = coco.read(tree)
    if labelled is not None:
        if BACKGROUND in labelled.class_names:
            raise ValueError(
                f"{tree.root}: a category is called {BACKGROUND!r}, which every pixel without an object has: rename it"
            )
        numbers = {name: number for number, name in enumerate(labelled.class_names, 1)}
        if len(numbers) >= VOID:
            raise ValueError(f"{tree.root} has {len(numbers)} categories; maps of pixels have at most {VOID - 1}")
        images = tuple(Masked(one.path, one.split, OfObjects(one, numbers)) for one in labelled.images)
        names = (BACKGROUND, *labelled.class_names)
        return FoundMasks("COCO JSON", names, images, labelled.left_out, labelled.note)
    raise ValueError(
        f"{tree.root} has {len(tree.images)} images and no masks that can be read: a folder masks beside images with "
        "classes.txt, VOC's SegmentationClass beside JPEGImages, or COCO JSON with segmentation expected; "
        "docs/segmentation.md shows the layouts"
    )


def _checked(root: str, found: FoundMasks, known: Container[str]) -> tuple[dict[str, MaskFile], list[LeftOut]]:
    """Returns the usable images by path, and what is left out; those of the digests `known` were good before.

    Raises:
      ValueError: if no image can be used.
    """
    paths = [os.path.join(root, one.image) for one in found.images]
    verdicts = formats.judge(paths, known)
    usable = [
        None if verdict.fault else (one.mask, verdict.size) for one, verdict in zip(found.images, verdicts, strict=True)
    ]
    facts = all_facts(usable)
    if found.known is not None:
        found.known.keep()
    files: dict[str, MaskFile] = {}
    left_out = [LeftOut(os.path.join(root, one.path), one.why) for one in found.left_out]
    for path, verdict, one, learnt in zip(paths, verdicts, found.images, facts, strict=True):
        if isinstance(learnt, Facts):
            files[path] = MaskFile(path, 0, verdict.digest, learnt.classes, verdict.size, learnt.digest, one.mask)
        else:
            left_out.append(LeftOut(path, str(learnt) if isinstance(learnt, Fault) else verdict.fault))
    times = collections.Counter(paths)
    left_out += [LeftOut(path, "is listed twice: its last entry is used") for path in files if times[path] > 1]
    if not files:
        first = f", such as {os.path.relpath(left_out[0].path, root)} ({left_out[0].why})" if left_out else ""
        raise ValueError(f"{root}: none of {len(paths)} images has a mask that can be used{first}")
    return files, left_out
