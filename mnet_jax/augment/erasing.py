"""Random erasing (Zhong et al. 2017, arXiv 1708.04896): a rectangle of noise in some of the images."""

import math

import jax
import jax.numpy as jnp

from mnet_jax.augment.settings import Effect

EFFECT = Effect.COVERS

# The share of the image's area and the height over the width, as in torchvision's and timm's RandomErasing.
_AREA = (0.02, 1 / 3)
_RATIO = (0.3, 3.3)

NUM_DRAWS = 6


def erase(images: jax.Array, draws: jax.Array, *, prob: float) -> jax.Array:
    """Returns images uint8 [B, H, W, 3], some with a rectangle of uniform noise in 0..255 (the paper's RE-R).

    The area is uniform and the ratio log-uniform among those at which the rectangle fits. `draws` float32
    [B, NUM_DRAWS] are uniform numbers in 0..1 of each image's own.
    """
    inside = _boxes(draws, images.shape[1], images.shape[2]) & (draws[:, 4] < prob)[:, None, None]
    seed = (draws[:, 5] * 2**23).astype(jnp.uint32)  # float32 draws have 23 random bits
    return jnp.where(inside[..., None], _noise(seed, images.shape), images)


def _boxes(draws: jax.Array, height: int, width: int) -> jax.Array:
    """Returns which pixels are in their image's rectangle, bool [B, H, W]."""
    area = (_AREA[0] + (_AREA[1] - _AREA[0]) * draws[:, 0]) * height * width
    # At most `height` high and `width` wide; an image too narrow for every ratio takes the nearest that fits.
    fits = jnp.log(area / width**2), jnp.log(height**2 / area)
    low, high = (jnp.clip(math.log(ratio), *fits) for ratio in _RATIO)
    ratio = jnp.exp(low + (high - low) * draws[:, 1])
    box_height = jnp.clip(jnp.round(jnp.sqrt(area * ratio)), 1, height)
    box_width = jnp.clip(jnp.round(jnp.sqrt(area / ratio)), 1, width)
    top = jnp.floor(draws[:, 2] * (height - box_height + 1))
    left = jnp.floor(draws[:, 3] * (width - box_width + 1))
    rows = _within(top, box_height, height)
    columns = _within(left, box_width, width)
    return rows[:, :, None] & columns[:, None, :]


def _within(start: jax.Array, length: jax.Array, size: int) -> jax.Array:
    """Returns which places are in start .. start + length - 1 (both [B]), bool [B, size]."""
    place = jnp.arange(size)[None, :]
    return (place >= start[:, None]) & (place < (start + length)[:, None])


def _noise(seed: jax.Array, shape: tuple[int, int, int, int]) -> jax.Array:
    """Returns noise uint8 of `shape` from seeds uint32 [B]: a hash of each value's place.

    XLA computes it in the pass that uses it; threefry's bits for whole images cost more than all other augmentation.
    The hash is Chris Wellons' lowbias32 (github.com/skeeto/hash-prospector), once for the seed and once for the place.
    """
    place = jnp.arange(math.prod(shape[1:]), dtype=jnp.uint32).reshape(1, *shape[1:])
    return (_hash(place + _hash(seed)[:, None, None, None]) >> 24).astype(jnp.uint8)


def _hash(word: jax.Array) -> jax.Array:
    word = (word ^ word >> 16) * jnp.uint32(0x7FEB352D)
    word = (word ^ word >> 15) * jnp.uint32(0x846CA68B)
    return word ^ word >> 16
