"""One encoded image becomes the same image with a short side of so many pixels, as a JPEG."""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from PIL import Image

from mnet_jax.data import croppers, decode, formats, jpeg, pictures
from mnet_jax.data.tensorflow_setup import tf
from mnet_jax.runtime import num_cores

_T, _R = TypeVar("_T"), TypeVar("_R")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a set is prepared."""

    short_side: int | None = 256  # pixels; images that are no larger, or with None all, stay as they are, byte for byte
    quality: int = 90  # of the JPEGs, 1 .. 100; their colour is stored at half resolution
    interpolation: str = "bilinear"  # or "bicubic"; filtered, as in evaluation

    def __post_init__(self) -> None:
        if self.short_side is not None and not 32 <= self.short_side <= 4096:
            raise ValueError(f"short side {self.short_side}: give 32 to 4096 pixels")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality {self.quality}: give 1 to 100")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation {self.interpolation!r}: give 'bilinear' or 'bicubic'")


def shrinker(settings: Settings) -> Callable[[bytes], bytes]:
    """Returns a function of one image's bytes, to be called from any thread.

    It returns an upright JPEG, or the bytes it was given where the image is no larger than asked for and upright. It
    raises ValueError, which says why, for what is not an image.
    """
    short = settings.short_side
    if short is None:
        return _unchanged

    kernel = Image.Resampling.BILINEAR if settings.interpolation == "bilinear" else Image.Resampling.BICUBIC

    def decoded(contents: tf.Tensor) -> tf.Tensor:
        """Returns the upright picture, perhaps reduced; [0, 0, 3] of one that stays as it is."""
        height, width, upright = _form(contents)
        # While it is decoded a JPEG is shrunk to at least twice the wanted size: the filter does the rest.
        return tf.cond(
            upright & (tf.minimum(height, width) <= short),
            lambda: tf.zeros([0, 0, 3], tf.uint8),
            lambda: decode.decode(contents, croppers.whole, reduce_to=(2 * short, 2 * short)),
        )

    function = tf.function(decoded, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)

    def shrink(contents: bytes) -> bytes:
        try:
            image = function(tf.constant(contents)).numpy()
            if not image.size:
                return _unchanged(contents)
            height, width = image.shape[:2]
            scale = min(short / min(height, width), 1.0)  # what is small, but not upright, keeps its size
            size = (max(round(width * scale), 1), max(round(height * scale), 1))
            # Pillow's filter is tensorflow's with antialiasing, in integers: less than half its time.
            scaled = np.asarray(Image.fromarray(image).resize(size, kernel))
            return tf.io.encode_jpeg(scaled, quality=settings.quality, chroma_downsampling=True).numpy()
        except tf.errors.OpError as error:
            raise ValueError(formats.fault(contents) or error.message.splitlines()[0]) from error

    return shrink


def _form(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns height, width and whether it is stored as it is shown."""

    def from_jpeg() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        shape = tf.io.extract_jpeg_shape(contents)
        return shape[0], shape[1], jpeg.orientation(contents) == 1

    def from_other() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        shape = tf.shape(pictures.decode(contents))
        return shape[0], shape[1], pictures.is_plain(contents)

    return tf.cond(tf.strings.substr(contents, 0, len(jpeg.MAGIC)) == jpeg.MAGIC, from_jpeg, from_other)


def _unchanged(contents: bytes) -> bytes:
    """Returns the bytes it was given. Raises ValueError, which says why, for what is not an image."""
    _check_whole(contents)
    return contents


def _check_whole(contents: bytes) -> None:
    """Raises ValueError for a broken image: what stays as it is was not decoded, and must not pass for a small one."""
    if not jpeg.is_whole(contents[: 1 << 16], contents[-2:]) and (fault := formats.fault(contents)):
        raise ValueError(fault)


def in_order(function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[tuple[_T, _R | ValueError]]:
    """Yields (item, result or what is wrong with it) in the order of the items; a few are under way at once."""

    def guarded(item: _T) -> _R | ValueError:
        try:
            return function(item)
        except ValueError as error:
            return error

    waiting: collections.deque = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(num_cores())
    try:
        for item in items:
            waiting.append((item, pool.submit(guarded, item)))
            if len(waiting) > 4 * num_cores():
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
