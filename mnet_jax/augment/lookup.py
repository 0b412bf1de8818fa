"""Colour operations that look every value up in a table made from the image's own histogram.

Counting and looking up are a scatter and a gather on CPU and GPU; TPUs, which have no fast form of either, take matrix
products of one-hot hexadecimal digits instead. The results are the same whole numbers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def equalize(images: jax.Array) -> jax.Array:
    """`ImageOps.equalize` of uint8 [B, H, W, C]: each channel spread so that all values are about equally frequent."""
    return _through_table(images, _equalizing_table)


def autocontrast(images: jax.Array) -> jax.Array:
    """`ImageOps.autocontrast` of uint8 [B, H, W, C]: each channel stretched to 0..255; one of a single value stays."""
    return _through_table(images, _stretching_table)


def equalize_or_stretch(images: jax.Array, stretch: jax.Array) -> jax.Array:
    """`autocontrast` where `stretch` (bool [B]), `equalize` elsewhere, for the price of one of them."""

    def table(histogram: jax.Array) -> jax.Array:
        return jnp.where(stretch[:, None, None], _stretching_table(histogram), _equalizing_table(histogram))

    return _through_table(images, table)


def _through_table(images: jax.Array, make_table: Callable[[jax.Array], jax.Array]) -> jax.Array:
    batch, height, width, channels = images.shape
    values = images.reshape(batch, height * width, channels)
    histogram = lax.platform_dependent(values, tpu=_count_by_products, default=_count_by_scatter)
    table = make_table(histogram)
    result = lax.platform_dependent(values, table, tpu=_look_up_by_products, default=_look_up_by_gather)
    return result.reshape(images.shape)


def _equalizing_table(histogram: jax.Array) -> jax.Array:
    """PIL's rule: histogram int32 [B, C, 256] -> the new value of each old one, uint8 [B, C, 256]."""
    last = 255 - jnp.argmax(histogram[..., ::-1] > 0, axis=-1, keepdims=True)
    total = jnp.sum(histogram, axis=-1, keepdims=True)
    step = (total - jnp.take_along_axis(histogram, last, axis=-1)) // 255
    below = jnp.cumsum(histogram, axis=-1) - histogram
    new = jnp.clip((step // 2 + below) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, new, jnp.arange(256)[None, None]).astype(jnp.uint8)


def _stretching_table(histogram: jax.Array) -> jax.Array:
    """PIL's rule, in whole numbers instead of doubles: at most 1 higher, where PIL's rounding error falls below one."""
    low = jnp.argmax(histogram > 0, axis=-1, keepdims=True)
    high = 255 - jnp.argmax(histogram[..., ::-1] > 0, axis=-1, keepdims=True)
    values = jnp.arange(256)[None, None]
    new = jnp.clip((values - low) * 255 // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, new, values).astype(jnp.uint8)


def _cells(values: jax.Array) -> jax.Array:
    """Values uint8 [B, P, C] -> the places of their counts in histograms of [C, 256] each, int32 [B, P, C]."""
    return values.astype(jnp.int32) + 256 * jnp.arange(values.shape[-1])[None, None]


def _count_by_scatter(values: jax.Array) -> jax.Array:
    """How often each value of uint8 [B, P, C] occurs, int32 [B, C, 256]."""
    batch, _, channels = values.shape
    cells = _cells(values) + channels * 256 * jnp.arange(batch)[:, None, None]
    counts = jnp.zeros(batch * channels * 256, jnp.int32).at[cells.reshape(-1)].add(1, mode="promise_in_bounds")
    return counts.reshape(batch, channels, 256)


def _look_up_by_gather(values: jax.Array, table: jax.Array) -> jax.Array:
    """Values uint8 [B, P, C] through tables uint8 [B, C, 256]."""
    batch, pixels, channels = values.shape
    cells = _cells(values).reshape(batch, pixels * channels)
    found = jnp.take_along_axis(table.reshape(batch, channels * 256), cells, axis=1, mode="promise_in_bounds")
    return found.reshape(values.shape)


def _digits(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two hexadecimal digits of uint8 [B, P, C], each one-hot in bfloat16 [B, C, 16, P]."""
    values = values.swapaxes(1, 2)[:, :, None]
    places = jnp.arange(16, dtype=jnp.uint8)[None, None, :, None]
    return (values >> 4 == places).astype(jnp.bfloat16), (values & 15 == places).astype(jnp.bfloat16)


def _count_by_products(values: jax.Array) -> jax.Array:
    """As `_count_by_scatter`: entry [i, j] counts how often the digits i and j meet; exact below 2^24 pixels."""
    high, low = _digits(values)
    counts = jnp.einsum("bcip,bcjp->bcij", high, low, preferred_element_type=jnp.float32)
    return counts.astype(jnp.int32).reshape(*counts.shape[:2], 256)


def _look_up_by_products(values: jax.Array, table: jax.Array) -> jax.Array:
    """As `_look_up_by_gather`: bfloat16 holds 0..255 exactly, and only one term of each sum is not zero."""
    high, low = _digits(values)
    squares = table.astype(jnp.bfloat16).reshape(*table.shape[:2], 16, 16)
    rows = jnp.einsum("bcij,bcip->bcjp", squares, high, preferred_element_type=jnp.float32)
    return jnp.sum(rows * low.astype(jnp.float32), axis=2).astype(jnp.uint8).swapaxes(1, 2)
