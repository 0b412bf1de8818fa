"""Anchors and codes as every format but JAX's wants them: in shares of the image's sides."""

import numpy as np

from mnet_jax.deploy.graph import Detections


def centred_anchors(node: Detections) -> np.ndarray:
    """Returns the anchors as (centre y, centre x, height, width), float32 [A, 4], in shares of the image's sides."""
    sides = np.array((*node.image_size, *node.image_size), np.float64)
    shares = node.anchors.astype(np.float64) / sides
    low, high = shares[:, :2], shares[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], 1).astype(np.float32)
