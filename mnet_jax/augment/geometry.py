"""Shears, translations and small rotations of a batch as whole-pixel shifts of rows and columns.

Nearest-neighbour sampling, as RandAugment has it in TensorFlow's and torchvision's versions. A rotation is three
shears (Paeth 1986, "A fast algorithm for general raster rotation"), so every operation is made of two moves: shift each
row, shift each column. Both are cheap everywhere: a gather along one axis on CPU and GPU, and on TPU, where gathers of
single pixels are slow, one select between two slices for each binary digit of the shift.

Images are uint8 [B, H, W, 3]; distances are pixels from the top left corner; what comes from outside is `fill`.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.augment.settings import Effect

EFFECT = Effect.MOVES  # of every operation here

Fill = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class _Shift:
    """A move of all rows (axis 2) or columns (axis 1): entry i of the result is entry i + shift, or the fill outside.

    `amounts` int32 has one shift for each row [B, H] or column [B, W], from `low` to `high`; `size` is the result's
    length along the axis.
    """

    amounts: jax.Array
    axis: int
    size: int
    low: int
    high: int


def shift_rows(images: jax.Array, slope: jax.Array, offset: jax.Array, *, reach: float, fill: Fill) -> jax.Array:
    """Returns images whose row y shows, at x, what was at x + slope * y + offset.

    `slope` and `offset` are float32 [B]; no shift is longer than `reach` pixels.
    """
    height, width = images.shape[1:3]
    amounts = _nearest(slope[:, None] * _centres(0, height) + offset[:, None])
    limit = math.ceil(reach)
    return _apply(images, [_Shift(amounts, 2, width, -limit, limit)], fill)


def shift_columns(images: jax.Array, slope: jax.Array, offset: jax.Array, *, reach: float, fill: Fill) -> jax.Array:
    """Returns images whose column x shows, at y, what was at y + slope * x + offset.

    `slope` and `offset` are float32 [B]; no shift is longer than `reach` pixels.
    """
    height, width = images.shape[1:3]
    amounts = _nearest(slope[:, None] * _centres(0, width) + offset[:, None])
    limit = math.ceil(reach)
    return _apply(images, [_Shift(amounts, 1, height, -limit, limit)], fill)


def rotate(images: jax.Array, sign: jax.Array, *, angle: float, fill: Fill) -> jax.Array:
    """Returns images turned about their centres by `angle` times `sign` [B], counter-clockwise.

    The angle is in radians, at most pi / 4.
    """
    height, width = images.shape[1:3]
    slope, rise = math.tan(angle / 2), math.sin(angle)
    # The first shear moves pixels out of the frame that the last one brings back: keep them on a margin.
    margin = math.ceil(slope * height / 2)
    limit = math.ceil(rise * (width / 2 + margin))
    rows = _nearest(-slope * sign[:, None] * (_centres(0, height) - height / 2))
    columns = _nearest(rise * sign[:, None] * (_centres(-margin, width + margin) - width / 2))
    shifts = [
        _Shift(rows - margin, 2, width + 2 * margin, -2 * margin, 0),
        _Shift(columns, 1, height, -limit, limit),
        _Shift(rows + margin, 2, width, 0, 2 * margin),
    ]
    return _apply(images, shifts, fill)


def _centres(start: int, stop: int) -> jax.Array:
    """Returns the middles of the pixels start..stop - 1, float32 [1, stop - start]."""
    return jnp.arange(start, stop, dtype=jnp.float32)[None, :] + 0.5


def _nearest(shift: jax.Array) -> jax.Array:
    return jnp.floor(shift + 0.5).astype(jnp.int32)


def _apply(images: jax.Array, shifts: Sequence[_Shift], fill: Fill) -> jax.Array:
    """Returns images uint8 [B, H, W, 3] after the shifts, in the form that is fast on the platform."""

    def by_gathers(images: jax.Array) -> jax.Array:
        return _by_gathers(images, shifts, fill)

    def by_selects(images: jax.Array) -> jax.Array:
        return _by_selects(images, shifts, fill)

    return lax.platform_dependent(images, tpu=by_selects, default=by_gathers)


def _by_gathers(images: jax.Array, shifts: Sequence[_Shift], fill: Fill) -> jax.Array:
    """Returns images uint8 [B, H, W, 3] after the shifts: one gather along an axis for each."""
    for shift in shifts:
        place = jnp.expand_dims(jnp.arange(shift.size), tuple({0, 1, 2} - {shift.axis}))
        index = (jnp.expand_dims(shift.amounts, shift.axis) + place)[..., None]
        last = images.shape[shift.axis] - 1
        moved = jnp.take_along_axis(images, jnp.clip(index, 0, last), axis=shift.axis, mode="promise_in_bounds")
        images = jnp.where((index >= 0) & (index <= last), moved, jnp.array(fill, jnp.uint8)[None, None, None])
    return images


def _by_selects(images: jax.Array, shifts: Sequence[_Shift], fill: Fill) -> jax.Array:
    """Returns images uint8 [B, H, W, 3] after the shifts: a select for each binary digit of a shift, highest first.

    A pixel moves as one 32-bit word.
    """
    red, green, blue = (images[..., channel].astype(jnp.int32) for channel in range(3))
    words = red | green << 8 | blue << 16
    blank = jnp.int32(fill[0] | fill[1] << 8 | fill[2] << 16)
    for shift in shifts:
        axis = shift.axis
        amounts = jnp.expand_dims(shift.amounts - shift.low, axis)  # 0 .. high - low
        digits = (shift.high - shift.low).bit_length()
        padding = [(0, 0, 0)] * 3
        padding[axis] = (-shift.low, shift.size + 2**digits - 1 + shift.low - words.shape[axis], 0)  # below 0 it cuts
        words = lax.pad(words, blank, padding)
        for digit in reversed(range(digits)):
            needed = shift.size + 2**digit - 1
            stay = lax.slice_in_dim(words, 0, needed, axis=axis)
            move = lax.slice_in_dim(words, 2**digit, 2**digit + needed, axis=axis)
            words = jnp.where((amounts >> digit & 1) == 1, move, stay)
    return jnp.stack([(words >> place & 255).astype(jnp.uint8) for place in (0, 8, 16)], axis=-1)
