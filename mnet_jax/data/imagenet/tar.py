"""Tar archives read at any place, local or in a bucket, also one that lies inside another.

Python's `tarfile` takes a damaged header for the end of an archive: here it is an error that says where.
"""

import os
import tarfile
import threading
import weakref
from collections.abc import Iterator
from typing import NamedTuple

from mnet_jax.data.tensorflow_setup import tf

BLOCK = 512
_AHEAD = 256 << 10  # bytes that are read at once


class Bytes:
    """A file, read by several threads at any place."""

    def __init__(self, path: str):
        self.path = path
        self._remote = tf.io.gfile.GFile(path, "rb") if "://" in path else None
        self._lock = threading.Lock()
        if self._remote is None:
            self._file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
        self.size = os.fstat(self._file).st_size if self._remote is None else self._remote.size()

    def read(self, at: int, size: int) -> bytes:
        """Returns the bytes from a place on, fewer where the file ends."""
        if self._remote is None:
            return os.pread(self._file, size, at)
        with self._lock:
            self._remote.seek(at)
            return self._remote.read(size)


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    start: int  # of its contents, in the archive's file
    size: int
    after: int  # where the next header is


class Region:
    """An archive, or one that lies in another: a part of a file."""

    def __init__(self, file: Bytes, start: int = 0, size: int | None = None):
        self.file, self.start = file, start
        self.size = file.size - start if size is None else size
        self._ahead, self._ahead_at = b"", 0

    def read(self, at: int, size: int) -> bytes:
        """Returns bytes of the file. Raises ValueError where it ends before."""
        skip = at - self._ahead_at
        if skip < 0 or skip + size > len(self._ahead):
            wanted = max(size, min(_AHEAD, self.start + self.size - at))
            self._ahead, self._ahead_at, skip = self.file.read(at, wanted), at, 0
        found = self._ahead[skip : skip + size]
        if len(found) < size:
            raise ValueError(f"{self.file.path} ends at byte {self.file.size:,}, in the middle of a file")
        return found

    def members(self, offset: int = 0) -> Iterator[Member]:
        """Yields the files from a place on, counted from the start of this archive; `after` counts so too.

        Raises:
          ValueError: if there is no header where one should be.
        """
        at, end = self.start + offset, self.start + self.size
        name = None
        while at + BLOCK <= end:
            try:
                header = tarfile.TarInfo.frombuf(self.read(at, BLOCK), "utf-8", "surrogateescape")
            except tarfile.EOFHeaderError:
                return
            except tarfile.HeaderError as error:
                raise ValueError(f"{self.file.path} is damaged at byte {at:,} ({error})") from error
            after = at + BLOCK + -(-header.size // BLOCK) * BLOCK
            if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
                extra = self.read(at + BLOCK, header.size)
                name = _pax_path(extra) if header.type == tarfile.XHDTYPE else extra.rstrip(b"\0").decode()
            elif header.isreg():
                yield Member(name or header.name, at + BLOCK, header.size, after - self.start)
                name = None
            elif header.type != tarfile.XGLTYPE:
                name = None  # a folder
            at = after
        if at < end and self.read(at, end - at).strip(b"\0"):
            raise ValueError(f"{self.file.path} is damaged at byte {at:,} (half a header)")


def _pax_path(records: bytes) -> str | None:
    """Returns the path that a header of the newer kind gives to the file after it."""
    while records:
        length, _, _ = records.partition(b" ")
        record, records = records[: int(length)], records[int(length) :]
        key, _, value = record.partition(b" ")[2].rstrip(b"\n").partition(b"=")
        if key == b"path":
            return value.decode()
    return None
