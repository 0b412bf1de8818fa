"""Device-side augmentation: what the sections of an `AugmentConfig` do to a batch, in order."""

import jax
import jax.numpy as jnp

from mnet_jax.tasks.augment_config import AugmentConfig


def augment_images(
    key: jax.Array, images: jax.Array, positions: jax.Array, config: AugmentConfig, *, fill: tuple[float, float, float]
) -> jax.Array:
    """uint8 images [B, H, W, 3] -> float32 [B, H, W, 3], whole numbers in 0..255."""
    if config != AugmentConfig():
        raise NotImplementedError("the operations arrive with the next commits")
    return images.astype(jnp.float32)


def mix(key: jax.Array, inputs: jax.Array, targets: jax.Array, config: AugmentConfig) -> tuple[jax.Array, jax.Array]:
    """Mixup or cutmix of inputs [B, H, W, 3] and targets [B, classes]."""
    return inputs, targets
