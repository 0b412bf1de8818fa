"""Folders whose images have more than one class each: their splits and copies, and the source of what was listed.

A kind of annotation has its own reader (`boxes/`, `masks/`); what it read becomes a listing here. Images lie in their
owner's splits, or are split by a hash of their content, but that one image of each class always stays in training.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import ClassVar

from mnet_jax.data import manifest
from mnet_jax.data.folder import EVAL_SHARE, Candidate, File, LeftOut, Listing, as_noted, without_copies
from mnet_jax.data.source import HELD_OUT, Source


@dataclasses.dataclass(frozen=True)
class ListedFile(File):
    """One image with the classes that are on it."""

    classes: tuple[int, ...] = ()


class Dropped(LeftOut):
    """A part of an annotation that is not used, of an image that is."""


@dataclasses.dataclass(frozen=True)
class AnnotatedListing(Listing):
    """The images of a folder by split, each split in the order of its paths."""

    note: str = ""  # one line that its owner should know
    parts: ClassVar[str] = "objects"  # what a `Dropped` is

    def complaint(self, root: str, shown: int = 5) -> str | None:
        """Returns one line about files and objects that were left out, if there are any, and what else to know."""
        parts = []
        for what, kind in (("files", LeftOut), (self.parts, Dropped)):
            found = [one for one in self.left_out if type(one) is kind]
            if found:
                some = [f"{os.path.relpath(one.path, root)} ({one.why})" for one in found[:shown]]
                more = [f"and {len(found) - shown} more"] if len(found) > shown else []
                parts.append(f"left out {len(found)} {what}: {', '.join(some + more)}")
        parts += [self.note] if self.note else []
        return f"{root}: {'; '.join(parts)}" if parts else None


class ListedFolder(Source):
    """The images of a listing, in splits that "+" joins: "train+val"."""

    def __init__(self, root: str, listing: Listing):
        self.root, self.listing = root, listing
        self.sizes = {name: len(files) for name, files in listing.splits.items()}
        self.class_names = listing.class_names

    def files(self, split: str) -> list[File] | None:
        """Returns the images of a split, or of several with a "+" between them; None if there is no such split."""
        names = split.split("+")
        known = all(name in self.sizes for name in names) and len(set(names)) == len(names)
        return [file for name in names for file in self.listing.splits[name]] if known else None

    def count(self, split: str) -> int | None:
        """Returns how many images a split, such as "train" or "train+val", has."""
        files = self.files(split)
        return None if files is None else len(files)

    def digests(self, split: str) -> list[str]:
        """Returns the hashes that the listing has."""
        return [file.digest for file in self.files(split)]

    def file_names(self, split: str) -> list[str]:
        """Returns the images' paths."""
        return [file.path for file in self.files(split)]

    def complaint(self) -> str | None:
        """Returns one line about what was left out, if there is anything."""
        return self.listing.complaint(self.root)


@dataclasses.dataclass(frozen=True)
class Arranged:
    """Images with a split each."""

    splits: dict[str, tuple[ListedFile, ...]]
    left_out: tuple[LeftOut, ...]  # copies, and images in none of their owner's splits
    newcomers: tuple[str, ...]  # usable images that a manifest does not name


@dataclasses.dataclass(frozen=True)
class Arranger:
    """Puts the usable images of a folder into splits."""

    root: str
    kind: str  # what the annotations are, for messages: "COCO JSON"
    other: str  # how an annotation that has changed is called: "other objects"

    splits: ClassVar[tuple[str, ...]] = ("train", *HELD_OUT)

    def __call__(
        self,
        files: Mapping[str, ListedFile],
        said: Mapping[str, str],
        contents: Mapping[str, str],
        manifest_path: str | None,
        split_from: str | None,
    ) -> Arranged:
        """Returns the images in their splits, without copies.

        Args:
          files: by path.
          said: the split that an image's place or list says, by path; "" for none.
          contents: a text by path that says what is annotated; it is the same for the same annotation.
          manifest_path: CSV of `data.manifest`: these images and no others, in the splits that it names.
          split_from: CSV of `data.split_from`: an image that it names keeps its split.

        Raises:
          ValueError: if there is no split for training; if an image of the manifest is gone or annotated otherwise.
        """
        candidates = [Candidate(path, contents[path], said[path], file.digest) for path, file in files.items()]
        known = manifest.known(manifest_path, split_from)
        candidates, copies = self.without_copies(candidates)
        newcomers: tuple[str, ...] = ()
        if manifest_path is not None:
            newcomers = tuple(one.path for one in candidates if one.digest not in known)
            candidates = as_noted(self.root, manifest_path, candidates, known, f"have {self.other} now")
        else:
            candidates, strays = self._with_splits(files, candidates, known, split_from)
            copies += strays
        by_split = {split: [] for split in sorted({one.split for one in candidates}, key=self.splits.index)}
        for one in sorted(candidates, key=lambda one: one.path):
            by_split[one.split].append(files[one.path])
        return Arranged({split: tuple(listed) for split, listed in by_split.items()}, tuple(copies), newcomers)

    def without_copies(self, candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[LeftOut]]:
        """Returns the images without their copies, and those copies; of images annotated differently none is used."""
        kept, copies = without_copies(self.root, candidates, {})
        what = f"has {self.other}"
        return kept, [LeftOut(one.path, one.why.replace("is in another class", what)) for one in copies]

    def _with_splits(
        self,
        files: Mapping[str, ListedFile],
        candidates: list[Candidate],
        known: Mapping[str, manifest.Entry],
        split_from: str | None,
    ) -> tuple[list[Candidate], list[LeftOut]]:
        """Returns the images with a split each, their owner's or drawn here, and those that are in none."""
        root = self.root
        there = sorted({one.split for one in candidates} - {""}, key=self.splits.index)
        if there and set(there) != {"train"}:
            if split_from is not None:
                raise ValueError(
                    f"data.split_from goes with a folder that is split here; {root} has {', '.join(there)}"
                )
            if "train" not in there:
                raise ValueError(
                    f"{root} has images in {', '.join(there)} and none in 'train': {self.kind} for it expected"
                )
            strays = [
                LeftOut(one.path, f"in no split; there are {', '.join(there)}") for one in candidates if not one.split
            ]
            return [one for one in candidates if one.split], strays
        held_out = self.held_out(files, candidates)

        def split(one: Candidate) -> str:
            if one.digest in known:
                return known[one.digest].split
            return "validation" if one.path in held_out else "train"

        drawn = [dataclasses.replace(one, split=split(one)) for one in candidates]
        if {one.split for one in drawn} != {"train", "validation"}:
            raise ValueError(f"{root} has too few images to hold some out for evaluation ({len(drawn)})")
        return drawn, []

    def held_out(self, files: Mapping[str, ListedFile], candidates: Sequence[Candidate]) -> set[str]:
        """Returns the paths of the images that are held out, by a hash of their content."""
        last: dict[int, float] = {}
        for one in candidates:
            for number in set(files[one.path].classes):
                last[number] = max(last.get(number, 0.0), one.draw)
        return {
            one.path
            for one in candidates
            if one.draw < EVAL_SHARE
            and not any(one.draw == last[number] for number in files[one.path].classes)  # one image of each class
        }
