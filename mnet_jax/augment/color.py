"""Colour operations on uint8 batches, with PIL's arithmetic: every result is a whole number in 0..255 again.

Images are uint8 [B, H, W, 3]; a factor, threshold or shift is an array [B], one for each example. Each function is a
short chain of element-wise operations, so that XLA fuses several of them into one pass over the images.
"""

import jax
import jax.numpy as jnp

from mnet_jax.augment.settings import Effect

EFFECT = Effect.RECOLOURS  # of every operation here


def per_image(values: jax.Array) -> jax.Array:
    """Returns one value an image, [B], as [B, 1, 1, 1]."""
    return values[:, None, None, None]


def grey(images: jax.Array) -> jax.Array:
    """Returns the luma, int32 [B, H, W, 1]: ITU-R 601 weights in 16-bit fixed point as PIL's `convert("L")`."""
    red, green, blue = (images[..., channel : channel + 1].astype(jnp.int32) for channel in range(3))
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def mean_grey(images: jax.Array) -> jax.Array:
    """Returns the mean luma of each image, rounded, int32 [B, 1, 1, 1]."""
    pixels = images.shape[1] * images.shape[2]
    return (2 * jnp.sum(grey(images), axis=(1, 2, 3), keepdims=True) + pixels) // (2 * pixels)


def smooth(images: jax.Array) -> jax.Array:
    """Returns PIL's SMOOTH filter of images, int32 [B, H, W, 3]: a 3x3 mean whose centre weighs five.

    The outermost pixels stay as they are.
    """
    batch, height, width, channels = images.shape
    values = images.reshape(batch, height, width * channels).astype(jnp.int32)  # XLA:CPU likes long rows
    padded = jnp.pad(values, ((0, 0), (1, 1), (channels, channels)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    box = rows[:, :, : -2 * channels] + rows[:, :, channels:-channels] + rows[:, :, 2 * channels :]
    y, x = jnp.arange(height)[:, None], jnp.arange(width * channels)[None, :]
    inner = (y > 0) & (y < height - 1) & (x >= channels) & (x < (width - 1) * channels)
    return jnp.where(inner[None], (2 * (box + 4 * values) + 13) // 26, values).reshape(images.shape)


def blend(images: jax.Array, degenerate: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns PIL's `Image.blend`, uint8 [B, H, W, 3]: by factor 0 `degenerate`, 1 the images, more exaggerates them.

    `degenerate` may have any shape that broadcasts.
    """
    start = degenerate.astype(jnp.float32)
    mixed = start + per_image(factor) * (images.astype(jnp.float32) - start)
    return jnp.clip(mixed, 0, 255).astype(jnp.uint8)  # the conversion drops the fraction, as PIL does


def brightness(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns images blended with black, as `ImageEnhance.Brightness` does."""
    return blend(images, jnp.zeros((1, 1, 1, 1)), factor)


def contrast(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns images blended with their mean luma, as `ImageEnhance.Contrast` does."""
    return blend(images, mean_grey(images), factor)


def saturation(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns images blended with their luma, as `ImageEnhance.Color` does."""
    return blend(images, grey(images), factor)


def sharpness(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns images blended with themselves smoothed, as `ImageEnhance.Sharpness` does."""
    return blend(images, smooth(images), factor)


def hue(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Returns images whose hue (of HSV) is turned by `shift` turns, rounded to the nearest whole number."""
    red, green, blue = (images[..., channel].astype(jnp.float32) for channel in range(3))
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    scale = 1 / jnp.maximum(chroma, 1)  # a grey pixel has no hue: chroma 0 gives itself back below
    angle = jnp.where(
        value == red,
        (green - blue) * scale,
        jnp.where(value == green, 2 + (blue - red) * scale, 4 + (red - green) * scale),
    )
    angle = angle + 6 * shift[:, None, None]

    def channel(offset: int) -> jax.Array:
        sector = angle + offset
        sector = sector - 6 * jnp.floor(sector / 6)
        return value - chroma * jnp.clip(jnp.minimum(sector, 4 - sector), 0, 1)

    return jnp.round(jnp.stack([channel(5), channel(3), channel(1)], axis=-1)).astype(jnp.uint8)


def posterize(images: jax.Array, bits: jax.Array) -> jax.Array:
    """Returns images with the upper `bits` (0..8) of each value, as `ImageOps.posterize` does."""
    mask = 256 - jnp.left_shift(1, 8 - bits)
    return images & per_image(mask.astype(jnp.uint8))


def solarize(images: jax.Array, threshold: jax.Array) -> jax.Array:
    """Returns images whose values from `threshold` (0..256) on are inverted, as `ImageOps.solarize` does."""
    return jnp.where(images.astype(jnp.int32) >= per_image(threshold), 255 - images, images)


def solarize_add(images: jax.Array, amount: jax.Array) -> jax.Array:
    """Returns images with `amount` (0..255) added to the values below 128, up to 255."""
    amount = per_image(amount.astype(jnp.uint8))
    return jnp.where(images < 128, jnp.minimum(images, 255 - amount) + amount, images)
