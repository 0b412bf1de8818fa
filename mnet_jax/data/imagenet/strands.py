"""Strands: images that lie one after the other, and can be read from any place where an earlier reader stopped.

A place is a number from 0 to the strand's `size`: bytes of an archive, rows of a table, files of a list. It tells how
much of the strand is before it, and that is all that is asked of it.
"""

import abc
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from mnet_jax.data.imagenet import facts
from mnet_jax.data.imagenet.tar import Member, Region
from mnet_jax.data.tensorflow_setup import tf


class Example(NamedTuple):
    """An image as ImageNet has it."""

    file_name: str
    wnid: str
    contents: bytes


class Strand(abc.ABC):
    """Images one after the other."""

    size: int

    @abc.abstractmethod
    def examples(self, start: int) -> Iterator[tuple[int, Example]]:
        """Yields images from a place on, each with the place after it."""


class Archive(Strand):
    """The images of one tar archive."""

    def __init__(self, region: Region, wnid: Callable[[str], str]):
        """Takes the archive, and a function from an image's name to its class."""
        self.size, self._region, self._wnid = region.size, region, wnid

    def examples(self, start: int) -> Iterator[tuple[int, Example]]:
        """Yields images from a place on, each with the place after it."""
        for member in self._region.members(start):
            name = facts.file_name(member.name)
            yield member.after, Example(name, self._wnid(name), self._region.read(member.start, member.size))


class Samples(Strand):
    """The images of a WebDataset archive: NAME.jpg with NAME.cls (a class's number) or NAME.json beside it."""

    def __init__(self, region: Region):
        self.size, self._region = region.size, region

    def examples(self, start: int) -> Iterator[tuple[int, Example]]:
        """Yields images from a place on, each with the place after it."""
        stem, parts, after = None, {}, start
        for member in self._region.members(start):
            directory, slash, file = member.name.rpartition("/")
            base, _, ending = file.partition(".")
            if directory + slash + base != stem:
                if parts:
                    yield after, self._example(stem, parts)
                stem, parts = directory + slash + base, {}
            parts[ending.lower()] = member
            after = member.after
        if parts:
            yield after, self._example(stem, parts)

    def _example(self, stem: str, parts: dict[str, Member]) -> Example:
        where = f"{self._region.file.path}: {stem}"
        image = next((parts[ending] for ending in ("jpg", "jpeg", "png", "webp") if ending in parts), None)
        about = json.loads(self._read(parts["json"])) if "json" in parts else {}
        number = self._read(parts["cls"]).decode() if "cls" in parts else about.get("label")
        if image is None or number is None:
            raise ValueError(f"{where} has {', '.join(parts)}: jpg, and cls or json with a label, expected")
        name = facts.file_name(about.get("filename") or image.name)
        return Example(name, checked_class(number, name, where), self._read(image))

    def _read(self, member: Member) -> bytes:
        return self._region.read(member.start, member.size)


class Rows(Strand):
    """The images of a Parquet file of the Hugging Face hub: columns image {bytes, path} and label."""

    def __init__(self, path: str):
        from pyarrow import lib, parquet

        self._path = path
        try:
            with parquet.ParquetFile(path) as file:
                self._groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
                there = {column.path for column in (file.schema.column(i) for i in range(len(file.schema)))}
        except (lib.ArrowException, OSError) as error:
            raise ValueError(f"{path} cannot be read: {error}; download it again") from error
        if missing := {"image.bytes", "label"} - there:
            raise ValueError(
                f"{path} has no {', '.join(sorted(missing))}: columns image {{bytes, path}} and label expected"
            )
        self.size = sum(self._groups)

    def examples(self, start: int) -> Iterator[tuple[int, Example]]:
        """Yields images from a place on, each with the place after it."""
        from pyarrow import lib, parquet

        first = 0
        with parquet.ParquetFile(self._path) as file:
            for group, count in enumerate(self._groups):
                if first + count > start:
                    try:
                        rows = file.read_row_group(group, columns=["image", "label"])
                    except (lib.ArrowException, OSError) as error:
                        raise ValueError(f"{self._path} is damaged: {error}; download it again") from error
                    skip = max(start - first, 0)
                    for place in range(skip, count):
                        image, number = rows["image"][place].as_py(), rows["label"][place].as_py()
                        name = facts.file_name(image.get("path") or f"{os.path.basename(self._path)}_{first + place}")
                        where = f"{self._path}: row {first + place:,}"
                        yield first + place + 1, Example(name, checked_class(number, name, where), image["bytes"])
                first += count


class Files(Strand):
    """Image files of one class, or (path, class) pairs."""

    def __init__(self, paths: Sequence[str], wnids: Sequence[str]):
        self.size, self._paths, self._wnids = len(paths), paths, wnids

    def examples(self, start: int) -> Iterator[tuple[int, Example]]:
        """Yields images from a place on, each with the place after it."""
        for place in range(start, self.size):
            path = self._paths[place]
            with tf.io.gfile.GFile(path, "rb") as file:
                yield place + 1, Example(facts.file_name(path), self._wnids[place], file.read())


class Chain(Strand):
    """Strands whose images are mixed already, one after the other as one."""

    def __init__(self, strands: Sequence[Strand]):
        self._strands = strands
        self.size = sum(strand.size for strand in strands)

    def examples(self, start: int) -> Iterator[tuple[int, Example]]:
        """Yields images from a place on, each with the place after it."""
        first = 0
        for strand in self._strands:
            if first + strand.size > start:
                for after, example in strand.examples(max(start - first, 0)):
                    yield first + after, example
            first += strand.size


def checked_class(number: object, name: str, where: str) -> str:
    """Returns the class with a number in ImageNet's order, which what the image is called must not contradict."""
    try:
        wnid = facts.WNIDS[int(number)] if 0 <= int(number) < len(facts.WNIDS) else None
    except (TypeError, ValueError):
        wnid = None
    if wnid is None:
        raise ValueError(f"{where} has label {number!r}: 0 to 999 expected")
    known = facts.wnid_of(name)
    if known not in (None, wnid):
        raise ValueError(f"{where} ({name}) is labelled {number} ({wnid}) and is of {known}: not in ImageNet's order")
    return wnid
