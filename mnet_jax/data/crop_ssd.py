"""The crops of SSD, which look at the boxes: zoom out, then cut out a part that overlaps with an object.

The rules are those of torchvision's RandomZoomOut and RandomIoUCrop (the paper: "SSD: Single Shot MultiBox Detector",
section 2.2).
"""

from __future__ import annotations

from mnet_jax.data.tensorflow_setup import tf

LARGEST_CANVAS = 4.0  # zoomed out: sides of the canvas over those of the picture, at most
OPTIONS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # the IoU that an object must have with the part; 1: all is the part
LEAST_SIDE, LARGEST_RATIO = 0.3, 2.0  # of a part's sides, as shares of the canvas's; of width over height, or inverse
TRIALS = 40  # of one option, then another is drawn
# torchvision draws options for ever. Whoever has objects has two options that nearly always succeed, 0 and 1: after ten
# rounds the part is all of the canvas, at most once in 29 images.
ROUNDS = 10
ZOOM_DRAWS = 4  # whether, how far, and where to in two directions
NUM_DRAWS = ZOOM_DRAWS + ROUNDS * (1 + 4 * TRIALS)


def zoomed_out(shape: tf.Tensor, draws: tf.Tensor, probability: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the canvas's height and width, and where in it the picture begins, int32 [2] each.

    Args:
      shape: height and width of the picture, int32 [2].
      draws: float32 [4], uniform in [0, 1).
      probability: else the canvas is the picture.
    """
    sides, draws = tf.cast(shape, tf.float64), tf.cast(draws, tf.float64)
    canvas = tf.floor(sides * (1 + (LARGEST_CANVAS - 1) * draws[1]))
    canvas = tf.where(draws[0] < probability, canvas, sides)
    return tf.cast(canvas, tf.int32), tf.cast(tf.floor((canvas - sides) * draws[2:]), tf.int32)


def overlapping(canvas: tf.Tensor, boxes: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Returns a random part (y, x, height, width) of the canvas, int32 [4], that overlaps with a box.

    An option is drawn: how large the intersection over union of the part and one box, of those whose centre is in it,
    must be at least. The first of its trials that fits is taken; if none does another option is drawn.

    Args:
      canvas: height and width, int32 [2].
      boxes: y1, x1, y2, x2 in pixels of the canvas, float32 [k, 4]; k = 0: all of the canvas is the part.
      draws: float32 [ROUNDS * (1 + 4 * TRIALS)], uniform in [0, 1).
    """
    draws = tf.cast(tf.reshape(draws, [ROUNDS, 1 + 4 * TRIALS]), tf.float64)
    option = tf.gather(tf.constant(OPTIONS), tf.cast(draws[:, 0] * len(OPTIONS), tf.int32))  # [ROUNDS]
    tries = tf.reshape(draws[:, 1:], [ROUNDS, TRIALS, 4])
    limits = tf.cast(canvas, tf.float64)
    sizes = tf.floor(limits * (LEAST_SIDE + (1 - LEAST_SIDE) * tries[..., :2]))
    starts = tf.floor((limits - sizes) * tries[..., 2:])
    longer, shorter = tf.reduce_max(sizes, -1), tf.reduce_min(sizes, -1)
    fits = (longer <= LARGEST_RATIO * shorter) & (shorter > 0)

    parts = tf.cast(tf.concat([starts, starts + sizes], -1), tf.float32)[..., None, :]  # [ROUNDS, TRIALS, 1, 4]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = tf.reduce_all((centres > parts[..., :2]) & (centres < parts[..., 2:]), -1)  # [ROUNDS, TRIALS, k]
    common = tf.minimum(boxes[:, 2:], parts[..., 2:]) - tf.maximum(boxes[:, :2], parts[..., :2])
    common = tf.reduce_prod(tf.maximum(common, 0.0), -1)
    areas = [tf.reduce_prod(box[..., 2:] - box[..., :2], -1) for box in (boxes, parts)]
    overlap = tf.where(inside, common / (areas[0] + areas[1] - common), -1.0)
    fits &= tf.reduce_any(overlap >= option[:, None, None], -1)

    ends = (option >= 1.0) | tf.reduce_any(fits, -1)  # [ROUNDS]
    chosen = tf.argmax(ends)  # the first
    whole = ~ends[chosen] | (option[chosen] >= 1.0)
    trial = tf.argmax(fits[chosen])
    part = tf.concat([starts[chosen, trial], sizes[chosen, trial]], 0)
    return tf.cast(tf.where(whole, tf.concat([tf.zeros_like(limits), limits], 0), part), tf.int32)
