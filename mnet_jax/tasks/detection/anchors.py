"""Anchors: the boxes from which a head's codes count, for images of one size, and objects that fit none. NumPy only."""

import numpy as np

from mnet_jax.models.heads.boxes import HeadPlan, HeadSpec, ImageSize, check_size

OVERLAP = 0.5  # from which an anchor belongs to an object: SSD (arXiv 1512.02325), torchvision and TensorFlow


def anchors(head: HeadPlan, image_size: ImageSize) -> np.ndarray:
    """Returns all anchors, float32 [A, 4]: (y1, x1, y2, x2) in pixels of the network's input, not clipped.

    In the order of the network's outputs: map by map from the finest, its positions row by row, each with its anchors
    in the order of `head.anchors`. Their centres are those of the positions.

    The arithmetic is torchvision's, in float32: which of two anchors that overlap an object equally overlaps it the
    most is decided by the last bit, and so is which of them learns to find it.

    Raises:
      ValueError: unless the image has at least 128 pixels a side.
    """
    height, width = check_size(image_size)
    units = _units(head, height, width)
    found, sides = [], np.array([height, width], np.float32)
    for (rows, columns), shapes in zip(head.map_sizes((height, width)), head.anchors, strict=True):
        y, x = ((np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count) for count in (rows, columns))
        centres = np.stack(np.meshgrid(y, x, indexing="ij"), -1)[:, :, None]  # [rows, columns, 1, 2], shares
        halves = (np.asarray(shapes) * units / (height, width)).astype(np.float32) * np.float32(0.5)
        found.append(np.concatenate([(centres - halves) * sides, (centres + halves) * sides], -1).reshape(-1, 4))
    return np.concatenate(found)


def shapes(spec: HeadSpec, image_size: ImageSize) -> np.ndarray:
    """Returns height and width of the anchors that a position of a head's maps has, float64 [S, 2] in pixels."""
    height, width = check_size(image_size)
    return np.array([shape for of_map in spec.anchors for shape in of_map]) * _units(spec, height, width)


def fits_some(sides: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Returns bool [N]: which objects an anchor would overlap by half if it lay right over them.

    Args:
      sides: float [N, 2], the objects' heights and widths in pixels of the input.
      shapes: float [S, 2], those of the anchors.
    """
    shared = np.minimum(sides[:, None], shapes).prod(-1)
    return np.any(shared >= OVERLAP * (sides.prod(-1)[:, None] + shapes.prod(-1) - shared), -1)


def _units(head: HeadPlan | HeadSpec, height: int, width: int) -> tuple[int, int]:
    """What a share of the image is a share of, for heights and for widths."""
    return (height, width) if head.anchor_unit == "sides" else (min(height, width),) * 2
