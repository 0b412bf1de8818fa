"""Batch normalisation: one pass over the map for its statistics, one for its result, and a gradient written out.

Against what reverse mode derives from the same formula, the gradient below keeps only the input and four vectors for
the backward pass: 2 % fewer estimated cycles on TPU v5e (first two blocks of v3_large, batch 128, bfloat16: 13.11
against 13.37 M), and some 8 % less time a step and 12 % less time to compile on CPU (v3_small, 32 px).

Of a product, x @ kernel, the gradient can do without the product.
With e = x k, its gradient is de = a (g - mean(g) - (e - mean) c): g that of the normalised product, a = scale / s and
c = mean(g (e - mean)) / s^2, s the deviation. Everything that de is needed for follows from g, x and small matrices:

    sum(g e) = the column sums of k * (x' g)          x' e = (x' x) k          e k' = x (k k')

so the kernel's gradient is a (x' g - sum(x) mean(g)' - (x' x k - sum(x) mean') c) and that of x is
g (a k)' - x (k a c k') - a constant. Where a layer expands (a map of many channels from one of few) that saves several
passes over the largest maps of the net, and in bfloat16 it rounds once less. docs/tpu.md has the numbers.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import initializers

from mnet_jax.models import plans
from mnet_jax.models.ops.depthwise_cpu import largest_divisor
from mnet_jax.models.ops.pointwise import pointwise_conv

CPU_PARTS = 8  # of a map, that are summed in registers


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, [..., C] -> float32 [..., C].

    The running variance is the unbiased one, as TensorFlow's fused kernel and PyTorch have it (flax: the biased one).
    """

    norm: plans.Norm
    axis_name: str | None  # statistics are those of the batch over this mapped axis; None: of the local batch
    frozen: bool = False  # use the running statistics in training too, and leave them as they are

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, kernel: jax.Array | None = None) -> jax.Array:
        """Normalises x, or x @ `kernel` [I, C] where that is given."""
        features = x.shape[-1] if kernel is None else kernel.shape[1]
        epsilon, decay = self.norm.epsilon, self.norm.decay
        scale = self.param("scale", initializers.ones, (features,), jnp.float32)
        bias = self.param("bias", initializers.zeros, (features,), jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (features,), jnp.float32)
        averages = self.frozen or not train
        fused = kernel is not None and not averages and self.axis_name is None
        if kernel is not None and not (fused and _product_pays(x.dtype, *kernel.shape)):
            x, kernel = pointwise_conv(x, kernel), None
        if averages:
            return _affine(x, mean.value, lax.rsqrt(var.value + epsilon), scale, bias)

        if kernel is None:
            y, batch_mean, batch_var = normalize(x, scale, bias, mean.value, epsilon, self.axis_name)
        else:
            y, batch_mean, batch_var = normalize_product(x, kernel, scale, bias, epsilon)
        if not self.is_initializing():
            count = y.size // features * (1 if self.axis_name is None else lax.axis_size(self.axis_name))
            mean.value = decay * mean.value + (1 - decay) * batch_mean
            var.value = decay * var.value + (1 - decay) * batch_var * (count / max(count - 1, 1))
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, shift: jax.Array, epsilon: float, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, with the batch's own mean and (biased) variance.

    Mean and variance come from one pass over x, as E[x - s] and E[(x - s)^2]. With s = 0 (flax's `use_fast_variance`)
    the variance loses its digits where a channel's mean is some thousand times its deviation. With s = `shift`, the
    running mean, it does not, once that has come near. bfloat16 has lost them before: there s = 0, because on TPU it
    lets XLA take the sums inside the convolution before it (6 % of the step's estimated cycles in the first blocks of
    v3_large).

    Args:
      x: [..., C].
      scale: float32 [C], as are bias and shift.
      bias: see the formula.
      shift: a guess of the mean; the result does not depend on it but for rounding, its gradient is 0.
      epsilon: see the formula.
      axis_name: mapped axis over which the batch continues, or None.

    Returns:
      The result, float32 [..., C], and mean and variance, [C]; gradients pass through the result alone.
    """
    return _forward(x, scale, bias, shift, epsilon, axis_name)[0]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, shift: jax.Array, epsilon: float, axis_name: str | None
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    centred = x.astype(jnp.float32)
    if x.dtype == jnp.float32:
        centred -= _along_channels(shift, x)
    else:
        shift = jnp.zeros_like(shift)
    offset, square = _means(centred, jnp.square(centred), axis_name)
    mean, variance = shift + offset, jnp.maximum(square - jnp.square(offset), 0.0)
    inverse = lax.rsqrt(variance + epsilon)
    y = _affine(x, mean, inverse, scale, bias)
    return (y, mean, variance), (x, mean, inverse, scale)


def _backward(
    epsilon: float, axis_name: str | None, residuals: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    x, mean, inverse, scale = residuals
    dy, wide, count = cotangents[0], x.astype(jnp.float32), x.size // x.shape[-1]
    exact = x.dtype == jnp.float32
    centred = wide - _along_channels(mean, x) if exact else wide
    dy_local, dot_local = _means(dy, dy * centred, None)
    dot_local = dot_local if exact else dot_local - mean * dy_local
    dy_mean, dot_mean = (dy_local, dot_local) if axis_name is None else lax.pmean((dy_local, dot_local), axis_name)
    factor, slope = scale * inverse, dot_mean * inverse**2
    if exact:
        dx = dy - _along_channels(dy_mean, x) - centred * _along_channels(slope, x)
        dx *= _along_channels(factor, x)
    else:
        dx = dy * _along_channels(factor, x) - wide * _along_channels(factor * slope, x)
        dx -= _along_channels(factor * (dy_mean - slope * mean), x)
    return dx.astype(x.dtype), dot_local * inverse * count, dy_local * count, jnp.zeros_like(mean)


normalize.defvjp(_forward, _backward)


def _means(a: jax.Array, b: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """Averages over all axes but the last, and over the mapped axis."""
    sums = lax.platform_dependent(a, b, cpu=_cpu_sums, default=_sums)
    means = tuple(total * (a.shape[-1] / a.size) for total in sums)
    return means if axis_name is None else lax.pmean(means, axis_name)


def _sums(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[..., C] and [..., C] -> [C] and [C]."""
    axes = tuple(range(a.ndim - 1))
    return a.sum(axes), b.sum(axes)


def _cpu_sums(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same in one loop that computes a and b as it goes: they never reach the memory.

    A reduction of two operands stays XLA's own (a simple one is given to YNN, and what it sums is written first). The
    parts of a map are added in registers, each read from its beginning to its end, so that the processor fetches ahead;
    their sum, as large as one of them, is summed in the plain way.
    """
    features = a.shape[-1]
    positions = a.size // features
    parts = largest_divisor(positions, CPU_PARTS)
    if parts < 4:
        return _sums(a, b)
    a, b = (x.reshape(parts, positions // parts, features) for x in (a, b))
    zero = jnp.zeros((), a.dtype)
    sums = lax.reduce((a, b), (zero, zero), lambda p, q: (p[0] + q[0], p[1] + q[1]), (0,))
    return sums[0].sum(0), sums[1].sum(0)


def _affine(x: jax.Array, mean: jax.Array, inverse: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Subtracts the mean before it multiplies: folded into one bias, a large mean would round a float32 result.

    bfloat16 was rounded more coarsely before, so there mean and bias are one vector, here and in the gradient: 1.3 %
    fewer estimated cycles of v3_large's step on TPU v5e.
    """
    factor = scale * inverse
    if x.dtype == jnp.float32:
        return (x - _along_channels(mean, x)) * _along_channels(factor, x) + _along_channels(bias, x)
    return x.astype(jnp.float32) * _along_channels(factor, x) + _along_channels(bias - mean * factor, x)


def _along_channels(vector: jax.Array, x: jax.Array) -> jax.Array:
    """[C] -> [1, ..., 1, C] of x's rank."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


# Of a product


def _product_pays(dtype: jnp.dtype, in_features: int, features: int) -> bool:
    """Where it pays: the product of x with itself must be small beside x @ kernel. float32 keeps the direct form.

    v1, whose layers double at most, needs 0.5 % fewer estimated cycles without it.

    In float32 the differences above would lose digits that the direct form has; in bfloat16 those are lost already.
    """
    return dtype == jnp.bfloat16 and features > 2 * in_features


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalize_product(
    x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`normalize` of x @ kernel over the local batch.

    Args:
      x: [..., I].
      kernel: [I, C], of x's dtype.
      scale: float32 [C], as is bias.
      bias: see `normalize`.
      epsilon: see `normalize`.

    Returns:
      The result, float32 [..., C], and mean and variance, [C]; gradients pass through the result alone.
    """
    return _product_forward(x, kernel, scale, bias, epsilon)[0]


def _product_forward(
    x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    outputs = normalize(pointwise_conv(x, kernel), scale, bias, jnp.zeros_like(scale), epsilon, None)
    _, mean, variance = outputs
    return outputs, (x, kernel, mean, lax.rsqrt(variance + epsilon), scale)


def _product_backward(epsilon: float, residuals: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]) -> tuple:
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
    """x' y in float32, over all axes but the last: as matrices they would lose XLA's choice of layout."""
    rows = tuple(range(x.ndim - 1))
    return lax.dot_general(x, y, ((rows, rows), ((), ())), preferred_element_type=jnp.float32)


normalize_product.defvjp(_product_forward, _product_backward)
