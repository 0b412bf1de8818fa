"""The convolution over all channels (stems, V4's first blocks): XLA's own, but for CPU (conv_cpu.py).

Shapes: x [N, H, W, I], kernel [kh, kw, I, O], y and dy [N, OH, OW, O].
"""

import functools

import jax
from jax import lax

from mnet_jax.models.ops import conv_cpu
from mnet_jax.models.ops.pointwise import gradients
from mnet_jax.models.ops.windows import Padding


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def dense_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Returns the convolution (cross-correlation) with explicit zero padding; reverse-mode derivatives of any order."""
    cpu, other = (functools.partial(form, stride=stride, padding=padding) for form in (conv_cpu.convolve, _convolve))
    return lax.platform_dependent(x, kernel, cpu=cpu, default=other)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return dense_conv(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Padding, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    cpu, other = (functools.partial(form, stride=stride, padding=padding) for form in (conv_cpu.gradients, _gradients))
    return lax.platform_dependent(*saved, dy, cpu=cpu, default=other)


dense_conv.defvjp(_forward, _backward)


def _convolve(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, *, stride: int, padding: Padding
) -> tuple[jax.Array, jax.Array]:
    return gradients(functools.partial(_convolve, stride=stride, padding=padding), x, kernel, dy)
