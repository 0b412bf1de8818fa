"""The crops of SSD, which look at the boxes: zoom out, then cut out a part that overlaps with an object.

The rules are those of torchvision's RandomZoomOut and RandomIoUCrop (the paper: "SSD: Single Shot MultiBox Detector",
section 2.2).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from mnet_jax.data.annotations import Parts
from mnet_jax.data.croppers import Cropper, Cut
from mnet_jax.data.tensorflow_setup import tf

LARGEST_CANVAS = 4.0  # zoomed out: sides of the canvas over those of the picture, at most
OPTIONS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # the IoU that an object must have with the part; 1: all is the part
LEAST_SIDE, LARGEST_RATIO = 0.3, 2.0  # of a part's sides, as shares of the canvas's; of width over height, or inverse
TRIALS = 40  # of one option, then another is drawn
# torchvision draws options for ever. Whoever has objects has two options that nearly always succeed, 0 and 1: after ten
# rounds the part is all of the canvas, at most once in 29 images.
ROUNDS = 10
_ZOOM = 4  # draws: whether, how far, and where to in two directions


@dataclasses.dataclass(frozen=True)
class SSD(Cropper):
    """With probability `zoom_out` the picture in a larger canvas of the colour `fill`; then a part of that, resized.

    What counts are objects that have an extent and are not to be ignored. A picture without any is used as a whole.
    """

    zoom_out: float = 0.5
    fill: tuple[int, int, int] = (0, 0, 0)

    num_draws: ClassVar[int] = _ZOOM + ROUNDS * (1 + 4 * TRIALS)
    antialias_above: ClassVar[float] = 2.0
    decode_smaller: ClassVar[bool] = True

    def cut(self, shape: tf.Tensor, draws: tf.Tensor | None, annotations: dict[str, Parts] | None) -> Cut:
        """Returns the part of one picture that is in the cut, and where that lies in the output.

        Raises:
          ValueError: if there are no boxes.
        """
        found = next((parts for parts in (annotations or {}).values() if {"class", "ignore"} <= parts.keys()), None)
        if found is None:
            raise ValueError(
                "data.crop='ssd' looks at the boxes of an image, and there are none here: "
                "type --config.data.crop=inception, or center"
            )
        canvas, origin = zoomed_out(shape, draws[:_ZOOM], self.zoom_out)
        boxes = tf.reshape(found[""], [-1, 4]) * tf.cast(tf.tile(shape, [2]), tf.float32)
        counted = (found["ignore"] <= 0) & tf.reduce_all(boxes[:, 2:] > boxes[:, :2], -1)
        boxes = tf.boolean_mask(boxes, counted) + tf.cast(tf.tile(origin, [2]), tf.float32)
        window = overlapping(canvas, boxes, draws[_ZOOM:])
        return self._placed(window, origin, shape)

    def _placed(self, window: tf.Tensor, origin: tf.Tensor, shape: tf.Tensor) -> Cut:
        """Returns the picture's part in a window of the canvas, and its place, in whole pixels of the output."""
        low = tf.maximum(window[:2], origin)
        high = tf.minimum(window[:2] + window[2:], origin + shape)
        scale = tf.constant(self.size, tf.float64) / tf.cast(window[2:], tf.float64)
        first = tf.cast(tf.round(tf.cast(low - window[:2], tf.float64) * scale), tf.int32)
        last = tf.cast(tf.round(tf.cast(high - window[:2], tf.float64) * scale), tf.int32)
        first = tf.minimum(first, tf.constant(self.size) - 1)
        place = tf.concat([first, tf.maximum(last - first, 1)], 0)
        return Cut(tf.concat([low - origin, high - low], 0), place)


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
