"""Which part of an image is used: boxes (y, x, height, width), int32 [4], in whole pixels of the upright image."""

import math
from collections.abc import Callable

from mnet_jax.data.host import tf

Box = Callable[[tf.Tensor], tf.Tensor]  # shape of the image, int32 [2]: height, width -> box

ATTEMPTS = 10  # as in torchvision's RandomResizedCrop
NUM_DRAWS = 4 * ATTEMPTS


def whole(shape: tf.Tensor) -> tf.Tensor:
    """All of an image."""
    return tf.concat([[0, 0], shape], 0)


def inception_box(
    shape: tf.Tensor, draws: tf.Tensor, area: tuple[float, float], ratio: tuple[float, float]
) -> tf.Tensor:
    """A random box: its share of the image's area is uniform in `area`, the logarithm of width over height in `ratio`.

    `draws` float32 [NUM_DRAWS] are uniform in [0, 1). The area is uniform as in "Going deeper with convolutions"
    (section 6), torchvision and timm; `tf.image.sample_distorted_bounding_box` draws the *height* uniformly instead,
    which makes smaller crops. The first of ten draws that fits is taken; if none does, the largest central box of an
    allowed ratio.
    """
    limits = tf.cast(shape, tf.float32)
    low = tf.constant([area[0], math.log(ratio[0]), 0.0, 0.0])
    high = tf.constant([area[1], math.log(ratio[1]), 1.0, 1.0])
    tries = low + tf.reshape(draws, [ATTEMPTS, 4]) * (high - low)  # area, log ratio, place down, place right
    halves = tf.constant([[-0.5, 0.5]])
    sides = tf.sqrt(tries[:, :1] * tf.reduce_prod(limits)) * tf.exp(tries[:, 1:2] * halves)
    sizes = tf.maximum(tf.round(sides), 1.0)  # [ATTEMPTS, 2]: height, width
    fits = tf.reduce_all(sizes <= limits, 1)

    # A last row that always fits.
    widest = tf.round(limits[::-1] * tf.constant([1 / ratio[0], ratio[1]]))
    sizes = tf.concat([sizes, tf.maximum(tf.minimum(limits, widest), 1.0)[None]], 0)
    places = tf.pad(tries[:, 2:], [[0, 1], [0, 0]], constant_values=0.5)
    chosen = tf.argmax(tf.concat([fits, [True]], 0))
    size, place = sizes[chosen], places[chosen]
    room = limits - size
    start = tf.minimum(tf.floor(place * (room + 1.0)), room)
    return tf.cast(tf.concat([start, size], 0), tf.int32)


def center_box(shape: tf.Tensor, image_size: tuple[int, int], eval_crop: float) -> tf.Tensor:
    """The evaluation box: the largest central box with the shape of `image_size`, shrunk by `eval_crop`.

    1.0 is the full image. Below, for a square `image_size`, the side is `eval_crop` of the short side. To resize it is
    the usual "resize the short side to R, crop S at the centre" with eval_crop = S / R (224 / 256 = 0.875), up to the
    rounding of the box to whole pixels.
    """
    if eval_crop == 1.0:
        return whole(shape)
    target = tf.constant(image_size, tf.float32)
    scale = eval_crop * tf.reduce_min(tf.cast(shape, tf.float32) / target)
    size = tf.maximum(tf.cast(tf.round(scale * target), tf.int32), 1)
    return tf.concat(
        [(shape - size + 1) // 2, size], 0
    )  # an odd pixel goes above and left, as TensorFlow's pipelines do
