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

Signs are random. Each layer draws one operation an image, uniformly, and applies it with a probability.
"""

import math
from collections.abc import Collection

import jax
import jax.numpy as jnp

from mnet_jax.augment import color, geometry, lookup
from mnet_jax.augment.settings import Effect
from mnet_jax.augment.switch import apply_by_kind

# Name -> what it does to an image. The order is that in which the operations are numbered.
OPERATIONS: dict[str, Effect] = {
    "brightness": color.EFFECT,
    "contrast": color.EFFECT,
    "color": color.EFFECT,
    "posterize": color.EFFECT,
    "solarize": color.EFFECT,
    "invert": color.EFFECT,
    "solarize_add": color.EFFECT,
    "autocontrast": lookup.EFFECT,
    "equalize": lookup.EFFECT,
    "sharpness": color.EFFECT,
    "rotate": geometry.EFFECT,
    "shear_x": geometry.EFFECT,
    "translate_x": geometry.EFFECT,
    "shear_y": geometry.EFFECT,
    "translate_y": geometry.EFFECT,
}
ALL = tuple(OPERATIONS)


def operations_with(effects: Collection[Effect]) -> tuple[str, ...]:
    """Returns the names of the operations that do nothing but `effects` to an image."""
    return tuple(name for name, effect in OPERATIONS.items() if effect in effects)


def layer(
    images: jax.Array,
    operation: jax.Array,
    sign: jax.Array,
    *,
    magnitude: float,
    fill: tuple[int, int, int],
    operations: tuple[str, ...] = ALL,
) -> jax.Array:
    """Returns images uint8 [B, H, W, 3], one operation applied to each.

    Args:
      images: uint8 [B, H, W, 3].
      operation: int32 [B], a place in `operations`; a negative number leaves the image as it is.
      sign: float32 [B], -1 or 1: the direction where there are two.
      magnitude: 0 to 10.
      fill: what shears, translations and rotations show from outside the image.
      operations: the names of those that may come.
    """
    strength = magnitude / 10
    # The number by which an image draws each; that of one that cannot come is none of them.
    number = dict.fromkeys(OPERATIONS, len(operations)) | {name: place for place, name in enumerate(operations)}
    images = _pointwise(images, operation, sign, strength, number)

    height, width = images.shape[1:3]
    shear, move, angle = 0.3 * strength, 0.45 * strength, math.radians(30 * strength)

    def table(group: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        return lookup.equalize_or_stretch(group, drawn[0] == number["autocontrast"])

    def sharpness(group: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        return color.sharpness(group, 1 + 0.9 * strength * drawn[1])

    def rotate(group: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        return geometry.rotate(group, drawn[1], angle=angle, fill=fill)

    def rows(group: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        slope, offset = _line(drawn, number["shear_x"], shear, move * width)
        return geometry.shift_rows(group, slope, offset, reach=max(shear * height, move * width), fill=fill)

    def columns(group: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        slope, offset = _line(drawn, number["shear_y"], shear, move * height)
        return geometry.shift_columns(group, slope, offset, reach=max(shear * width, move * height), fill=fill)

    names = {
        table: ("autocontrast", "equalize"),
        sharpness: ("sharpness",),
        rotate: ("rotate",),
        rows: ("shear_x", "translate_x"),
        columns: ("shear_y", "translate_y"),
    }
    functions = [function for function in names if not set(names[function]).isdisjoint(operations)]
    if not functions:
        return images
    kinds = {name: kind for kind, function in enumerate(functions) for name in names[function]}
    kind = jnp.array([kinds.get(name, -1) for name in operations])[jnp.maximum(operation, 0)]
    return apply_by_kind(functions, images, jnp.where(operation < 0, -1, kind), (operation, sign))


def _line(drawn: tuple[jax.Array, jax.Array], shear: int, slope: float, offset: float) -> tuple[jax.Array, jax.Array]:
    """Returns (slope, offset), float32 [B] each, of the shift of each image: a shear if it drew number `shear`.

    It is a translation if not.
    """
    operation, sign = drawn
    is_shear = operation == shear
    return jnp.where(is_shear, slope * sign, 0), jnp.where(is_shear, 0, offset * sign)


def _pointwise(
    images: jax.Array, operation: jax.Array, sign: jax.Array, strength: float, number: dict[str, int]
) -> jax.Array:
    """Returns images uint8 [B, H, W, 3] after those operations that change each pixel by itself.

    One pass over all images does all of them in a row: an image that did not draw an operation gets the strength at
    which it changes nothing. Selecting between the finished results instead takes XLA:CPU ten times as long.
    """

    def drew(name: str) -> jax.Array:
        return operation == number[name]

    is_grey, is_mean = color.per_image(drew("color")), color.per_image(drew("contrast"))
    degenerate = jnp.where(is_grey, color.grey(images), jnp.where(is_mean, color.mean_grey(images), 0))
    blended = drew("brightness") | drew("contrast") | drew("color")
    solarized = jnp.where(drew("solarize"), 256 - math.floor(256 * strength), 256)

    images = color.solarize(images, jnp.where(drew("invert"), 0, solarized))
    images = color.solarize_add(images, jnp.where(drew("solarize_add"), math.floor(110 * strength), 0))
    images = color.posterize(images, jnp.where(drew("posterize"), 8 - round(4 * strength), 8))
    return color.blend(images, degenerate, jnp.where(blended, 1 + 0.9 * strength * sign, 1))
