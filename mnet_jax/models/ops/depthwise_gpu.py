"""The depthwise convolution and its gradients as XLA's own grouped convolution, for any backend.

Shapes as in depthwise.py.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.models.ops.windows import Padding


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, dilation: int = 1, group: int = 1
) -> jax.Array:
    """Makes it one `lax.conv_general_dilated` with block-diagonal kernels of `group` channels; C % group == 0."""
    return lax.conv_general_dilated(
        x,
        _block_diagonal(kernel, group),
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // group,
    )


def input_gradient(
    dy: jax.Array,
    kernel: jax.Array,
    stride: int,
    padding: Padding,
    image: tuple[int, int],
    dilation: int = 1,
    group: int = 1,
) -> jax.Array:
    """Makes it a convolution of the dilated dy with the flipped kernel, in groups of `group` channels."""
    back = []
    for size, k, out, (low, _) in zip(image, kernel.shape[:2], dy.shape[1:3], padding, strict=True):
        back.append(((k - 1) * dilation - low, size + low - (out - 1) * stride - 1))
    return lax.conv_general_dilated(
        dy,
        _block_diagonal(kernel[::-1, ::-1], group),  # symmetric within a group: its transpose is itself
        (1, 1),
        back,
        lhs_dilation=(stride, stride),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=dy.shape[3] // group,
    )


def kernel_gradient(
    x: jax.Array,
    dy: jax.Array,
    stride: int,
    padding: Padding,
    window: tuple[int, int],
    dilation: int = 1,
    group: int = 1,
) -> jax.Array:
    """Makes it XLA's transpose of the grouped convolution: the diagonal of its blocks."""
    forward = functools.partial(convolve, stride=stride, padding=padding, dilation=dilation, group=group)
    zeros = jax.ShapeDtypeStruct((*window, 1, x.shape[3]), x.dtype)
    (gradient,) = jax.linear_transpose(lambda kernel: forward(x, kernel), zeros)(dy)
    return gradient


def _block_diagonal(kernel: jax.Array, group: int) -> jax.Array:
    """Returns [kh, kw, group, C]: zero but where the input channel of the group is the output's own."""
    if group == 1:
        return kernel
    channels = kernel.shape[3]
    own = jnp.arange(channels)[None, :] % group == jnp.arange(group)[:, None]
    return jnp.where(own[None, None], kernel, jnp.zeros((), kernel.dtype))
