"""Host side: encoded bytes -> cropped, flipped, resized uint8. Functions of tensors run eagerly and inside tf.data.

JPEG (also greyscale, CMYK and progressive), PNG (also 16 bits, palettes), GIF (its first frame), BMP and WebP, told
apart by their bytes, not by their names. Transparency is dropped, as in the loaders of torchvision and timm.
"""

import os

import ml_collections
import numpy as np

from mnet_jax.data import check, crop, exif
from mnet_jax.data.host import tf

_JPEG = b"\xff\xd8\xff"
_REDUCTIONS = (1, 2, 4, 8)  # the JPEG decoder shrinks by these while it decodes


def decode(contents: tf.Tensor, box: crop.Box, reduce_to: tuple[int, int] | None = None) -> tf.Tensor:
    """Encoded image (scalar string) -> the part of it that `box` chooses, upright, uint8 [h, w, 3].

    Of a JPEG nothing but that part is decoded, with the same pixels as if it were cut from the whole. With `reduce_to`
    (height, width) a JPEG comes out 2, 4 or 8 times smaller where both sides stay at least so long: in training, what
    is shrunk afterwards anyway need not be decoded.
    """

    def jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(contents)[:2]
        orientation = exif.orientation(contents)
        upright = orientation == 1
        window = box(tf.cond(upright, lambda: shape, lambda: exif.upright_shape(shape, orientation)))
        ratio = 1 if reduce_to is None else _reduction(window[2:], reduce_to)
        stored = tf.cond(upright, lambda: window, lambda: exif.stored_box(window, shape, orientation))
        image = _jpeg_part(contents, shape, stored, ratio)
        return tf.cond(upright, lambda: image, lambda: exif.make_upright(image, orientation))

    def other() -> tf.Tensor:
        image = tf.io.decode_image(contents, channels=3, expand_animations=False)
        window = box(tf.shape(image)[:2])
        return tf.slice(image, tf.concat([window[:2], [0]], 0), tf.concat([window[2:], [3]], 0))

    image = tf.cond(tf.strings.substr(contents, 0, 3) == _JPEG, jpeg, other)
    image.set_shape([None, None, 3])
    return image


def _reduction(size: tf.Tensor, reduce_to: tuple[int, int]) -> tf.Tensor:
    """The largest of `_REDUCTIONS` that leaves `size` (height, width) at least `reduce_to`."""
    fits = tf.reduce_min(size // tf.constant(reduce_to)) >= _REDUCTIONS
    return tf.reduce_max(tf.where(fits, _REDUCTIONS, 1))


def _jpeg_part(contents: tf.Tensor, shape: tf.Tensor, box: tf.Tensor, ratio: tf.Tensor | int) -> tf.Tensor:
    """The box of a JPEG as stored, smaller by one of `_REDUCTIONS`."""
    start, size = box[:2] // ratio, tf.maximum(box[2:] // ratio, 1)
    # One pixel more on each side: colour is stored at half resolution and interpolated from its neighbours.
    low = tf.maximum(start - 1, 0)
    window = tf.concat([low, tf.minimum(start + size + 1, -(-shape // ratio)) - low], 0)

    def at(ratio: int) -> tf.Tensor:
        # The accurate transform is libjpeg's (and Pillow's) default and no slower. A picture that breaks off keeps what
        # there is of it, grey below.
        return tf.io.decode_and_crop_jpeg(
            contents, window, channels=3, ratio=ratio, try_recover_truncated=True, dct_method="INTEGER_ACCURATE"
        )

    def smaller() -> tf.Tensor:
        return tf.switch_case(ratio // 4, [lambda r=r: at(r) for r in _REDUCTIONS[1:]])  # 2, 4, 8 -> 0, 1, 2

    part = at(1) if isinstance(ratio, int) else tf.cond(ratio == 1, lambda: at(1), smaller)
    return tf.slice(part, tf.pad(start - low, [[0, 1]]), tf.pad(size, [[0, 1]], constant_values=3))


def resize(image: tf.Tensor, image_size: tuple[int, int], interpolation: str, antialias_above: float) -> tf.Tensor:
    """uint8 [h, w, 3] -> uint8 [*image_size, 3]; unchanged if it has that size.

    An image that shrinks by more than `antialias_above` in height or width is filtered, as Pillow, torchvision and timm
    do it; up to there it is sampled as TensorFlow's training pipelines do, in a third of the time.
    """

    def resized(antialias: bool) -> tf.Tensor:
        scaled = tf.image.resize(image, image_size, interpolation, antialias=antialias) + 0.5
        # Bilinear values stay within those of the image; cubic ones do not.
        return tf.cast(scaled, tf.uint8) if interpolation == "bilinear" else tf.saturate_cast(scaled, tf.uint8)

    shape, target = tf.shape(image)[:2], tf.constant(image_size)
    shrinks = tf.reduce_any(tf.cast(shape, tf.float32) > antialias_above * tf.cast(target, tf.float32))
    image = tf.cond(
        tf.reduce_all(shape == target),
        lambda: image,
        lambda: tf.cond(shrinks, lambda: resized(True), lambda: resized(False)),
    )
    return tf.ensure_shape(image, [*image_size, 3])


def train_image(
    contents: tf.Tensor, key: tf.Tensor, index: tf.Tensor, data: ml_collections.ConfigDict, size: tuple[int, int]
) -> tf.Tensor:
    """Encoded image -> random crop and flip, uint8 [*size, 3], a function of (key, index), two int64 scalars.

    The crop is shrunk by sampling up to a factor of 2 (see `resize`), and a JPEG is decoded smaller beyond.
    """
    draws = _uniform(key, index, crop.NUM_DRAWS + 1)
    if data.crop == "inception":
        area, ratio = tuple(data.crop_area), tuple(data.crop_ratio)
        image = decode(contents, lambda shape: crop.inception_box(shape, draws[1:], area, ratio), reduce_to=size)
        image = resize(image, size, data.interpolation, antialias_above=2.0)
    elif data.crop == "pad":
        pad = data.crop_pad
        image = resize(decode(contents, crop.whole), size, data.interpolation, antialias_above=1.0)
        padded = tf.pad(image, [[pad, pad], [pad, pad], [0, 0]])
        offset = tf.cast(draws[1:3] * (2 * pad + 1), tf.int32)
        image = tf.slice(padded, tf.concat([offset, [0]], 0), [*size, 3])
    else:
        image = eval_image(contents, data, size)
    if data.flip:
        image = tf.cond(draws[0] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    return tf.ensure_shape(image, [*size, 3])


def _uniform(key: tf.Tensor, index: tf.Tensor, count: int) -> tf.Tensor:
    """float32 [count] in [0, 1), a function of two int64 scalars: Philox, with the index in the counter's high word."""
    counter = tf.bitcast(tf.stack([0, index]), tf.uint64)
    key = tf.bitcast(key, tf.uint64)[None]
    return tf.raw_ops.StatelessRandomUniformV2(shape=[count], key=key, counter=counter, alg=1)


def eval_image(contents: tf.Tensor, data: ml_collections.ConfigDict, size: tuple[int, int]) -> tf.Tensor:
    """Encoded image -> its centre, or all of it, uint8 [*size, 3]; shrinking is antialiased."""
    image = decode(contents, lambda shape: crop.center_box(shape, size, data.eval_crop))
    return resize(image, size, data.interpolation, antialias_above=1.0)


def load_image(source: str | os.PathLike | bytes) -> np.ndarray:
    """Reads one image, from a path (also gs://) or from its bytes: upright uint8 [H, W, 3], as the pipeline sees it."""
    name, contents = "these bytes", source
    if not isinstance(source, bytes):
        name = os.fspath(source)
        try:
            contents = tf.io.read_file(name).numpy()
        except tf.errors.OpError as error:
            raise ValueError(f"no such image: {name}") from error
    try:
        if not check.has_palette(contents):
            return decode(tf.constant(contents), crop.whole).numpy()
    except tf.errors.OpError:
        pass  # what is wrong with it is said below
    raise ValueError(f"cannot read {name}: {check.fault(contents)}; JPEG, PNG, GIF, BMP or WebP expected")


def eval_crop(image: np.ndarray, image_size: tuple[int, int], eval_crop: float, interpolation: str) -> np.ndarray:
    """An image from `load_image` -> what the evaluation pipeline makes of the same file, uint8 [*image_size, 3]."""
    y, x, height, width = crop.center_box(tf.constant(image.shape[:2]), image_size, eval_crop).numpy()
    part = tf.constant(image[y : y + height, x : x + width])
    return resize(part, image_size, interpolation, antialias_above=1.0).numpy()
