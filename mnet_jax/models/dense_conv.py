"""The convolution over all channels (stems, V4's first blocks): XLA's own, but for three forms on CPU.

- Of few channels, as an image's three: one fused loop, like the depthwise convolution's.
- Of more: with every second row of input and kernel zero, at twice the stride. XLA:CPU gives plain convolutions to YNN,
  which computes them in one thread, and those with zeros between the rows to Eigen, which uses all threads and skips
  the zeros: half the time on two cores, for the same sums.
- The kernel gradient: XLA:CPU computes a convolution whose window is the whole map, and transposes both sides first.
  One product of matrices for each row of the kernel is two to three times faster.

Milliseconds: docs/depthwise.md.
Shapes: x [N, H, W, I], kernel [kh, kw, I, O], y and dy [N, OH, OW, O].
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.models.depthwise_cpu import padded, shifted
from mnet_jax.models.depthwise_grouped import Padding, output_size

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# With fewer features XLA's form is the faster one: 8.1 against 10.4 ms with 16, but 41 against 13 with 32 (batch 16,
# 224 px, stride 2).
CPU_FEATURES = 32
# The loop is the faster form of up to 36 multiply-adds a value (kh kw I), with 16 to 128 features.
LOOP_TAPS = 36


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def dense_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Convolution (cross-correlation) with explicit zero padding; reverse-mode derivatives of any order."""
    options = {"stride": stride, "padding": padding}
    on_cpu = _convolve_in_loop if math.prod(kernel.shape[:3]) <= LOOP_TAPS else _convolve_spread
    cpu, other = (functools.partial(form, **options) for form in (on_cpu, _convolve))
    return lax.platform_dependent(x, kernel, cpu=cpu, default=other)


def _convolve(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT)


def _convolve_spread(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    """The same sums: rows of x and of the kernel apart by one row of zeros, which always meet."""
    (low, high), columns = padding
    return lax.conv_general_dilated(
        x,
        kernel,
        (2 * stride, stride),
        ((2 * low, 2 * high), columns),
        lhs_dilation=(2, 1),
        rhs_dilation=(2, 1),
        dimension_numbers=_LAYOUT,
    )


def _convolve_in_loop(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    """kh kw I multiply-adds in one loop, each of one input channel with the vector of all output features."""
    kh, kw, channels, _ = kernel.shape
    out = output_size(x.shape[1:3], (kh, kw), stride, padding)
    dtype, x = x.dtype, padded(x, padding)
    kernel = kernel.astype(x.dtype)
    taps = [
        shifted(x, i, j, stride, out)[..., c : c + 1] * kernel[None, None, i, j, c : c + 1]
        for i in range(kh)
        for j in range(kw)
        for c in range(channels)
    ]
    return sum(taps[1:], start=taps[0]).astype(dtype)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return dense_conv(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Padding, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    convolve = functools.partial(_convolve, stride=stride, padding=padding)
    (dx,) = jax.linear_transpose(lambda x: convolve(x, kernel), x)(dy)

    def plain(x: jax.Array, dy: jax.Array) -> jax.Array:
        (gradient,) = jax.linear_transpose(lambda kernel: convolve(x, kernel), kernel)(dy)
        return gradient

    if kernel.shape[3] < CPU_FEATURES:
        return dx, plain(x, dy)
    by_rows = functools.partial(_kernel_gradient_by_rows, stride=stride, padding=padding, window=kernel.shape[:2])
    return dx, lax.platform_dependent(x, dy, cpu=by_rows, default=plain)


def _kernel_gradient_by_rows(
    x: jax.Array, dy: jax.Array, *, stride: int, padding: Padding, window: tuple[int, int]
) -> jax.Array:
    """For each row of the kernel, what its taps see side by side, [positions, kw I], transposed times dy."""
    (images, height, width, features), channels = dy.shape, x.shape[3]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)))
    x = lax.optimization_barrier(x)  # padded once, not in every row anew
    dy = dy.reshape(-1, features)

    def row(i: int) -> jax.Array:
        ends = (images, i + (height - 1) * stride + 1)
        taps = [
            lax.slice(x, (0, i, j, 0), (*ends, j + (width - 1) * stride + 1, channels), (1, stride, stride, 1))
            for j in range(window[1])
        ]
        seen = lax.optimization_barrier(jnp.concatenate(taps, axis=3)).reshape(-1, window[1] * channels)
        product = lax.dot_general(seen, dy, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        return product.reshape(window[1], channels, features)

    return jnp.stack([row(i) for i in range(window[0])]).astype(x.dtype)


dense_conv.defvjp(_forward, _backward)
