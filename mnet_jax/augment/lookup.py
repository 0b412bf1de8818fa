"""Colour operations that look every value up in a table made from the image's own histogram.

Counting and looking up are a scatter and a gather on CPU and GPU; TPUs, which have no fast form of either, take matrix
products of one-hot hexadecimal digits instead. The results are the same whole numbers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.augment.settings import Effect

EFFECT = Effect.RECOLOURS  # of every operation here


def equalize(images: jax.Array) -> jax.Array:
    """Returns `ImageOps.equalize` of uint8 [B, H, W, C]: in each channel all values become about equally frequent."""
    return _through_table(images, _equalizing_table)


def autocontrast(images: jax.Array) -> jax.Array:
    """Returns `ImageOps.autocontrast` of uint8 [B, H, W, C]: each channel stretched to 0..255; a single value stays."""
    return _through_table(images, _stretching_table)


def equalize_or_stretch(images: jax.Array, stretch: jax.Array) -> jax.Array:
    """Returns `autocontrast` of the images where `stretch`, bool [B], is true, `equalize` of the others.

    It takes as long as one of them, of all images.
    """

    def table(histogram: jax.Array) -> jax.Array:
        return jnp.where(stretch[:, None, None], _stretching_table(histogram), _equalizing_table(histogram))

    return _through_table(images, table)


def _through_table(images: jax.Array, make_table: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Returns images with each value looked up in its channel's table, made from histograms int32 [B, C, 256]."""
    batch, height, width, channels = images.shape
    values = images.reshape(batch, height * width, channels)
    histogram = lax.platform_dependent(values, tpu=_count_by_products, default=_count_by_scatter)
    table = make_table(histogram)
    result = lax.platform_dependent(values, table, tpu=_look_up_by_products, default=_look_up_by_gather)
    return result.reshape(images.shape)


def _equalizing_table(histogram: jax.Array) -> jax.Array:
    """Returns the new value of each old one by PIL's rule, uint8 [B, C, 256], of histograms int32 [B, C, 256]."""
    last = 255 - jnp.argmax(histogram[..., ::-1] > 0, axis=-1, keepdims=True)
    total = jnp.sum(histogram, axis=-1, keepdims=True)
    step = (total - jnp.take_along_axis(histogram, last, axis=-1)) // 255
    below = jnp.cumsum(histogram, axis=-1) - histogram
    new = jnp.clip((step // 2 + below) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, new, jnp.arange(256)[None, None]).astype(jnp.uint8)


def _stretching_table(histogram: jax.Array) -> jax.Array:
    """Returns the new value of each old one, uint8 [B, C, 256], of histograms int32 [B, C, 256].

    PIL's rule in whole numbers instead of doubles: at most 1 higher, where PIL's rounding error falls below one.
    """
    low = jnp.argmax(histogram > 0, axis=-1, keepdims=True)
    high = 255 - jnp.argmax(histogram[..., ::-1] > 0, axis=-1, keepdims=True)
    values = jnp.arange(256)[None, None]
    new = jnp.clip((values - low) * 255 // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, new, values).astype(jnp.uint8)


def _cells(values: jax.Array) -> jax.Array:
    """Returns the places of values uint8 [B, P, C] in their images' histograms [C, 256], int32 [B, P, C]."""
    return values.astype(jnp.int32) + 256 * jnp.arange(values.shape[-1])[None, None]


def _count_by_scatter(values: jax.Array) -> jax.Array:
    """Returns how often each value of uint8 [B, P, C] occurs, int32 [B, C, 256]."""
    batch, _, channels = values.shape
    cells = _cells(values) + channels * 256 * jnp.arange(batch)[:, None, None]
    counts = jnp.zeros(batch * channels * 256, jnp.int32).at[cells.reshape(-1)].add(1, mode="promise_in_bounds")
    return counts.reshape(batch, channels, 256)


def _look_up_by_gather(values: jax.Array, table: jax.Array) -> jax.Array:
    """Returns the entries of tables uint8 [B, C, 256] for values uint8 [B, P, C], uint8 [B, P, C]."""
    batch, pixels, channels = values.shape
    cells = _cells(values).reshape(batch, pixels * channels)
    found = jnp.take_along_axis(table.reshape(batch, channels * 256), cells, axis=1, mode="promise_in_bounds")
    return found.reshape(values.shape)


def _digits(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the two hexadecimal digits of uint8 [B, P, C], each one-hot in bfloat16 [B, C, 16, P]."""
    values = values.swapaxes(1, 2)[:, :, None]
    places = jnp.arange(16, dtype=jnp.uint8)[None, None, :, None]
    return (values >> 4 == places).astype(jnp.bfloat16), (values & 15 == places).astype(jnp.bfloat16)


def _count_by_products(values: jax.Array) -> jax.Array:
    """Returns how often each value of uint8 [B, P, C] occurs, int32 [B, C, 256]; exact below 2^24 pixels.

    The product of the digits counts at [i, j] how often digit i stands before digit j.
    """
    high, low = _digits(values)
    counts = jnp.einsum("bcip,bcjp->bcij", high, low, preferred_element_type=jnp.float32)
    return counts.astype(jnp.int32).reshape(*counts.shape[:2], 256)


def _look_up_by_products(values: jax.Array, table: jax.Array) -> jax.Array:
    """Returns the entries of tables uint8 [B, C, 256] for values uint8 [B, P, C], uint8 [B, P, C].

    bfloat16 holds 0..255 exactly, and only one term of each sum is not zero.
    """
    high, low = _digits(values)
    squares = table.astype(jnp.bfloat16).reshape(*table.shape[:2], 16, 16)
    rows = jnp.einsum("bcij,bcip->bcjp", squares, high, preferred_element_type=jnp.float32)
    return jnp.sum(rows * low.astype(jnp.float32), axis=2).astype(jnp.uint8).swapaxes(1, 2)
