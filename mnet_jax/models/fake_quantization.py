"""Quantisation-aware training: layers compute with the values that an int8 network will have.

Rounding happens where the exported network rounds (`deploy/`): weights symmetric, one scale an output channel; what
leaves a layer asymmetric, one scale a tensor, in ranges that training observes. Gradients pass straight through the
rounding, and stop where a value is clipped.

Batch norm needs no folding here: a factor per output channel multiplies a kernel and its scale alike, so that the
folded kernel rounds to the same integers as this one.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnet_jax.models import plans

LEVELS = 255  # steps of 8 bits between the ends of an activation's range
KERNEL_LEVELS = 127  # weights use -127 .. 127: no value without its negative


def round_kernel(kernel: jax.Array) -> jax.Array:
    """Returns a kernel, float32 [..., out], rounded to multiples of max |kernel[..., c]| / 127 for each c."""
    largest = jnp.max(jnp.abs(kernel), axis=tuple(range(kernel.ndim - 1)), keepdims=True)
    scale = jnp.where(largest > 0, largest / KERNEL_LEVELS, 1.0)
    return _straight_through(kernel, jnp.round(kernel / scale) * scale)


def round_between(x: jax.Array, low: jax.Array | float, high: jax.Array | float) -> jax.Array:
    """Returns x rounded to 256 levels from about `low` to about `high`, one of which is 0, and clipped there.

    A range without extent changes nothing: none has been observed yet.
    """
    low, high = jnp.minimum(low, 0.0), jnp.maximum(high, 0.0)
    scale = jnp.where(high > low, (high - low) / LEVELS, 1.0)
    zero = jnp.round(-low / scale)
    inside = jnp.clip(x, -zero * scale, (LEVELS - zero) * scale)
    rounded = _straight_through(inside, jnp.round(inside / scale) * scale)
    return jnp.where(high > low, rounded, x)


def round_observed(
    module: nn.Module, name: str, x: jax.Array, quantization: plans.Quantization | None, *, train: bool
) -> jax.Array:
    """Returns x rounded in a range that is a batch statistic of `module`, [2] = (lowest, highest).

    None changes nothing. In training the range follows the batches' extremes, and the first batch sets it.
    """
    if quantization is None:
        return x
    return round_in(module, range_variable(module, name), x, quantization, train=train)


def range_variable(module: nn.Module, name: str) -> nn.Variable:
    """Returns the variable of a range, which nothing has been seen of yet."""
    return module.variable("batch_stats", name, jnp.zeros, (2,), jnp.float32)


def round_in(
    module: nn.Module, variable: nn.Variable, x: jax.Array, quantization: plans.Quantization, *, train: bool
) -> jax.Array:
    """Returns x rounded in the range of `variable`, as `round_observed` does."""
    if train and not module.is_initializing():
        known = variable.value
        seen = jax.lax.stop_gradient(jnp.stack([jnp.min(x), jnp.max(x)]).astype(jnp.float32))
        decay = jnp.where(known[1] > known[0], quantization.range_decay, 0.0)
        variable.value = seen + decay * (known - seen)
    return round_between(x.astype(jnp.float32), *variable.value)


def _straight_through(x: jax.Array, rounded: jax.Array) -> jax.Array:
    return x + jax.lax.stop_gradient(rounded - x)
