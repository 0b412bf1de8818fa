"""Which part of an image is used: boxes (y, x, height, width), int32 [4], in whole pixels of the upright image."""

from collections.abc import Callable

from mnet_jax.data.host import tf

Box = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]  # (height, width of the image) -> box

_ATTEMPTS = 10  # as torchvision's RandomResizedCrop and TensorFlow's example pipelines


def inception_box(
    height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor, area: tuple[float, float], ratio: tuple[float, float]
) -> tf.Tensor:
    """A random box: its share of the image's area is uniform in `area`, the logarithm of width over height in `ratio`.

    The area is uniform as in "Going deeper with convolutions" (section 6), torchvision and timm;
    `tf.image.sample_distorted_bounding_box` draws the *height* uniformly instead, which gives smaller crops on average.
    The first of ten draws that fits is taken; if none does, the largest central box whose ratio is allowed.
    """
    height_f, width_f = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    draws = tf.random.stateless_uniform([4, _ATTEMPTS], seed, alg="philox")
    pixels = (area[0] + draws[0] * (area[1] - area[0])) * height_f * width_f
    log_low, log_high = tf.math.log(ratio[0]), tf.math.log(ratio[1])
    ratios = tf.exp(log_low + draws[1] * (log_high - log_low))
    heights = tf.maximum(tf.round(tf.sqrt(pixels / ratios)), 1.0)
    widths = tf.maximum(tf.round(tf.sqrt(pixels * ratios)), 1.0)
    fits = (heights <= height_f) & (widths <= width_f)
    first = tf.argmax(fits)
    fallback_h = tf.minimum(height_f, tf.round(width_f / ratio[0]))
    fallback_w = tf.minimum(width_f, tf.round(height_f * ratio[1]))
    found = fits[first]
    box_h = tf.where(found, heights[first], fallback_h)
    box_w = tf.where(found, widths[first], fallback_w)
    room_y, room_x = height_f - box_h, width_f - box_w
    y = tf.where(found, tf.minimum(tf.floor(draws[2, first] * (room_y + 1)), room_y), tf.floor(room_y / 2))
    x = tf.where(found, tf.minimum(tf.floor(draws[3, first] * (room_x + 1)), room_x), tf.floor(room_x / 2))
    return tf.cast(tf.stack([y, x, box_h, box_w]), tf.int32)


def center_box(height: tf.Tensor, width: tf.Tensor, image_size: tuple[int, int], eval_crop: float) -> tf.Tensor:
    """The evaluation box: the largest central box with the shape of `image_size`, shrunk by `eval_crop`.

    1.0 is the full image. Below, for a square `image_size`, the side is `eval_crop` of the short side. Resizing it equals
    the usual "resize the short side to R, crop S at the centre" with eval_crop = S / R (224 / 256 = 0.875), up to the
    rounding of the box to whole pixels.
    """
    if eval_crop == 1.0:
        return tf.stack([0, 0, height, width])
    height_f, width_f = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    scale = eval_crop * tf.minimum(height_f / image_size[0], width_f / image_size[1])
    size = tf.maximum(tf.cast(tf.round(scale * tf.constant(image_size, tf.float32)), tf.int32), 1)
    whole = tf.stack([height, width])
    return tf.concat(
        [(whole - size + 1) // 2, size], 0
    )  # the odd pixel goes above and left, as in TensorFlow's pipelines
