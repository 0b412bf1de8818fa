"""The convolution over all channels (stems, V4's first blocks): XLA's own, but for its kernel gradient on CPU.

XLA:CPU computes that gradient as a convolution whose window is the whole map, and transposes both sides first. One
product of matrices for each row of the kernel is two to three times faster (docs/depthwise.md).

Shapes: x [N, H, W, I], kernel [kh, kw, I, O], y and dy [N, OH, OW, O].
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.models.depthwise_grouped import Padding

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# With fewer features XLA's form is the faster one: 8.1 against 10.4 ms with 16, but 41 against 13 with 32 (batch 16,
# 224 px, stride 2).
CPU_FEATURES = 32


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def dense_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Convolution (cross-correlation) with explicit zero padding; reverse-mode derivatives of any order."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return dense_conv(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Padding, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    convolve = functools.partial(
        lax.conv_general_dilated, window_strides=(stride, stride), padding=padding, dimension_numbers=_LAYOUT
    )
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
