"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719) on a batch, each image with its own operations.

The 15 operations are those of timm's `rand` policy, `_RAND_TRANSFORMS` in its auto_augment.py. How far they go follows
AutoAugment's ranges (Cubuk et al. 2018, arXiv 1805.09501, table 6) such that a larger magnitude always changes more, as
in torchvision's RandAugment and timm's `inc1`; with m = magnitude / 10:

    autocontrast, equalize, invert            no strength
    rotate                                    +-30 m degrees about the centre
    shear_x, shear_y                          +-0.3 m, from the top left corner
    translate_x, translate_y                  +-0.45 m of the width or height (AutoAugment: 150 of 331 pixels)
    color, contrast, brightness, sharpness    factor 1 +- 0.9 m
    posterize                                 keeps 8 - round(4 m) bits
    solarize                                  inverts values from 256 - floor(256 m) on
    solarize_add                              adds floor(110 m) to values below 128 (TensorFlow's efficientnet)

Signs are random. Each layer draws one operation an image, uniformly, and applies it with probability `prob`.
"""

import math

import jax
import jax.numpy as jnp

from mnet_jax.augment import color, geometry, lookup
from mnet_jax.augment.switch import apply_by_kind

OPERATIONS = (
    "brightness",
    "contrast",
    "color",
    "posterize",
    "solarize",
    "invert",
    "solarize_add",
    "autocontrast",
    "equalize",
    "sharpness",
    "rotate",
    "shear_x",
    "translate_x",
    "shear_y",
    "translate_y",
)
NUMBER = {name: number for number, name in enumerate(OPERATIONS)}


def layer(
    images: jax.Array, operation: jax.Array, sign: jax.Array, *, magnitude: float, fill: tuple[int, int, int]
) -> jax.Array:
    """Applies one operation to each image.

    Args:
      images: uint8 [B, H, W, 3].
      operation: int32 [B], a place in OPERATIONS; a negative number leaves the image as it is.
      sign: float32 [B], -1 or 1: the direction where there are two.
      magnitude: 0 to 10.
      fill: what shears, translations and rotations show from outside the image.
    """
    strength = magnitude / 10
    images = _pointwise(images, operation, sign, strength)

    height, width = images.shape[1:3]
    shear, move, angle = 0.3 * strength, 0.45 * strength, math.radians(30 * strength)

    def table(group: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        return lookup.equalize_or_stretch(group, drawn[0] == NUMBER["autocontrast"])

    def sharpness(group: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        return color.sharpness(group, 1 + 0.9 * strength * drawn[1])

    def rotate(group: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        return geometry.rotate(group, drawn[1], angle=angle, fill=fill)

    def rows(group: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        slope, offset = _line(drawn, "shear_x", shear, move * width)
        return geometry.shift_rows(group, slope, offset, reach=max(shear * height, move * width), fill=fill)

    def columns(group: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        slope, offset = _line(drawn, "shear_y", shear, move * height)
        return geometry.shift_columns(group, slope, offset, reach=max(shear * width, move * height), fill=fill)

    functions = (table, sharpness, rotate, rows, columns)
    kinds = {"autocontrast": 0, "equalize": 0, "sharpness": 1, "rotate": 2}
    kinds |= {"shear_x": 3, "translate_x": 3, "shear_y": 4, "translate_y": 4}
    kind = jnp.array([kinds.get(name, -1) for name in OPERATIONS])[jnp.maximum(operation, 0)]
    return apply_by_kind(functions, images, jnp.where(operation < 0, -1, kind), (operation, sign))


def _line(drawn: tuple[jax.Array, jax.Array], name: str, slope: float, offset: float) -> tuple[jax.Array, jax.Array]:
    """Slope and offset [B] of a shift that is the shear called `name`, or else a translation."""
    operation, sign = drawn
    is_shear = operation == NUMBER[name]
    return jnp.where(is_shear, slope * sign, 0), jnp.where(is_shear, 0, offset * sign)


def _pointwise(images: jax.Array, operation: jax.Array, sign: jax.Array, strength: float) -> jax.Array:
    """The operations that change each pixel by itself: one pass over all images, with all of them in a row.

    An image that did not draw an operation gets the strength at which it changes nothing; selecting between the
    finished results instead takes XLA:CPU ten times as long.
    """

    def drew(name: str) -> jax.Array:
        return operation == NUMBER[name]

    is_grey, is_mean = color.per_image(drew("color")), color.per_image(drew("contrast"))
    degenerate = jnp.where(is_grey, color.grey(images), jnp.where(is_mean, color.mean_grey(images), 0))
    blended = drew("brightness") | drew("contrast") | drew("color")
    solarized = jnp.where(drew("solarize"), 256 - math.floor(256 * strength), 256)

    images = color.solarize(images, jnp.where(drew("invert"), 0, solarized))
    images = color.solarize_add(images, jnp.where(drew("solarize_add"), math.floor(110 * strength), 0))
    images = color.posterize(images, jnp.where(drew("posterize"), 8 - round(4 * strength), 8))
    return color.blend(images, degenerate, jnp.where(blended, 1 + 0.9 * strength * sign, 1))
