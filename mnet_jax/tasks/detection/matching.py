"""Which anchor is to find which object; with fixed shapes, whatever the number of objects."""

import jax
import jax.numpy as jnp

from mnet_jax.tasks.detection import coding
from mnet_jax.tasks.detection.anchors import OVERLAP

INSIDE = 0.5  # share of an anchor inside an object to be ignored from which nothing is learned of it


def match(boxes: jax.Array, valid: jax.Array, anchors: jax.Array, *, last_wins: bool = True) -> jax.Array:
    """Returns for each anchor of an image the object that it is to find, int32 [A]; -1: none.

    An anchor takes the object with which it overlaps the most if that is by `OVERLAP`; then each object takes the
    anchor that overlaps it the most, the first of equals, by however little.

    Args:
      boxes: float32 [M, 4] of the objects.
      valid: bool [M], which of them are there.
      anchors: float32 [A, 4].
      last_wins: of several objects that take the same anchor the last one has it, as in torchvision (`SSDMatcher`);
        False: the first, as in TensorFlow's `ArgMaxMatcher`.
    """
    num_anchors, num_boxes = anchors.shape[0], boxes.shape[0]
    valid = valid & (coding.area(boxes) > 0)
    overlap = jnp.where(valid[:, None], coding.iou(boxes, anchors), -1.0)
    found = jnp.where(overlap.max(0) >= OVERLAP, overlap.argmax(0), -1)
    favourites = overlap.argmax(1)[:, None] == jnp.arange(num_anchors)[None]
    number = jnp.arange(num_boxes)[:, None]
    taken = favourites & valid[:, None]
    if last_wins:
        taker = jnp.where(taken, number, -1).max(0)
    else:
        taker = jnp.where(taken, number, num_boxes).min(0)
        taker = jnp.where(taker < num_boxes, taker, -1)
    return jnp.where(taker >= 0, taker, found).astype(jnp.int32)


def inside_ignored(boxes: jax.Array, ignored: jax.Array, anchors: jax.Array) -> jax.Array:
    """Returns which anchors lie by `INSIDE` or more of their area in an object to be ignored, bool [A].

    It is how COCO's evaluation judges a detection inside a crowd, which is neither right nor wrong: what is not judged
    is not taught.

    Args:
      boxes: float32 [M, 4].
      ignored: bool [M], which of them are to be ignored.
      anchors: float32 [A, 4].
    """
    shares = coding.intersection(boxes, anchors) / coding.area(anchors)[None]
    return jnp.any((shares >= INSIDE) & ignored[:, None], 0)
