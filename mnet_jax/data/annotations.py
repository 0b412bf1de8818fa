"""Kinds of annotation: what an example holds beside its image, and how that follows the image's pixels."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Label:
    """One class an image: int32 scalar."""
