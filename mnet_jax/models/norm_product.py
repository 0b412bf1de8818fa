"""Batch normalisation of a product, e = x @ kernel, whose gradient does without the product.

The gradient of e is de = a (g - mean(g) - (e - mean) c): g that of the normalised product, a = scale / s and
c = mean(g (e - mean)) / s^2, s the deviation. Everything that de is needed for follows from g, x and small matrices:

    sum(g e) = the column sums of k * (x' g)          x' e = (x' x) k          e k' = x (k k')

so the kernel's gradient is a (x' g - sum(x) mean(g)' - (x' x k - sum(x) mean') c) and that of x is
g (a k)' - x (k a c k') - a constant. Where a layer expands (a map of many channels from one of few) that saves several
passes over the largest maps of the net, and in bfloat16 it rounds once less. docs/tpu.md has the numbers.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.models.norm import normalize
from mnet_jax.models.ops.pointwise import pointwise_conv


def pays(dtype: jnp.dtype, in_features: int, features: int) -> bool:
    """Returns whether it pays: the product of x with itself must be small beside x @ kernel.

    v1, whose layers double at most, needs 0.5 % fewer estimated cycles without it.

    float32 keeps the direct form: the differences above would lose digits that it has. In bfloat16 those are lost
    already.
    """
    return dtype == jnp.bfloat16 and features > 2 * in_features


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalize_product(
    x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns `normalize` of x @ kernel over the local batch.

    Args:
      x: [..., I].
      kernel: [I, C], of x's dtype.
      scale: float32 [C], as is bias.
      bias: see `normalize`.
      epsilon: see `normalize`.

    Returns:
      The result, float32 [..., C], and mean and variance, [C]; gradients pass through the result alone.
    """
    return _forward(x, kernel, scale, bias, epsilon)[0]


def _forward(
    x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    outputs = normalize(pointwise_conv(x, kernel), scale, bias, jnp.zeros_like(scale), epsilon, None)
    _, mean, variance = outputs
    return outputs, (x, kernel, mean, lax.rsqrt(variance + epsilon), scale)


def _backward(epsilon: float, residuals: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]) -> tuple:
    x, kernel, mean, inverse, scale = residuals
    # The barrier makes one array of it: otherwise XLA keeps its factors and multiplies them anew for each reader.
    g = lax.optimization_barrier(cotangents[0].astype(x.dtype))
    rows = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    k = kernel.astype(jnp.float32)
    x_g, x_x = _transposed_product(x, g), _transposed_product(x, x)
    # the sum is taken before the barrier: there it is part of the loop that makes g
    x_sum, g_sum = x.sum(rows, dtype=jnp.float32), cotangents[0].sum(rows, dtype=jnp.float32)
    dot = (k * x_g).sum(0) - mean * g_sum
    a, c = scale * inverse, dot / count * inverse**2
    mean_g = g_sum / count
    exact = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    x_centred = exact(x_x, k) - jnp.outer(x_sum, mean)
    dkernel = (x_g - jnp.outer(x_sum, mean_g) - x_centred * c[None]) * a[None]
    through_x = exact(k * (a * c)[None], k.T).astype(x.dtype)
    constant = exact(k, a * (mean_g - mean * c))
    dx = pointwise_conv(g, (k * a[None]).T.astype(x.dtype), True) - pointwise_conv(x, through_x, True)
    dx -= constant.reshape((1,) * len(rows) + (-1,))
    return dx.astype(x.dtype), dkernel.astype(kernel.dtype), dot * inverse, g_sum


def _transposed_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns x' y, float32, over all axes but the last: as matrices they would lose XLA's choice of layout."""
    rows = tuple(range(x.ndim - 1))
    return lax.dot_general(x, y, ((rows, rows), ((), ())), preferred_element_type=jnp.float32)


normalize_product.defvjp(_forward, _backward)
