"""Anchors: the boxes from which a head's codes count, for images of one size, and objects that fit none. NumPy only."""

import numpy as np

from mnet_jax.models.heads.boxes import HeadPlan, HeadSpec, ImageSize, check_size
from mnet_jax.models.plans import Size

OVERLAP = 0.5  # from which an anchor belongs to an object: SSD (arXiv 1512.02325), torchvision and TensorFlow


def anchors(head: HeadPlan, image_size: ImageSize) -> np.ndarray:
    """Returns all anchors, float32 [A, 4]: (y1, x1, y2, x2) in pixels of the network's input, not clipped.

    In the order of the network's outputs: map by map from the finest, its positions row by row, each with its anchors
    in the order of `head.anchors`.

    The arithmetic is torchvision's, in float32: which of two anchors that overlap an object equally overlaps it the
    most is decided by the last bit, and so is which of them learns to find it.

    Raises:
      ValueError: unless the image has at least 128 pixels a side.
    """
    height, width = size = check_size(image_size)
    found, sides = [], np.array([height, width], np.float32)
    for counts, shapes, stride in zip(head.map_sizes(size), head.anchors, head.strides(), strict=True):
        unit = (stride,) * 2 if head.anchor_unit == "strides" else _unit(head.anchor_unit, size)
        y, x = (_places(head.centres, count, stride, side) for count, side in zip(counts, (height, width), strict=True))
        centres = np.stack(np.meshgrid(y, x, indexing="ij"), -1)[:, :, None]  # [rows, columns, 1, 2], shares
        halves = (np.asarray(shapes) * unit / (height, width)).astype(np.float32) * np.float32(0.5)
        found.append(np.concatenate([(centres - halves) * sides, (centres + halves) * sides], -1).reshape(-1, 4))
    return np.concatenate(found)


def shapes(spec: HeadSpec, image_size: ImageSize) -> np.ndarray:
    """Returns height and width of the anchors of a position of SSD's maps, float64 [S, 2] in pixels of the input."""
    unit = _unit(spec.anchor_unit, check_size(image_size))
    return np.array([shape for of_map in spec.anchors for shape in of_map]) * unit


def fits_some(sides: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Returns bool [N]: which objects an anchor would overlap by half if it lay right over them.

    Args:
      sides: float [N, 2], the objects' heights and widths in pixels of the input.
      shapes: float [S, 2], those of the anchors.
    """
    shared = np.minimum(sides[:, None], shapes).prod(-1)
    return np.any(shared >= OVERLAP * (sides.prod(-1)[:, None] + shapes.prod(-1) - shared), -1)


def _places(rule: str, count: int, stride: int, side: int) -> np.ndarray:
    """Returns where a map's positions lie along a side, as shares of it, float32 [count]; see `HeadPlan.centres`."""
    number = np.arange(count, dtype=np.float32)
    if rule == "cells":
        return (number + np.float32(0.5)) / np.float32(count)
    offset = 0.0 if rule == "edges" and side % stride else 0.5
    return (number + np.float32(offset)) * np.float32(stride) / np.float32(side)


def _unit(name: str, size: Size) -> Size:
    """What an anchor's share of the image is a share of, for heights and for widths."""
    return {"sides": size, "short": (min(size),) * 2}[name]
