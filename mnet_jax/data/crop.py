"""Which part of an image is used: boxes (y, x, height, width), int32 [..., 4], in whole pixels of the upright image.

Of one image, or of many at once: leading axes of the shapes are leading axes of the boxes.
"""

import math
from collections.abc import Callable

from mnet_jax.data.host import tf

Box = Callable[[tf.Tensor], tf.Tensor]  # shapes of images, int32 [..., 2]: height, width -> boxes

ATTEMPTS = 10  # as in torchvision's RandomResizedCrop
NUM_DRAWS = 4 * ATTEMPTS


def whole(shape: tf.Tensor) -> tf.Tensor:
    """All of an image."""
    return tf.concat([tf.zeros_like(shape), shape], -1)


def inception_box(
    shape: tf.Tensor, draws: tf.Tensor, area: tuple[float, float], ratio: tuple[float, float]
) -> tf.Tensor:
    """A random box: its share of the image's area is uniform in `area`, the logarithm of width over height in `ratio`.

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
    """The exponential of float64, from additions and products alone.

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
    """The evaluation box: the largest central box with the shape of `image_size`, shrunk by `eval_crop`.

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
