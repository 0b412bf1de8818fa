"""The convolution over all channels (stems, V4's first blocks): XLA's own, but for CPU (conv_cpu.py).

Shapes: x [N, H, W, I], kernel [kh, kw, I, O], y and dy [N, OH, OW, O]. A kernel of fewer than I channels is that of
groups: the first O / groups features come from the first I / groups channels, and so on.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.models.ops import conv_cpu
from mnet_jax.models.ops.pointwise import gradients
from mnet_jax.models.ops.windows import Padding


def dense_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, dilation: int = 1) -> jax.Array:
    """Returns the convolution (cross-correlation) with explicit zero padding; reverse-mode derivatives of any order.

    The taps of a dilated kernel are `dilation` rows and columns apart; its stride is 1.
    """
    if dilation > 1 and stride > 1:
        raise ValueError(f"dense_conv got stride {stride} and dilation {dilation}; allowed: dilation with stride 1")
    groups = x.shape[-1] // kernel.shape[2]
    if groups == 1:
        return _one_group(x, kernel, stride, padding, dilation)
    pairs = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate([_one_group(*pair, stride, padding, dilation) for pair in pairs], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _one_group(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, dilation: int) -> jax.Array:
    cpu, other = _options((conv_cpu.convolve, _convolve), stride, padding, dilation)
    return lax.platform_dependent(x, kernel, cpu=cpu, default=other)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, dilation: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _one_group(x, kernel, stride, padding, dilation), (x, kernel)


def _backward(
    stride: int, padding: Padding, dilation: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    cpu, other = _options((conv_cpu.gradients, _gradients), stride, padding, dilation)
    return lax.platform_dependent(*saved, dy, cpu=cpu, default=other)


_one_group.defvjp(_forward, _backward)


def _options(forms: tuple[Callable, Callable], stride: int, padding: Padding, dilation: int) -> list[Callable]:
    return [functools.partial(form, stride=stride, padding=padding, dilation=dilation) for form in forms]


def _convolve(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding, dilation: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, *, stride: int, padding: Padding, dilation: int
) -> tuple[jax.Array, jax.Array]:
    convolve = functools.partial(_convolve, stride=stride, padding=padding, dilation=dilation)
    return gradients(convolve, x, kernel, dy)
