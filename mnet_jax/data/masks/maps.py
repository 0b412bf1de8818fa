"""Maps of pixels that are made when somebody needs them: from a file, or from the outlines of objects.

What is to be known of a map before it is needed (which classes it has, and whether it can be made) is found out by
reading the file, once, until the file changes; of outlines by looking at their numbers.
"""

from __future__ import annotations

import abc
import concurrent.futures
import dataclasses
import hashlib
import io
import os
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mnet_jax.data.boxes.found import Fault, Labelled, Tree
from mnet_jax.data.masks import classes, pairs, rle
from mnet_jax.data.pixel_map import VOID
from mnet_jax.data.remembered import Remembered

_VERSION = 1  # of the rules by which files are checked: what was kept by others is checked again
_MOST = 1 << 30  # bytes of encoded maps that are kept in memory; what comes after them is made anew each time
Size = tuple[int, int]  # height and width


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a map before it is needed."""

    classes: tuple[int, ...]  # that it has pixels of
    digest: str  # the same for the same map


class Mask(abc.ABC):
    """Where the map of one image comes from."""

    @abc.abstractmethod
    def map(self, size: Size) -> np.ndarray:
        """Returns the classes, uint8 [height, width] as large as the picture. Raises Fault."""

    @abc.abstractmethod
    def facts(self, size: Size) -> Facts:
        """Returns what is known of the map. Raises Fault if it cannot be used."""


@dataclasses.dataclass(frozen=True)
class InFile(Mask):
    """A mask in a file of its own."""

    tree: Tree
    file: str  # below the root
    listed: classes.Classes
    known: Known

    def map(self, size: Size) -> np.ndarray:
        """Returns the classes of the file's pixels."""
        values = pairs.read(self.tree, self.file, self.listed)
        if values.shape != size:
            there, wanted = (f"{width} x {height}" for height, width in (values.shape, size))
            raise Fault(
                f"{self.file} has {there} pixels, the picture has {wanted}: was it turned or resized afterwards?"
            )
        return values

    def facts(self, size: Size) -> Facts:
        """Returns what the file has, as it was found out before or is now."""
        return self.known.facts(self.tree.path(self.file), self.file, size, lambda: self._read_facts(size))

    def _read_facts(self, size: Size) -> Facts:
        values = self.map(size)
        there = np.flatnonzero(np.bincount(values.reshape(-1), minlength=256)[:VOID]).tolist()
        if not there:
            raise Fault("its mask is void everywhere")
        return Facts(tuple(there), hashlib.blake2b(encoded(values), digest_size=6).hexdigest())


class Known:
    """What was found out about files of masks at this start or at one before; a file that has changed is read again."""

    def __init__(self, root: str, listed: classes.Classes):
        """Takes what was kept about a folder, unless its list of classes was another."""
        self._remembered = Remembered(root, "masks")
        self._rules = [_VERSION, hashlib.blake2b(repr(listed).encode(), digest_size=8).hexdigest()]
        kept = self._remembered.read()
        rows = kept.get("masks")
        self._kept = rows if kept.get("rules") == self._rules and isinstance(rows, dict) else {}
        self._rows: dict[str, list] = {}

    def facts(self, path: str, file: str, size: Size, read: Callable[[], Facts]) -> Facts:
        """Returns what is known of a file, or what `read` finds out. Raises Fault, which is remembered too."""
        stamp = _stamp(path)
        row = self._kept.get(file)
        if stamp is None or not isinstance(row, list) or len(row) != 4 or row[0] != [*stamp, *size]:
            try:
                found, fault = read(), ""
            except Fault as error:
                found, fault = Facts((), ""), str(error)
            row = [[*(stamp or ()), *size], list(found.classes), found.digest, fault]
        self._rows[file] = row
        _, there, digest, fault = row
        if fault:
            raise Fault(fault)
        return Facts(tuple(there), digest)

    def keep(self) -> None:
        """Writes down what is known of the files that were asked for, if that is new."""
        if self._rows != self._kept:
            self._remembered.write({"rules": self._rules, "masks": self._rows})


def _stamp(path: str) -> list[int] | None:
    """Returns what changes with a local file's content; None of a bucket's, which is read each time."""
    if "://" in path:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_mtime_ns, status.st_ctime_ns, status.st_size]


class OfObjects(Mask):
    """COCO's outlines and runs: background where no object is, void where several are."""

    def __init__(self, image: Labelled, numbers: Mapping[str, int]):
        """Takes an image with its objects, and the numbers of their classes."""
        self._source, self._size = image.source, image.size
        self._objects = [(numbers[one.name], one.where, rle.packed(one.outline)) for one in image.objects]

    def map(self, size: Size) -> np.ndarray:
        """Returns the classes of the objects."""
        self._check_size(size)
        values, covered = np.zeros(size, np.uint8), np.zeros(size, bool)
        for number, where, outline in self._objects:
            try:
                mask = rle.decode(outline, *size)
            except ValueError as error:
                raise Fault(f"{self._source}, {where}: {error}") from error
            values[mask] = np.where(covered[mask], VOID, number)
            covered |= mask
        return values

    def facts(self, size: Size) -> Facts:
        """Returns background and the classes of the objects, without a pixel of them."""
        self._check_size(size)
        digest = hashlib.blake2b(digest_size=6)
        for number, where, outline in self._objects:
            try:
                parts = rle.parse(outline, *size)
            except ValueError as error:
                raise Fault(f"{self._source}, {where}: {error}") from error
            digest.update(bytes([number]))
            for part in [parts] if isinstance(parts, np.ndarray) else parts:
                digest.update(part.tobytes())
        return Facts((0, *sorted({number for number, _, _ in self._objects})), digest.hexdigest())

    def _check_size(self, size: Size) -> None:
        if self._size not in (None, size):
            there, wanted = (f"{width} x {height}" for height, width in (self._size, size))
            raise Fault(f"{self._source} is about {there} pixels, the picture has {wanted}: was it turned or resized?")


def encoded(values: np.ndarray) -> bytes:
    """Returns classes uint8 [h, w] as a greyscale PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(values).save(file, format="PNG", compress_level=3)
    return file.getvalue()


class Maps:
    """The maps of many images by their paths, each encoded when it is first asked for."""

    def __init__(self, make: Mapping[str, Callable[[], bytes]]):
        """Takes what gives the map of each image as an encoded picture; it may raise Fault."""
        self._make, self._made, self._bytes = dict(make), {}, 0
        self._lock = threading.Lock()

    def __call__(self, path: bytes) -> bytes:
        """Returns the map of an image as a greyscale PNG. Raises ValueError if it can no longer be made."""
        name = os.fsdecode(path)
        found = self._made.get(name)
        if found is None:
            try:
                found = self._make[name]()
            except Fault as fault:
                raise ValueError(f"the mask of {name} has changed since the start: {fault}") from fault
            with self._lock:
                if self._bytes + len(found) <= _MOST and name not in self._made:
                    self._made[name] = found
                    self._bytes += len(found)
        return found


def all_facts(masks: Sequence[tuple[Mask, Size] | None]) -> list[Facts | Fault | None]:
    """Returns what is known of each map, or why it cannot be used; many at a time."""

    def one(given: tuple[Mask, Size] | None) -> Facts | Fault | None:
        try:
            return given and given[0].facts(given[1])
        except Fault as fault:
            return fault

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(one, masks))
