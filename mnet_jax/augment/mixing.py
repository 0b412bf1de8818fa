"""Mixup (Zhang et al. 2017, arXiv 1710.09412) and cutmix (Yun et al. 2019, arXiv 1905.04899) of a device's batch."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from mnet_jax.augment.settings import Augmentation, Effect

EFFECT = Effect.MIXES

# Steps of the table of the beta distribution's quantiles; between them it is read linearly.
_QUANTILES = 1024


def mix(key: jax.Array, inputs: jax.Array, targets: jax.Array, settings: Augmentation) -> tuple[jax.Array, jax.Array]:
    """Returns (inputs [B, H, W, 3], targets [B, num_classes]), each mixed with its neighbour in the batch.

    Neighbours are the first and the second, the third and the fourth; an odd one at the end is left as it is. So an
    example's partner does not depend on how many devices share a batch, where each has an even number of examples.

    One weight or box is drawn for the whole batch, from the key alone, so that all devices of a step that share a key
    draw the same. If both alphas are positive, a batch that is mixed takes either with probability 1/2.

    Args:
      key: of the step.
      inputs: float32 [B, H, W, 3].
      targets: float32 [B, num_classes]; weighted by the exact shares of the inputs' pixels.
      settings: the alphas and the probability.
    """
    if settings.mix_prob == 0 or settings.mixup_alpha == settings.cutmix_alpha == 0:
        return inputs, targets
    height, width = inputs.shape[1:3]
    apply, choose, quantile, *centre = jax.random.uniform(key, (5,))
    # The examples' own weight at each pixel, [H, W]: the same everywhere, or 0 inside the box and 1 outside.
    if settings.cutmix_alpha == 0:
        weights = jnp.full((height, width), _beta(quantile, settings.mixup_alpha))
    elif settings.mixup_alpha == 0:
        weights = _outside_box(_beta(quantile, settings.cutmix_alpha), centre, height, width)
    else:
        box = _outside_box(_beta(quantile, settings.cutmix_alpha), centre, height, width)
        weights = jnp.where(choose < 0.5, box, _beta(quantile, settings.mixup_alpha))
    weights = jnp.where(apply < settings.mix_prob, weights, 1)
    share = jnp.mean(weights)
    pixels = weights[None, :, :, None]
    inputs = inputs * pixels + _neighbours(inputs) * (1 - pixels)
    return inputs, targets * share + _neighbours(targets) * (1 - share)


def _neighbours(x: jax.Array) -> jax.Array:
    """Returns each example's partner [B, ...]; an odd one at the end is its own."""
    pairs = x.shape[0] // 2
    swapped = x[: 2 * pairs].reshape(pairs, 2, *x.shape[1:])[:, ::-1].reshape(2 * pairs, *x.shape[1:])
    return swapped if x.shape[0] == 2 * pairs else jnp.concatenate([swapped, x[2 * pairs :]])


def _beta(quantile: jax.Array, alpha: float) -> jax.Array:
    """Returns the value of Beta(alpha, alpha) at a quantile (a scalar in 0..1), from a table.

    Exact to 1e-3 in probability. JAX's own sampler is a rejection loop that takes seconds to compile.
    """
    table = jnp.asarray(scipy.special.betaincinv(alpha, alpha, np.linspace(0, 1, _QUANTILES + 1)), jnp.float32)
    place = quantile * _QUANTILES
    below = jnp.minimum(jnp.floor(place).astype(jnp.int32), _QUANTILES - 1)
    return table[below] + (place - below) * (table[below + 1] - table[below])


def _outside_box(share: jax.Array, centre: tuple[jax.Array, jax.Array], height: int, width: int) -> jax.Array:
    """Returns weights float32 [H, W]: 0 in a box, 1 outside it.

    The box has the image's shape and 1 - share of its area, and is cut where it leaves the image. `centre` (two scalars
    in 0..1) is its middle, along height and width.
    """
    side = jnp.sqrt(1 - share)

    def covered(middle: jax.Array, size: int) -> jax.Array:
        length = jnp.floor(size * side)
        start = jnp.floor(middle * size) - jnp.floor(length / 2)
        place = jnp.arange(size)
        return (place >= start) & (place < start + length)

    return 1.0 - (covered(centre[0], height)[:, None] & covered(centre[1], width)[None, :])
