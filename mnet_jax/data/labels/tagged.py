"""What a reader finds: images with the names of their classes."""

from __future__ import annotations

import dataclasses

from mnet_jax.data.folder import LeftOut


@dataclasses.dataclass(frozen=True)
class Tagged:
    """One image; no names: it has none of the classes."""

    path: str  # below the root
    split: str  # "" where its place says none
    names: frozenset[str]
    digest: str | None = None  # of its content, where it is known and the image can be used


@dataclasses.dataclass(frozen=True)
class FoundTags:
    """All that a folder has."""

    kind: str  # where the classes are said, such as "labels.csv"
    class_names: tuple[str, ...]
    images: tuple[Tagged, ...]
    left_out: tuple[LeftOut, ...]  # paths below the root
    note: str = ""
