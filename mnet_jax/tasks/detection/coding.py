"""How a box is written relative to an anchor, and how far two boxes overlap.

Boxes are (y1, x1, y2, x2), float32 [..., 4], in any unit; codes are (ty, tx, th, tw), the order of TensorFlow.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Coding:
    """The code of a box against an anchor: its centre in sizes of the anchor, the log of its size over the anchor's.

    torchvision and TensorFlow's Object Detection API code alike, with the scales of Faster R-CNN (10, 10, 5, 5); they
    differ in where a size is cut off when it is decoded.
    """

    centre_scale: float = 10.0
    size_scale: float = 5.0
    largest: float = math.log(1000 / 16)  # of the log of a size, in decoding: that of torchvision's BoxCoder

    def encode(self, boxes: jax.Array, anchors: jax.Array) -> jax.Array:
        """Returns codes float32 [..., A, 4] of boxes [..., A, 4] against anchors [A, 4]; not finite without a size."""
        centres, sizes = _centres(boxes)
        anchor_centres, anchor_sizes = _centres(_beside(anchors, boxes))
        moved = self.centre_scale * (centres - anchor_centres) / anchor_sizes
        return jnp.concatenate([moved, self.size_scale * jnp.log(sizes / anchor_sizes)], -1)

    def decode(self, codes: jax.Array, anchors: jax.Array) -> jax.Array:
        """Returns boxes float32 [..., A, 4] of codes [..., A, 4] against anchors [A, 4], not cut off at the image."""
        anchor_centres, anchor_sizes = _centres(_beside(anchors, codes))
        codes = codes.astype(jnp.float32)
        centres = anchor_centres + anchor_sizes * codes[..., :2] / self.centre_scale
        sizes = anchor_sizes * jnp.exp(jnp.minimum(codes[..., 2:] / self.size_scale, self.largest))
        return jnp.concatenate([centres - sizes / 2, centres + sizes / 2], -1)


TORCHVISION = Coding()
TENSORFLOW = Coding(largest=80.0)  # keeps exp finite and no more (box_coders/faster_rcnn_box_coder.py)


def clip(boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Returns boxes [..., 4] cut off at an image of `size` (height, width)."""
    return jnp.clip(boxes, 0.0, _beside(np.array([*size, *size], np.float32), boxes))


def area(boxes: jax.Array) -> jax.Array:
    """Returns height times width [...] of boxes [..., 4]; 0 where a side is turned round."""
    return jnp.maximum(boxes[..., 2] - boxes[..., 0], 0) * jnp.maximum(boxes[..., 3] - boxes[..., 1], 0)


def intersection(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the common area [..., N, M] of each of the boxes [..., N, 4] with each of [..., M, 4]."""
    first, second = first[..., :, None, :], second[..., None, :, :]
    low, high = jnp.maximum(first[..., :2], second[..., :2]), jnp.minimum(first[..., 2:], second[..., 2:])
    return jnp.maximum(high[..., 0] - low[..., 0], 0) * jnp.maximum(high[..., 1] - low[..., 1], 0)


def iou(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns intersection over union [..., N, M] of boxes [..., N, 4] and [..., M, 4]; 0 where there is no union."""
    common = intersection(first, second)
    union = area(first)[..., :, None] + area(second)[..., None, :] - common
    return jnp.where(union > 0, common / jnp.where(union > 0, union, 1), 0)


def paired_iou(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns intersection over union [...] of each box of [..., 4] with its partner in [..., 4]."""
    low, high = jnp.maximum(first[..., :2], second[..., :2]), jnp.minimum(first[..., 2:], second[..., 2:])
    common = jnp.maximum(high[..., 0] - low[..., 0], 0) * jnp.maximum(high[..., 1] - low[..., 1], 0)
    union = area(first) + area(second) - common
    return jnp.where(union > 0, common / jnp.where(union > 0, union, 1), 0)


def _beside(values: np.ndarray | jax.Array, others: jax.Array) -> jax.Array:
    """Returns the values with as many leading axes of length 1 as others have more."""
    return jnp.asarray(values).reshape((1,) * (others.ndim - values.ndim) + values.shape)


def _centres(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (centres, sizes), [..., 2] each, of boxes [..., 4]."""
    sizes = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sizes / 2, sizes
