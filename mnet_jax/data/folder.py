"""Any folder of images as a data set: one sub-folder a class.

Either photos/train/<class>/... with photos/val, photos/validation or photos/test beside it, spelt as people do
(`layout.split_folders`), or photos/<class>/..., which is split here. Sub-folders of a class count too. Files are told
apart by their bytes, whatever their names. A file that cannot be used is left out and listed, with the reason; of
several copies of an image one is used.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Container, Mapping

import ml_collections

from mnet_jax import files
from mnet_jax.data import formats, layout, manifest, records
from mnet_jax.data.annotations import Annotation, Label
from mnet_jax.data.manifest import Entry
from mnet_jax.data.source import HELD_OUT, UNSORTED, Source
from mnet_jax.data.tensorflow_setup import tf

EVAL_SHARE = 0.2  # of a folder that is split here
_LEAST, _MOST = 0.1, 0.4  # of a class of five photos or more, whatever is drawn


class Folder(Source):
    """The images of `data.folder`: with a label those of sub-folders, without annotations all there are."""

    def __init__(self, data: ml_collections.ConfigDict, annotations: Mapping[str, Annotation]):
        other = [f"{name} ({one.kind})" for name, one in annotations.items() if not isinstance(one, Label)]
        if other:
            raise ValueError(
                f"data.name='folder' has a label an image, that of its sub-folder, and not {', '.join(other)}: "
                "name a TFDS set that has it in data.name"
            )
        self.root, self._labels = folder_path(data), tuple(annotations)
        self.listing = scan(self.root, data.manifest, data.split_from) if annotations else scan_unsorted(self.root)
        self.sizes = {name: len(files) for name, files in self.listing.splits.items()}
        self.class_names = self.listing.class_names

    def count(self, split: str) -> int | None:
        """Returns how many images a split has."""
        files = self.files(split)
        return None if files is None else len(files)

    def files(self, split: str) -> tuple[File, ...] | None:
        """Returns the images of a split; None if there is no such split."""
        return self.listing.splits.get(split)

    def open_split(self, split: str) -> records.Table:
        """Returns the paths of a split's images, and their labels."""
        files = self.files(split)
        labels = tf.constant([file.label for file in files], tf.int64)
        paths = layout.as_tensor(file.path for file in files)
        return records.Table(paths, {name: {"": labels} for name in self._labels}, are_paths=True)

    def digests(self, split: str) -> list[str]:
        """Returns the hashes that the listing has."""
        return [file.digest for file in self.files(split)]

    def file_names(self, split: str) -> list[str]:
        """Returns the images' paths."""
        return [file.path for file in self.files(split)]

    def complaint(self) -> str | None:
        """Returns one line about the files that were left out, if there are any."""
        return self.listing.complaint(self.root)


def folder_path(data: ml_collections.ConfigDict) -> str:
    """Returns where the images of the data set "folder" are."""
    if not data.folder:
        raise ValueError("data.name is 'folder' but data.folder is not set: type --config.data.folder=/path/to/photos")
    return os.path.expanduser(data.folder)


@dataclasses.dataclass(frozen=True)
class File:
    """One image: its path, the number of its class, and a hash of its content (32 hexadecimal digits).

    Of a JPEG the hash covers the first and the last 64 KiB and the size, of other files all bytes.
    """

    path: str
    label: int
    digest: str


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file that is not used."""

    path: str
    why: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of a folder by split, each split in the order of its paths."""

    class_names: tuple[str, ...]
    splits: dict[str, tuple[File, ...]]
    left_out: tuple[LeftOut, ...] = ()
    newcomers: tuple[str, ...] = ()  # usable images that a manifest does not name

    def entries(self, root: str) -> list[Entry]:
        """Returns the rows of this listing's manifest."""
        return [
            Entry(os.path.relpath(file.path, root), self.class_of(file), split, file.digest)
            for split, files in self.splits.items()
            for file in files
        ]

    def class_of(self, file: File) -> str:
        """Returns what a manifest says of an image: its class."""
        return self.class_names[file.label] if self.class_names else ""

    def complaint(self, root: str, shown: int = 5) -> str | None:
        """Returns one line about the files that were left out, if there are any."""
        if not self.left_out:
            return None
        some = [f"{os.path.relpath(file.path, root)} ({file.why})" for file in self.left_out[:shown]]
        more = [f"and {len(self.left_out) - shown} more"] if len(self.left_out) > shown else []
        return f"{root}: left out {len(self.left_out)} files: {', '.join(some + more)}"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A file on its way into a listing."""

    path: str
    class_name: str
    split: str  # "" where the folder is split here
    digest: str

    @property
    def draw(self) -> float:
        """A number in [0, 1) that depends on the content only."""
        return int(self.digest[:16], 16) / 2**64


def scan(root: str, manifest_path: str | None = None, split_from: str | None = None) -> Listing:
    """Returns the images of a folder (local or gs://) by split.

    Args:
      root: the folder.
      manifest_path: CSV of `data.manifest`: these images and no others, in the splits that it names.
      split_from: CSV of `data.split_from`: an image that it names keeps its split.

    Raises:
      ValueError: if there are no images, or fewer than two classes, or a split has classes that "train" has not; if an
        image of the manifest is gone or in another class.
    """
    known = manifest.known(manifest_path, split_from)
    images, unusable = inspect(root, known)
    images, copies = without_copies(root, images, {digest: entry.class_name for digest, entry in known.items()})
    if manifest_path is not None:
        newcomers = tuple(image.path for image in images if image.digest not in known)
        images = as_noted(root, manifest_path, images, known)
    else:
        newcomers = ()
        if split_from is not None and any(image.split for image in images):
            raise ValueError(f"data.split_from goes with a folder that is split here; {root} has train and val folders")
        images = _checked(root, images, {digest: entry.split for digest, entry in known.items()})
    left_out = tuple(sorted((*unusable, *copies), key=lambda file: file.path))
    names = tuple(sorted({image.class_name for image in images}))
    numbers = {name: number for number, name in enumerate(names)}
    splits = {split: [] for split in sorted({image.split for image in images}, key=("train", *HELD_OUT).index)}
    for image in sorted(images, key=lambda image: image.path):
        splits[image.split].append(File(image.path, numbers[image.class_name], image.digest))
    return Listing(names, {split: tuple(files) for split, files in splits.items()}, left_out, newcomers)


def scan_unsorted(root: str) -> Listing:
    """Returns all images of a folder and below, one of each, without classes: labels are 0, and there are no names."""
    if not layout.listed(root):
        raise ValueError(f"{root} is empty")
    found = layout.files_below(root, root)
    verdicts = formats.judge(found, sizes=False)
    images = [
        Candidate(path, "", UNSORTED, v.digest) for path, v in zip(found, verdicts, strict=True) if v.fault is None
    ]
    unusable = [LeftOut(path, v.fault) for path, v in zip(found, verdicts, strict=True) if v.fault]
    images, copies = without_copies(root, images, {})
    if not images:
        raise ValueError(f"no images in {root}")
    files = tuple(File(image.path, 0, image.digest) for image in sorted(images, key=lambda image: image.path))
    return Listing((), {UNSORTED: files}, tuple(sorted((*unusable, *copies), key=lambda file: file.path)))


def has_classes(root: str) -> bool:
    """Returns whether there are folders in a folder."""
    if not tf.io.gfile.isdir(root):
        raise ValueError(f"no such folder: {root}")
    return bool(layout.folders(root))


def inspect(
    root: str, known: Container[str] = (), *, for_training: bool = True
) -> tuple[list[Candidate], list[LeftOut]]:
    """Returns the images of a folder, and the files that are none or do not belong to a class.

    Args:
      root: the folder.
      known: digests of images that were found to be good before.
      for_training: whether its folders are those of splits only where "train" is among them.
    """
    if not tf.io.gfile.isdir(root):
        raise ValueError(f"no such folder: {root} (data.folder)")
    if parts := layout.split_folders(root, for_training=for_training):
        names = [os.path.relpath(path, root).split(os.sep)[0] for path in parts.values()]
        others = [name for name in layout.folders(root) if name not in names]
        stray = [LeftOut(layout.join(root, name), f"beside {', '.join(names)}") for name in others]
        homeless = [layout.join(path, name) for path in (root, *parts.values()) for name in layout.loose_files(path)]
    else:
        parts = {"": root}
        stray, homeless = [], [layout.join(root, name) for name in layout.loose_files(root)]
    found = [
        (path, name, split) for split, part in parts.items() for name, paths in _classes(part).items() for path in paths
    ]
    verdicts = formats.judge([path for path, _, _ in found], known, sizes=False)
    images = [
        Candidate(*file, verdict.digest) for file, verdict in zip(found, verdicts, strict=True) if verdict.fault is None
    ]
    unusable = [
        LeftOut(path, verdict.fault) for (path, _, _), verdict in zip(found, verdicts, strict=True) if verdict.fault
    ]
    return images, [*unusable, *stray, *(LeftOut(path, "not in the folder of a class") for path in homeless)]


def without_copies(
    root: str, images: list[Candidate], classes: Mapping[str, str]
) -> tuple[list[Candidate], list[LeftOut]]:
    """Returns the images without their copies, and those copies.

    Of each image that one stays which lies in its known class (`classes` by digest), else one of a split held out.
    Where copies lie in several classes and none is known, nobody can say which is right: none is used.
    """
    groups = collections.defaultdict(list)
    for image in images:
        groups[image.digest].append(image)
    kept, left_out = [], []
    for digest, copies in groups.items():
        right = [image for image in copies if image.class_name == classes.get(digest)] or copies
        if len({image.class_name for image in right}) > 1:
            for image in right:
                other = next(other for other in right if other.class_name != image.class_name)
                why = f"the same image is in another class: {os.path.relpath(other.path, root)}"
                left_out.append(LeftOut(image.path, why))
            continue
        chosen = min(right, key=lambda image: (image.split == "train", image.path))
        kept.append(chosen)
        why = f"copy of {os.path.relpath(chosen.path, root)}"
        left_out += [LeftOut(image.path, why) for image in copies if image is not chosen]
    return kept, left_out


def _checked(root: str, images: list[Candidate], known: Mapping[str, str]) -> list[Candidate]:
    """Returns the images with a split for each: their folder's, or drawn here unless `known` (by digest) says it."""
    names = sorted({image.class_name for image in images if image.split in ("", "train")})
    if len(names) < 2:
        raise ValueError(
            f"{root} has {'no images' if not names else f'one class only ({names[0]!r})'}: "
            f"put each class into a folder of its own, "
            f"such as {layout.join(root, 'cats')} and {layout.join(root, 'dogs')}"
        )
    for split in sorted({image.split for image in images}):
        if unknown := sorted({image.class_name for image in images if image.split == split} - set(names)):
            raise ValueError(
                f"{layout.join(root, split)} has classes that {layout.join(root, 'train')} has not: "
                f"{', '.join(unknown)}"
            )
    if {image.split for image in images} <= {"", "train"}:
        images = _split(images, known)
        if not any(image.split == "validation" for image in images):
            raise ValueError(f"{root} has too few images to hold some out for evaluation ({len(images)})")
    return images


def _split(images: list[Candidate], known: Mapping[str, str]) -> list[Candidate]:
    """Returns the images, of each class those held out whose draw is below `EVAL_SHARE`; `known` ones stay.

    The draw is a hash of the content: an image stays in its split when others come or when it is renamed. Only in a
    class of few photos do the others matter: at least a tenth (one of 5 to 14 photos) and at most two fifths of a class
    are held out, those with the lowest draws, and nothing of one photo or two.
    """
    classes = collections.defaultdict(list)
    for image in images:
        classes[image.class_name].append(image)
    held_out: set[str] = set()
    for members in classes.values():
        members.sort(key=lambda image: image.draw)
        drawn, (least, most) = sum(image.draw < EVAL_SHARE for image in members), held_out_bounds(len(members))
        held_out |= {image.digest for image in members[: min(max(drawn, least), most)]}

    def split(image: Candidate) -> str:
        return known.get(image.digest) or ("validation" if image.digest in held_out else "train")

    return [dataclasses.replace(image, split=split(image)) for image in images]


def held_out_bounds(count: int) -> tuple[int, int]:
    """Returns how many of so many photos of a class are held out at least, and at most, whatever is drawn."""
    return max(1, round(_LEAST * count)) if count >= 5 else 0, int(_MOST * count)


def as_noted(
    root: str,
    path: str,
    images: list[Candidate],
    entries: Mapping[str, Entry],
    changed: str = "are in another class now",
) -> list[Candidate]:
    """Returns the images of a manifest, in its splits."""
    there = {image.digest: image for image in images if image.digest in entries}
    for what, lost in (
        ("are gone", [entry.file for digest, entry in entries.items() if digest not in there]),
        (
            changed,
            [
                f"{entry.file} ({there[digest].class_name})"
                for digest, entry in entries.items()
                if digest in there and there[digest].class_name != entry.class_name
            ],
        ),
    ):
        if lost:
            more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
            raise ValueError(
                f"{len(lost)} of the {len(entries)} images in {path} {what}: {', '.join(lost[:3])}{more}. Put them "
                f"back as they were in {root}, or start a new run with another --workdir; with "
                f"--config.data.split_from={path} it holds out the same images"
            )
    if wrong := {entry.split for entry in entries.values()} - {"train", *HELD_OUT}:
        raise ValueError(
            f"{path} has unknown splits: {', '.join(sorted(wrong))}; train, {', '.join(HELD_OUT)} expected"
        )
    return [dataclasses.replace(image, split=entries[digest].split) for digest, image in there.items()]


def _classes(path: str) -> dict[str, list[str]]:
    """Returns the paths of the files of each class, whose name is that of its folder, as it can be shown."""
    return {files.printable(name): layout.files_below(path, layout.join(path, name)) for name in layout.folders(path)}
