"""FlatBuffers, the part of the format that TFLite files need: tables of numbers, strings, vectors and other tables.

Every offset of a file is checked against its length before it is followed; a wrong one is an error, never a crash.
"""

import struct
from typing import Any, Self

import numpy as np


class Broken(ValueError):
    """An offset points outside the file."""


class Table:
    """One table: fields by their slot, the position in the schema; a field that is absent has a default."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position
        self._fields = position - self._read("<i", position)  # the list of its fields' places
        self._size = self._read("<H", self._fields)

    @classmethod
    def root(cls, data: bytes, identifier: bytes) -> Self:
        """Returns the table that the file is.

        Raises:
          Broken: if the file has another identifier.
        """
        if data[4:8] != identifier:
            raise Broken(f"it does not begin with {identifier.decode()}")
        return cls(data, struct.unpack_from("<I", data)[0])

    def number(self, slot: int, kind: str, default: Any = 0) -> Any:
        """Returns a number; `kind` as in `struct`: "b", "B", "i", "I", "?", ..."""
        place = self._place(slot)
        return default if place is None else self._read("<" + kind, place)

    def text(self, slot: int, default: str = "") -> str:
        """Returns a string."""
        found = self._vector(slot, 1)
        if found is None:
            return default
        start, length = found
        return self._data[start : start + length].decode("utf-8", "replace")

    def numbers(self, slot: int, dtype: str) -> np.ndarray:
        """Returns a vector of numbers, [n]; empty where it is absent."""
        kind = np.dtype(dtype)
        found = self._vector(slot, kind.itemsize)
        if found is None:
            return np.zeros(0, kind)
        start, length = found
        return np.frombuffer(self._data, kind, count=length, offset=start)

    def table(self, slot: int) -> Self | None:
        """Returns a table."""
        place = self._place(slot)
        return None if place is None else type(self)(self._data, self._follow(place))

    def tables(self, slot: int) -> list[Self]:
        """Returns a vector of tables."""
        found = self._vector(slot, 4)
        if found is None:
            return []
        start, length = found
        return [type(self)(self._data, self._follow(start + 4 * index)) for index in range(length)]

    def _read(self, kind: str, place: int) -> Any:
        if not 0 <= place <= len(self._data) - struct.calcsize(kind):
            raise Broken("an offset points outside it")
        return struct.unpack_from(kind, self._data, place)[0]

    def _place(self, slot: int) -> int | None:
        """Where a field lies; None: it is absent."""
        entry = 4 + 2 * slot
        if entry + 2 > self._size:
            return None
        offset = self._read("<H", self._fields + entry)
        return self._position + offset if offset else None

    def _follow(self, place: int) -> int:
        return place + self._read("<I", place)

    def _vector(self, slot: int, itemsize: int) -> tuple[int, int] | None:
        """Where a vector's values begin, and how many there are."""
        place = self._place(slot)
        if place is None:
            return None
        start = self._follow(place)
        length = self._read("<I", start)
        if start + 4 + length * itemsize > len(self._data):
            raise Broken("a vector reaches beyond its end")
        return start + 4, length
