"""A folder of images with masks as a data set: files of masks beside images, or COCO JSON with polygons and runs.

Images lie in their owner's splits, or are split here by a hash of their content. Every mask is read once at the start
and kept as a small PNG of classes; one that says of any pixel what nobody can understand leaves its image out, and the
reason is told by file. Of an image with EXIF orientation the mask is that of the upright picture.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence

import ml_collections
import numpy as np

from mnet_jax.data import formats, records
from mnet_jax.data.annotations import Annotation
from mnet_jax.data.boxes import coco
from mnet_jax.data.boxes.found import Fault, Labelled, Tree
from mnet_jax.data.folder import LeftOut, folder_path
from mnet_jax.data.listed import AnnotatedListing, Arranger, ListedFile, ListedFolder
from mnet_jax.data.masks import classes, pairs, rle
from mnet_jax.data.pixel_map import VOID, PixelMap
from mnet_jax.data.tensorflow_setup import tf

BACKGROUND = "background"  # of COCO JSON: class 0, where no object is


@dataclasses.dataclass(frozen=True)
class MaskFile(ListedFile):
    """One image with its map; `classes` are those that it has pixels of."""

    size: tuple[int, int] = (0, 0)  # height and width of the picture
    contents: bytes = b""  # a greyscale PNG of the classes

    def said(self) -> str:
        """Returns what a manifest says of an image: the number of its classes, and a hash of its map."""
        return f"{len(self.classes)} classes, map {hashlib.blake2b(self.contents, digest_size=6).hexdigest()}"


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
        super().__init__(root, scan(root, data.manifest, data.split_from))

    def annotations(self, wanted: Mapping[str, Annotation], eval_split: str) -> dict[str, Annotation]:
        """Returns the kinds with the largest picture of the split that is evaluated."""
        sizes = [file.size for file in self.files(eval_split)]
        largest = (max(height for height, _ in sizes), max(width for _, width in sizes))
        return {name: dataclasses.replace(one, largest=largest) for name, one in wanted.items()}

    def open_split(self, split: str) -> records.Table:
        """Returns the paths of a split's images, and their maps."""
        files = self.files(split)
        paths, maps = (tf.constant(values) for values in zip(*((one.path, one.contents) for one in files), strict=True))
        return records.Table(paths, {name: {"": maps} for name in self._names}, are_paths=True)


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
    files, left_out = _checked(root, found)
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
    map: Callable[[tuple[int, int]], np.ndarray]  # from height and width; raises Fault


@dataclasses.dataclass(frozen=True)
class FoundMasks:
    """All that a folder has."""

    kind: str
    class_names: tuple[str, ...]
    images: tuple[Masked, ...]
    left_out: tuple[LeftOut, ...]  # paths below the root
    note: str = ""


def read(tree: Tree) -> FoundMasks:
    """Returns the images of a folder that have masks, in files or in COCO JSON.

    Raises:
      ValueError: if there are none.
    """
    paired = pairs.find(tree)
    if paired is not None:
        listed = classes.find(tree, voc=paired.voc)
        images = tuple(Masked(one.image, one.split, _of_file(tree, one.mask, listed)) for one in paired.pairs)
        return FoundMasks("masks in files", listed.names, images, paired.left_out)
    labelled = coco.read(tree)
    if labelled is not None:
        if BACKGROUND in labelled.class_names:
            raise ValueError(
                f"{tree.root}: a category is called {BACKGROUND!r}, which every pixel without an object has: rename it"
            )
        numbers = {name: number for number, name in enumerate(labelled.class_names, 1)}
        if len(numbers) >= VOID:
            raise ValueError(f"{tree.root} has {len(numbers)} categories; maps of pixels have at most {VOID - 1}")
        images = tuple(Masked(one.path, one.split, _of_objects(one, numbers)) for one in labelled.images)
        names = (BACKGROUND, *labelled.class_names)
        return FoundMasks("COCO JSON", names, images, labelled.left_out, labelled.note)
    raise ValueError(
        f"{tree.root} has {len(tree.images)} images and no masks that can be read: a folder masks beside images with "
        "classes.txt, VOC's SegmentationClass beside JPEGImages, or COCO JSON with segmentation expected; "
        "docs/segmentation.md shows the layouts"
    )


def _of_file(tree: Tree, file: str, listed: classes.Classes) -> Callable[[tuple[int, int]], np.ndarray]:
    def made(size: tuple[int, int]) -> np.ndarray:
        values = pairs.read(tree, file, listed)
        if values.shape != size:
            there, wanted = (f"{width} x {height}" for height, width in (values.shape, size))
            raise Fault(f"{file} has {there} pixels, the picture has {wanted}: was it turned or resized afterwards?")
        return values

    return made


def _of_objects(image: Labelled, numbers: Mapping[str, int]) -> Callable[[tuple[int, int]], np.ndarray]:
    """Returns what makes a map of an image's objects: background where none is, void where several are."""

    def made(size: tuple[int, int]) -> np.ndarray:
        if image.size not in (None, size):
            there, wanted = (f"{width} x {height}" for height, width in (image.size, size))
            raise Fault(f"{image.source} is about {there} pixels, the picture has {wanted}: was it turned or resized?")
        values, covered = np.zeros(size, np.uint8), np.zeros(size, bool)
        for one in image.objects:
            try:
                mask = rle.decode(one.outline, *size)
            except ValueError as error:
                raise Fault(f"{image.source}, {one.where}: {error}") from error
            values[mask] = np.where(covered[mask], VOID, numbers[one.name])
            covered |= mask
        return values

    return made


def _checked(root: str, found: FoundMasks) -> tuple[dict[str, MaskFile], list[LeftOut]]:
    """Returns the usable images by path, and what is left out.

    Raises:
      ValueError: if no image can be used.
    """
    paths = [os.path.join(root, one.image) for one in found.images]
    verdicts = formats.judge(paths)

    def checked(at: int) -> MaskFile | LeftOut:
        if verdicts[at].fault:
            return LeftOut(paths[at], verdicts[at].fault)
        try:
            values = found.images[at].map(verdicts[at].size)
        except Fault as fault:
            return LeftOut(paths[at], str(fault))
        there = np.flatnonzero(np.bincount(values.reshape(-1), minlength=256)[:VOID]).tolist()
        if not there:
            return LeftOut(paths[at], "its mask is void everywhere")
        return MaskFile(paths[at], 0, verdicts[at].digest, tuple(there), verdicts[at].size, encoded(values))

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results: Sequence[MaskFile | LeftOut] = list(pool.map(checked, range(len(paths))))
    left_out = [LeftOut(os.path.join(root, one.path), one.why) for one in found.left_out]
    left_out += [one for one in results if isinstance(one, LeftOut)]
    times = collections.Counter(paths)
    files = {one.path: one for one in results if isinstance(one, MaskFile)}
    left_out += [LeftOut(path, "is listed twice: its last entry is used") for path in files if times[path] > 1]
    if not files:
        first = f", such as {os.path.relpath(left_out[0].path, root)} ({left_out[0].why})" if left_out else ""
        raise ValueError(f"{root}: none of {len(paths)} images has a mask that can be used{first}")
    return files, left_out


def encoded(values: np.ndarray) -> bytes:
    """Returns classes uint8 [h, w] as a greyscale PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(values).save(file, format="PNG", compress_level=3)
    return file.getvalue()
