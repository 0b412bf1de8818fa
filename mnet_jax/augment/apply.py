"""Device-side augmentation of a uint8 batch: what an `AugmentConfig` switches on, in a fixed order.

    colour jitter    brightness, contrast, saturation, hue, in this order (torchvision draws the order too)
    RandAugment      `randaugment.py`
    erasing          `erasing.py`
    normalisation    the task's
    mixing           `mixing.py`

Images stay whole numbers in 0..255 up to the normalisation, with PIL's arithmetic. All choices in the config are made
while tracing: what is off is not in the program.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mnet_jax.augment import color, erasing, randaugment
from mnet_jax.augment.settings import AugmentConfig


def augment_images(
    key: jax.Array, images: jax.Array, positions: jax.Array, config: AugmentConfig, *, fill: tuple[int, int, int]
) -> jax.Array:
    """Everything that happens to one image by itself.

    Args:
      key: of the step.
      images: uint8 [B, H, W, 3].
      positions: int32 [B], the examples' numbers in the step; an example's result depends on (key, position) only.
      config: what to do.
      fill: colour of what shears, translations and rotations show from outside an image.

    Returns:
      uint8 [B, H, W, 3].
    """
    layers = config.randaugment_layers if config.randaugment_prob else 0
    sizes = (4 if _jitters(config) else 0, 3 * layers, erasing.NUM_DRAWS if config.erase_prob else 0)
    if not any(sizes):
        return images

    def draw(position: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, position), (sum(sizes),))

    for_jitter, for_randaugment, for_erasing = jnp.split(jax.vmap(draw)(positions), np.cumsum(sizes)[:2], axis=1)
    images = _jitter(images, for_jitter, config)
    if layers:
        images = _randaugment(images, for_randaugment.reshape(-1, layers, 3), config, fill)
    if config.erase_prob:
        images = erasing.erase(images, for_erasing, prob=config.erase_prob)
    return images


def _jitters(config: AugmentConfig) -> bool:
    return any((config.brightness, config.contrast, config.saturation, config.hue))


def _jitter(images: jax.Array, draws: jax.Array, config: AugmentConfig) -> jax.Array:
    """Colour jitter by uniform draws float32 [B, 4] (unused and of any width where it is off)."""
    amounts = 2 * draws - 1
    if config.brightness:
        images = color.brightness(images, 1 + config.brightness * amounts[:, 0])
    if config.contrast:
        images = color.contrast(images, 1 + config.contrast * amounts[:, 1])
    if config.saturation:
        images = color.saturation(images, 1 + config.saturation * amounts[:, 2])
    if config.hue:
        images = color.hue(images, config.hue * amounts[:, 3])
    return images


def _randaugment(images: jax.Array, draws: jax.Array, config: AugmentConfig, fill: tuple[int, int, int]) -> jax.Array:
    """RandAugment by uniform draws float32 [B, layers, 3]: which operation, whether to apply it, its sign."""
    count = len(randaugment.OPERATIONS)
    operations = jnp.minimum(jnp.floor(draws[..., 0] * count).astype(jnp.int32), count - 1)
    operations = jnp.where(draws[..., 1] < config.randaugment_prob, operations, -1)
    signs = jnp.where(draws[..., 2] < 0.5, -1.0, 1.0)

    def one_layer(images: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return randaugment.layer(images, *drawn, magnitude=config.randaugment_magnitude, fill=fill), None

    return lax.scan(one_layer, images, (operations.T, signs.T))[0]  # a loop, to compile one layer only
