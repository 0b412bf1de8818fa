"""Host side: encoded bytes -> cropped, flipped, resized uint8. Functions of tensors run eagerly and inside tf.data.

JPEG (also greyscale, CMYK and progressive), PNG (also 16 bits, palettes), GIF (its first frame), BMP and WebP, told
apart by their bytes, not by their names. Transparency is dropped, as in the loaders of torchvision and timm.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator

import ml_collections
import numpy as np

from mnet_jax.data import check, crop, exif, header, order
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
    """The largest of `_REDUCTIONS` that leaves `size` (height, width) at least `reduce_to`; leading axes are kept."""
    fits = tf.reduce_min(size // tf.constant(reduce_to), -1, keepdims=True) >= _REDUCTIONS
    return tf.reduce_max(tf.where(fits, _REDUCTIONS, 1), -1)


def _jpeg_part(contents: tf.Tensor, shape: tf.Tensor, box: tf.Tensor, ratio: tf.Tensor | int) -> tf.Tensor:
    """The box of a JPEG as stored, smaller by one of `_REDUCTIONS`."""
    size = tf.maximum(box[2:] // ratio, 1)
    window, begin = _with_margin(-(-shape // ratio), tf.concat([box[:2] // ratio, size], 0))

    def smaller() -> tf.Tensor:
        ways = [lambda r=r: _decode_window(contents, window, r) for r in _REDUCTIONS[1:]]
        return tf.switch_case(ratio // 4, ways)  # 2, 4, 8 -> 0, 1, 2

    def unreduced() -> tf.Tensor:
        return _decode_window(contents, window, 1)

    part = unreduced() if isinstance(ratio, int) else tf.cond(ratio == 1, unreduced, smaller)
    return tf.slice(part, tf.pad(begin, [[0, 1]]), tf.pad(size, [[0, 1]], constant_values=3))


def _with_margin(shape: tf.Tensor, box: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes int32 [..., 4] with one pixel more on each side, and where in it they begin, [..., 2].

    Colour is stored at half resolution and interpolated from its neighbours.
    """
    start, size = box[..., :2], box[..., 2:]
    low = tf.maximum(start - 1, 0)
    return tf.concat([low, tf.minimum(start + size + 1, shape) - low], -1), start - low


def _decode_window(contents: tf.Tensor, window: tf.Tensor, ratio: int) -> tf.Tensor:
    # The accurate transform is libjpeg's (and Pillow's) default and no slower. A picture that breaks off keeps what
    # there is of it, grey below.
    return tf.io.decode_and_crop_jpeg(
        contents, window, channels=3, ratio=ratio, try_recover_truncated=True, dct_method="INTEGER_ACCURATE"
    )


def resize(image: tf.Tensor, image_size: tuple[int, int], interpolation: str, antialias_above: float) -> tf.Tensor:
    """uint8 [h, w, 3] -> uint8 [*image_size, 3]; unchanged if it has that size.

    An image that shrinks by more than `antialias_above` in height or width is filtered, as Pillow, torchvision and timm
    do it; up to there it is sampled as TensorFlow's training pipelines do, in a third of the time.
    """
    shape = tf.shape(image)[:2]
    image = tf.cond(
        tf.reduce_all(shape == tf.constant(image_size)),
        lambda: image,
        lambda: tf.cond(
            _shrinks(shape, image_size, antialias_above),
            lambda: _resized(image, image_size, interpolation, antialias=True),
            lambda: _resized(image, image_size, interpolation, antialias=False),
        ),
    )
    return tf.ensure_shape(image, [*image_size, 3])


def _shrinks(shape: tf.Tensor, image_size: tuple[int, int], by_more_than: float) -> tf.Tensor:
    """Whether images of these shapes, int32 [..., 2], are resized to so much less, bool [...]."""
    limit = by_more_than * tf.constant(image_size, tf.float32)
    return tf.reduce_any(tf.cast(shape, tf.float32) > limit, -1)


def _resized(image: tf.Tensor, image_size: tuple[int, int], interpolation: str, antialias: bool) -> tf.Tensor:
    scaled = tf.image.resize(image, image_size, interpolation, antialias=antialias) + 0.5
    # Bilinear values stay within those of the image; cubic ones do not.
    return tf.cast(scaled, tf.uint8) if interpolation == "bilinear" else tf.saturate_cast(scaled, tf.uint8)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What can be said about n images before any is decoded, in operations that work on all of them together."""

    way: tf.Tensor  # int32 [n]: the general way, or for upright JPEGs decoded at their own size a short one
    window: tf.Tensor  # int32 [n, 4]: what to decode, with a margin
    begin: tf.Tensor  # int32 [n, 3]: where in it the crop begins
    extent: tf.Tensor  # int32 [n, 3]: the crop's size

    def __iter__(self) -> Iterator[tf.Tensor]:
        return iter((self.way, self.window, self.begin, self.extent))


_GENERAL, _SAMPLED, _FILTERED = 0, 1, 2  # ways; see `resize` for the last two


def _plan(found: header.Headers, box: tf.Tensor, size: tuple[int, int], antialias_above: float, reduce: bool) -> Plan:
    window, begin = _with_margin(found.shape, box)
    zero = tf.zeros_like(box[:, :1])
    way = tf.where(_shrinks(box[:, 2:], size, antialias_above), _FILTERED, _SAMPLED)
    short = found.known & ~found.has_exif
    if reduce:
        short &= _reduction(box[:, 2:], size) == 1
    way = tf.where(short, way, _GENERAL)
    return Plan(way, window, tf.concat([begin, zero], 1), tf.concat([box[:, 2:], zero + 3], 1))


def plan_train(
    contents: tf.Tensor, key: tf.Tensor, index: tf.Tensor, data: ml_collections.ConfigDict, size: tuple[int, int]
) -> tuple[tf.Tensor, Plan | None]:
    """Draws and plans for the crops of encoded images, string [n], with keys and indices int64 [n].

    `data.crop` "pad" has no plan: it uses whole images, small ones and mostly no JPEGs.
    """
    draws = uniform(key, index, 1 + crop.NUM_DRAWS)
    if data.crop == "pad":
        return draws, None
    if data.crop == "center":
        return draws, plan_eval(contents, data, size)
    found = header.read(contents)
    box = crop.inception_box(found.shape, draws[:, 1:], tuple(data.crop_area), tuple(data.crop_ratio))
    return draws, _plan(found, box, size, antialias_above=2.0, reduce=True)


def planned_train_part(
    contents: tf.Tensor, draws: tf.Tensor, plan: Plan | None, data: ml_collections.ConfigDict, size: tuple[int, int]
) -> tf.Tensor:
    """What `planned_train_image` decodes, before it is resized, for measurements: uint8 [h, w, 3]."""

    def general() -> tf.Tensor:
        if data.crop == "inception":
            area, ratio = tuple(data.crop_area), tuple(data.crop_ratio)
            return decode(contents, lambda shape: crop.inception_box(shape, draws[1:], area, ratio), reduce_to=size)
        box = crop.whole if data.crop == "pad" else lambda shape: crop.center_box(shape, size, data.eval_crop)
        return decode(contents, box)

    return general() if plan is None else tf.cond(plan.way == _GENERAL, general, lambda: _planned_part(contents, plan))


def planned_train_image(
    contents: tf.Tensor, draws: tf.Tensor, plan: Plan | None, data: ml_collections.ConfigDict, size: tuple[int, int]
) -> tf.Tensor:
    """`train_image` with one image's part of what `plan_train` says.

    The crop is shrunk by sampling up to a factor of 2 (see `resize`), and a JPEG is decoded smaller beyond.
    """
    if data.crop == "inception":
        area, ratio = tuple(data.crop_area), tuple(data.crop_ratio)

        def general() -> tf.Tensor:
            part = decode(contents, lambda shape: crop.inception_box(shape, draws[1:], area, ratio), reduce_to=size)
            return resize(part, size, data.interpolation, antialias_above=2.0)

        image = _by_plan(contents, plan, general, size, data.interpolation)
    elif data.crop == "pad":
        pad = data.crop_pad
        image = resize(decode(contents, crop.whole), size, data.interpolation, antialias_above=1.0)
        padded = tf.pad(image, [[pad, pad], [pad, pad], [0, 0]])
        offset = tf.cast(draws[1:3] * (2 * pad + 1), tf.int32)
        image = tf.slice(padded, tf.concat([offset, [0]], 0), [*size, 3])
    else:
        image = planned_eval_image(contents, plan, data, size)
    if data.flip:
        image = tf.cond(draws[0] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    return tf.ensure_shape(image, [*size, 3])


def train_image(
    contents: tf.Tensor, key: tf.Tensor, index: tf.Tensor, data: ml_collections.ConfigDict, size: tuple[int, int]
) -> tf.Tensor:
    """Encoded image -> random crop and flip, uint8 [*size, 3], a function of (key, index), two int64 scalars."""
    draws, plan = plan_train(contents[None], key[None], index[None], data, size)
    plan = Plan(*(field[0] for field in plan)) if plan else None
    return planned_train_image(contents, draws[0], plan, data, size)


def uniform(key: tf.Tensor, index: tf.Tensor, count: int) -> tf.Tensor:
    """float32 [n, count] in [0, 1), a function of int64 [n] twice: the upper bits of `order.hash64`.

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


def plan_eval(contents: tf.Tensor, data: ml_collections.ConfigDict, size: tuple[int, int]) -> Plan:
    """Plans for the evaluation boxes of encoded images, string [n]."""
    found = header.read(contents)
    box = crop.center_box(found.shape, size, data.eval_crop)
    return _plan(found, box, size, antialias_above=1.0, reduce=False)


def planned_eval_image(
    contents: tf.Tensor, plan: Plan, data: ml_collections.ConfigDict, size: tuple[int, int]
) -> tf.Tensor:
    """`eval_image` with one image's part of what `plan_eval` says."""

    def general() -> tf.Tensor:
        part = decode(contents, lambda shape: crop.center_box(shape, size, data.eval_crop))
        return resize(part, size, data.interpolation, antialias_above=1.0)

    return _by_plan(contents, plan, general, size, data.interpolation)


def eval_image(contents: tf.Tensor, data: ml_collections.ConfigDict, size: tuple[int, int]) -> tf.Tensor:
    """Encoded image -> its centre, or all of it, uint8 [*size, 3]; shrinking is antialiased."""
    plan = plan_eval(contents[None], data, size)
    return planned_eval_image(contents, Plan(*(field[0] for field in plan)), data, size)


def _by_plan(
    contents: tf.Tensor, plan: Plan, general: Callable[[], tf.Tensor], size: tuple[int, int], interpolation: str
) -> tf.Tensor:
    """uint8 [*size, 3], the short way where there is one. All ways give the same pixels."""

    def short(antialias: bool) -> tf.Tensor:
        return _resized(_planned_part(contents, plan), size, interpolation, antialias)

    return tf.switch_case(plan.way, [general, lambda: short(False), lambda: short(True)])


def _planned_part(contents: tf.Tensor, plan: Plan) -> tf.Tensor:
    part = tf.slice(_decode_window(contents, plan.window, 1), plan.begin, plan.extent)
    return tf.ensure_shape(part, [None, None, 3])


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
