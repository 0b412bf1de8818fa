"""Host side: encoded bytes -> cropped, flipped, resized uint8, as tensorflow graph functions."""

import ml_collections

from mnet_jax.data import crop
from mnet_jax.data.host import tf


def decode(contents: tf.Tensor, box: crop.Box | None = None) -> tf.Tensor:
    """Encoded image (scalar string) -> uint8 [h, w, 3]: the part that `box` chooses (None = all).

    Of a JPEG nothing but that part is decoded.
    """

    def jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(contents)
        window = box(shape[0], shape[1]) if box else tf.stack([0, 0, shape[0], shape[1]])
        return tf.io.decode_and_crop_jpeg(contents, window, channels=3)

    def other() -> tf.Tensor:
        image = tf.io.decode_image(contents, channels=3, expand_animations=False)
        if box is None:
            return image
        shape = tf.shape(image)
        window = box(shape[0], shape[1])
        return tf.slice(image, tf.concat([window[:2], [0]], 0), tf.concat([window[2:], [3]], 0))

    image = tf.cond(tf.strings.substr(contents, 0, 3) == b"\xff\xd8\xff", jpeg, other)
    image.set_shape([None, None, 3])
    return image


def resize(image: tf.Tensor, image_size: tuple[int, int], interpolation: str) -> tf.Tensor:
    """uint8 [h, w, 3] -> uint8 [*image_size, 3]; unchanged if it has that size. Shrinking is antialiased."""

    def resized() -> tf.Tensor:
        scaled = tf.image.resize(image, image_size, interpolation, antialias=True)
        return tf.saturate_cast(tf.round(scaled), tf.uint8)

    image = tf.cond(tf.reduce_all(tf.shape(image)[:2] == image_size), lambda: image, resized)
    return tf.ensure_shape(image, [*image_size, 3])


def train_image(
    contents: tf.Tensor, seed: tf.Tensor, data: ml_collections.ConfigDict, size: tuple[int, int]
) -> tf.Tensor:
    """Encoded image -> random crop and flip, uint8 [*size, 3]; `seed` int64 [2] decides both."""
    crop_seed, flip_seed = tf.unstack(tf.random.split(seed, 2, alg="philox"))
    if data.crop == "inception":
        image = decode(
            contents, lambda h, w: crop.inception_box(h, w, crop_seed, tuple(data.crop_area), tuple(data.crop_ratio))
        )
        image = resize(image, size, data.interpolation)
    elif data.crop == "pad":
        image = resize(decode(contents), size, data.interpolation)
        pad = data.crop_pad
        offset = tf.random.stateless_uniform([2], crop_seed, 0, 2 * pad + 1, tf.int32, alg="philox")
        padded = tf.pad(image, [[pad, pad], [pad, pad], [0, 0]])
        image = tf.slice(padded, tf.concat([offset, [0]], 0), [*size, 3])
    else:
        image = eval_image(contents, data, size)
    if data.flip:
        flip = tf.random.stateless_uniform([], flip_seed, alg="philox") < 0.5
        image = tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)
    return tf.ensure_shape(image, [*size, 3])


def eval_image(contents: tf.Tensor, data: ml_collections.ConfigDict, size: tuple[int, int]) -> tf.Tensor:
    """Encoded image -> its centre, or all of it, uint8 [*size, 3]."""
    image = decode(contents, lambda h, w: crop.center_box(h, w, size, data.eval_crop))
    return resize(image, size, data.interpolation)
