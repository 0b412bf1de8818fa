"""Dropout and drop path, drawn for each example by its own key: the same on any number of devices, in any parts.

Flax's own `nn.Dropout` draws one mask for whatever batch it is given, so that what an example loses depends on the
devices that share a step. Here the step says a key an example (`example_keys`), in a collection of its own beside the
variables; the layer mixes in where it stands in the network.
"""

import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp

COLLECTION = "examples"  # beside "params" and "batch_stats"; not kept
Keys = dict[str, dict[str, jax.Array]]


def example_keys(key: jax.Array, positions: jax.Array) -> Keys:
    """Returns what `apply` takes beside a network's variables: a random key for each example, by its number in a step.

    Args:
      key: of the step, the same on all devices.
      positions: int32 [B], the examples' numbers in the step over all devices.
    """
    return {COLLECTION: {"key": jax.vmap(jax.random.fold_in, (None, 0))(key, positions)}}


class Dropout(nn.Module):
    """[B, ...] -> the same, each value 0 with probability `rate` and divided by 1 - rate otherwise.

    Where `apply` was given no `example_keys` it draws from the rng stream "dropout", as `nn.Dropout` does.
    """

    rate: float
    whole: bool = False  # an example is kept or lost as a whole (drop path, stochastic depth)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if not train or not self.rate:
            return x
        keep, shape = 1.0 - self.rate, (1,) * (x.ndim - 1) if self.whole else x.shape[1:]
        keys = self.scope.root.get_variable(COLLECTION, "key")
        if keys is None:
            kept = jax.random.bernoulli(self.make_rng("dropout"), keep, (x.shape[0], *shape))
        else:
            place = zlib.crc32("/".join(self.path).encode())
            kept = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, place), keep, shape))(keys)
        return jnp.where(kept, x / keep, jnp.zeros((), x.dtype))
