"""What an image's pixels cost. Sums, not means: the task divides by the pixels of the whole step."""

import jax
import jax.numpy as jnp
import numpy as np

from mnet_jax.models.ops.bilinear import upsample
from mnet_jax.tasks.losses import cross_entropy


def pixel_weights(maps: jax.Array, class_weights: np.ndarray) -> jax.Array:
    """Returns how much each pixel counts, float32 [N, H, W]: its class's weight, 0 where the class is none.

    Args:
      maps: uint8 [N, H, W].
      class_weights: float32 [C].
    """
    table = np.zeros(256, np.float32)
    table[: len(class_weights)] = class_weights
    return jnp.asarray(table)[maps.astype(jnp.int32)]


def map_loss(logits: jax.Array, maps: jax.Array, weights: jax.Array, *, align_corners: bool) -> jax.Array:
    """Returns each image's cross entropy, float32 [N], summed over its pixels, each times its weight.

    Args:
      logits: [N, h, w, C], enlarged bilinearly to the size of the maps.
      maps: uint8 [N, H, W].
      weights: float32 [N, H, W]; where it is 0 the class may be none.
      align_corners: how logits are enlarged, see `upsample`.
    """
    large = upsample(logits.astype(jnp.float32), maps.shape[1:3], align_corners=align_corners)
    losses = cross_entropy(large, maps.astype(jnp.int32))
    return jnp.sum(jnp.where(weights > 0, losses * weights, 0), (1, 2))
