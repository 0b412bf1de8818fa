"""Anchors: the boxes from which a head's codes count, for images of one size. NumPy only."""

import numpy as np

from mnet_jax.models.heads.boxes import HeadPlan, ImageSize, check_size


def anchors(head: HeadPlan, image_size: ImageSize) -> np.ndarray:
    """Returns all anchors, float32 [A, 4]: (y1, x1, y2, x2) in pixels of the network's input, not clipped.

    In the order of the network's outputs: map by map from the finest, its positions row by row, each with its anchors
    in the order of `head.anchors`. Their centres are those of the positions.

    Raises:
      ValueError: unless the image has at least 128 pixels a side.
    """
    height, width = check_size(image_size)
    units = (height, width) if head.anchor_unit == "sides" else (min(height, width),) * 2
    found = []
    for (rows, columns), shapes in zip(head.map_sizes((height, width)), head.anchors, strict=True):
        y = (np.arange(rows) + 0.5) * (height / rows)
        x = (np.arange(columns) + 0.5) * (width / columns)
        centres = np.stack(np.meshgrid(y, x, indexing="ij"), -1)[:, :, None]  # [rows, columns, 1, 2]
        halves = np.asarray(shapes, np.float64) * np.asarray(units, np.float64) / 2
        found.append(np.concatenate([centres - halves, centres + halves], -1).reshape(-1, 4))
    return np.concatenate(found).astype(np.float32)
