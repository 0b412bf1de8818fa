"""Which part of a picture is used, and where it comes to lie in the output: by chance in training, fixed in evaluation.

Boxes are (y, x, height, width), int32 [..., 4], in whole pixels of the upright picture. The functions work on one
picture or on many at once: leading axes of the shapes are leading axes of the boxes.

`data.crop` names a `Cropper`. A new one is a class and a line in `train_cropper`.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import ClassVar, NamedTuple

import ml_collections

from mnet_jax.data import catalog, crop_scale, crop_ssd, order
from mnet_jax.data.annotations import Parts
from mnet_jax.data.tensorflow_setup import tf

ATTEMPTS = 10  # as in torchvision's RandomResizedCrop
NUM_DRAWS = 4 * ATTEMPTS


class Cut(NamedTuple):
    """What a cropper chose; see `crop.Crop`."""

    part: tf.Tensor  # int32 [..., 4]: in the picture, inside it
    place: tf.Tensor  # int32 [..., 4]: in the output; may reach beyond it, or leave some of it over


@dataclasses.dataclass(frozen=True)
class Cropper(abc.ABC):
    """A way to choose a cut. It is a function of its arguments: the same cut again where they are the same."""

    size: tuple[int, int]  # (height, width) of the output

    num_draws: ClassVar[int] = 0  # random numbers that it needs
    # Whether it needs nothing but sizes and draws, and its part fills the output: then many cuts are made at once
    # before the images are decoded, which is faster. Otherwise `annotations` are given, of one example at a time.
    in_bulk: ClassVar[bool] = False
    # A part that shrinks by more than this in height or width is filtered, as Pillow, torchvision and timm do it; up to
    # there it is sampled as TensorFlow's training pipelines do, in a third of the time.
    antialias_above: ClassVar[float] = 1.0
    decode_smaller: ClassVar[bool] = False  # whether a JPEG is decoded 2, 4 or 8 times smaller where that is enough
    fill: ClassVar[tuple[int, int, int]] = (0, 0, 0)  # red, green and blue of what is left over of the output

    @property
    def margin(self) -> int | None:
        """How far a place as large as the output is moved at most, which is done faster; None: any place."""
        return None

    @abc.abstractmethod
    def cut(self, shape: tf.Tensor, draws: tf.Tensor | None, annotations: dict[str, Parts] | None) -> Cut:
        """Returns the cut of pictures with `shape` int32 [..., 2].

        Args:
          shape: height and width.
          draws: float32 [..., num_draws], uniform in [0, 1); None in evaluation.
          annotations: the source's parts by the annotation's name, of one example; None where `in_bulk`.
        """

    def filling(self, part: tf.Tensor) -> Cut:
        """Returns the cut whose part becomes the whole output."""
        place = tf.constant([0, 0, *self.size])
        return Cut(part, tf.broadcast_to(place, tf.shape(part)))


@dataclasses.dataclass(frozen=True)
class Inception(Cropper):
    """A random box of random size and shape, resized: `inception_box`."""

    area: tuple[float, float]
    ratio: tuple[float, float]

    num_draws: ClassVar[int] = NUM_DRAWS
    in_bulk: ClassVar[bool] = True
    antialias_above: ClassVar[float] = 2.0
    decode_smaller: ClassVar[bool] = True

    def cut(self, shape: tf.Tensor, draws: tf.Tensor | None, annotations: dict[str, Parts] | None) -> Cut:
        """Returns a random box that fills the output."""
        return self.filling(inception_box(shape, draws, self.area, self.ratio))


@dataclasses.dataclass(frozen=True)
class Center(Cropper):
    """The centre, or all of the picture, resized: `center_box`. That of the evaluation."""

    share: float

    in_bulk: ClassVar[bool] = True

    def cut(self, shape: tf.Tensor, draws: tf.Tensor | None, annotations: dict[str, Parts] | None) -> Cut:
        """Returns the central box that fills the output."""
        return self.filling(center_box(shape, self.size, self.share))


@dataclasses.dataclass(frozen=True)
class Pad(Cropper):
    """The whole picture, resized and moved by up to `pad` pixels of the output up or down, left or right."""

    pad: int

    num_draws: ClassVar[int] = 2

    @property
    def margin(self) -> int:
        """Returns `pad`."""
        return self.pad

    def cut(self, shape: tf.Tensor, draws: tf.Tensor | None, annotations: dict[str, Parts] | None) -> Cut:
        """Returns the whole picture in a random place."""
        offset = tf.cast(draws * (2 * self.pad + 1), tf.int32)
        return Cut(whole(shape), tf.concat([self.pad - offset, self.size], 0))


@dataclasses.dataclass(frozen=True)
class SSD(Cropper):
    """A part that overlaps with an object, of the picture or of a larger canvas of the colour `fill`: `crop_ssd`.

    What counts are objects that have an extent and are not to be ignored. A picture without any is used as a whole.
    """

    zoom_out: float = 0.5
    fill: tuple[int, int, int] = (0, 0, 0)

    num_draws: ClassVar[int] = crop_ssd.NUM_DRAWS
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
        canvas, origin = crop_ssd.zoomed_out(shape, draws[: crop_ssd.ZOOM_DRAWS], self.zoom_out)
        boxes = tf.reshape(found[""], [-1, 4]) * tf.cast(tf.tile(shape, [2]), tf.float32)
        counted = (found["ignore"] <= 0) & tf.reduce_all(boxes[:, 2:] > boxes[:, :2], -1)
        boxes = tf.boolean_mask(boxes, counted) + tf.cast(tf.tile(origin, [2]), tf.float32)
        window = crop_ssd.overlapping(canvas, boxes, draws[crop_ssd.ZOOM_DRAWS :])
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


@dataclasses.dataclass(frozen=True)
class Scale(Cropper):
    """A window of the picture, larger or smaller by chance, on a ground of the colour `fill`: `crop_scale`."""

    scale: tuple[float, float] = (0.5, 2.0)
    fill: tuple[int, int, int] = (0, 0, 0)

    num_draws: ClassVar[int] = crop_scale.NUM_DRAWS
    antialias_above: ClassVar[float] = 2.0
    decode_smaller: ClassVar[bool] = True

    def cut(self, shape: tf.Tensor, draws: tf.Tensor | None, annotations: dict[str, Parts] | None) -> Cut:
        """Returns the part of one picture that the window shows, and its place there."""
        return Cut(*crop_scale.windowed(shape, draws, self.size, self.scale))


def train_cropper(data: ml_collections.ConfigDict, size: tuple[int, int]) -> Cropper:
    """Returns the cropper that `data.crop` names, for an output of `size` (height, width)."""
    match data.crop:
        case "inception":
            return Inception(size, tuple(data.crop_area), tuple(data.crop_ratio))
        case "pad":
            return Pad(size, data.crop_pad)
        case "center":
            return eval_cropper(data, size)
        case "ssd":
            return SSD(size, zoom_out=data.crop_zoom_out, fill=_mean_colour(data))
        case "scale":
            return Scale(size, scale=tuple(data.crop_scale), fill=_mean_colour(data))
    raise AssertionError(data.crop)  # `config.validate` has looked


def _mean_colour(data: ml_collections.ConfigDict) -> tuple[int, int, int]:
    """Returns red, green and blue of the data set's mean."""
    mean = data.mean or catalog.statistics(data.name)[0]
    red, green, blue = (min(max(round(value), 0), 255) for value in mean)
    return red, green, blue


def eval_cropper(data: ml_collections.ConfigDict, size: tuple[int, int]) -> Cropper:
    """Returns the cropper of the evaluation, for an output of `size` (height, width)."""
    return Center(size, data.eval_crop)


def whole(shape: tf.Tensor) -> tf.Tensor:
    """Returns the box that is all of a picture."""
    return tf.concat([tf.zeros_like(shape), shape], -1)


def inception_box(
    shape: tf.Tensor, draws: tf.Tensor, area: tuple[float, float], ratio: tuple[float, float]
) -> tf.Tensor:
    """Returns a random box: its share of the picture is uniform in `area`, the log of width over height in `ratio`.

    `draws` float32 [..., NUM_DRAWS] are uniform in [0, 1). The area is uniform as in "Going deeper with convolutions"
    (section 6), torchvision and timm; `tf.image.sample_distorted_bounding_box` draws the *height* uniformly instead,
    which makes smaller crops. The first of ten draws that fits is taken; if none does, the largest central box of an
    allowed ratio.
    """
    limits = tf.cast(shape, tf.float64)[..., None, :]
    low = tf.constant([area[0], math.log(ratio[0]), 0.0, 0.0], tf.float64)
    high = tf.constant([area[1], math.log(ratio[1]), 1.0, 1.0], tf.float64)
    tries = tf.reshape(tf.cast(draws, tf.float64), tf.concat([tf.shape(draws)[:-1], [ATTEMPTS, 4]], 0))
    tries = low + tries * (high - low)  # area, log ratio, place down, place right
    side = tf.sqrt(tries[..., :1] * limits[..., :1] * limits[..., 1:])
    stretch = _exp(0.5 * tries[..., 1:2])
    sizes = tf.maximum(tf.round(tf.concat([side / stretch, side * stretch], -1)), 1.0)  # [..., ATTEMPTS, 2]
    fits = tf.reduce_all(sizes <= limits, -1)

    # A last row that always fits.
    widest = tf.round(limits[..., ::-1] * tf.constant([1 / ratio[0], ratio[1]], tf.float64))
    sizes = tf.concat([sizes, tf.maximum(tf.minimum(limits, widest), 1.0)], -2)
    places = tf.concat([tries[..., 2:], tf.fill(tf.shape(limits), tf.constant(0.5, tf.float64))], -2)
    always = tf.ones_like(fits[..., :1])
    chosen = tf.argmax(tf.concat([fits, always], -1), -1)[..., None]
    rank = chosen.shape.rank - 1
    size = tf.gather(sizes, chosen, axis=-2, batch_dims=rank)[..., 0, :]
    place = tf.gather(places, chosen, axis=-2, batch_dims=rank)[..., 0, :]
    room = limits[..., 0, :] - size
    start = tf.minimum(tf.floor(place * (room + 1.0)), room)
    return tf.cast(tf.concat([start, size], -1), tf.int32)


def _exp(x: tf.Tensor) -> tf.Tensor:
    """Returns the exponential of float64, from additions and products alone.

    Those are exact to the last bit in scalar and vector instructions alike, which libraries' exponentials are not: a
    box must not depend on where in a vector its image happens to be.
    """
    x = x / 8.0
    series = tf.ones_like(x)
    for n in range(10, 0, -1):
        series = 1.0 + x * series / n
    for _ in range(3):
        series = series * series  # not a power, which would be the library's again
    return series


def center_box(shape: tf.Tensor, image_size: tuple[int, int], eval_crop: float) -> tf.Tensor:
    """Returns the evaluation box: the largest central box with the shape of `image_size`, shrunk by `eval_crop`.

    1.0 is the full image. Below, for a square `image_size`, the side is `eval_crop` of the short side. To resize it is
    the usual "resize the short side to R, crop S at the centre" with eval_crop = S / R (224 / 256 = 0.875), up to the
    rounding of the box to whole pixels.
    """
    if eval_crop == 1.0:
        return whole(shape)
    target = tf.constant(image_size, tf.float32)
    scale = eval_crop * tf.reduce_min(tf.cast(shape, tf.float32) / target, -1, keepdims=True)
    size = tf.maximum(tf.cast(tf.round(scale * target), tf.int32), 1)
    # an odd pixel goes above and left, as TensorFlow's pipelines do
    return tf.concat([(shape - size + 1) // 2, size], -1)


def uniform(key: tf.Tensor, index: tf.Tensor, count: int) -> tf.Tensor:
    """Returns float32 [n, count] in [0, 1), a function of int64 [n] twice: the upper bits of `order.hash64`.

    Integers, so that a number does not depend on which others are drawn with it.
    """
    words = tf.range(count, dtype=tf.int64)
    state = tf.zeros([1, 1], tf.uint64)
    for word in (key[:, None], index[:, None], words[None]):
        z = tf.bitwise.bitwise_xor(state, tf.bitcast(word, tf.uint64)) + tf.constant(order.STEP, tf.uint64)
        for shift, factor in order.ROUNDS:
            z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(shift, tf.uint64)))
            z = z * tf.constant(factor, tf.uint64)
        state = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(order.LAST_SHIFT, tf.uint64)))
    return tf.cast(tf.bitwise.right_shift(state, tf.constant(40, tf.uint64)), tf.float32) * 2.0**-24
