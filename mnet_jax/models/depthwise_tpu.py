"""The depthwise convolution and its gradients on TPU: block-diagonal groups of eight channels.

Shapes as in depthwise.py.
"""

import jax

from mnet_jax.models import depthwise_grouped
from mnet_jax.models.depthwise_grouped import Padding

# Channels a group: 8 beat 1, 4, 16, 32 and C in v3_large's layers (docs/depthwise.md).
GROUP = 8


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    return depthwise_grouped.convolve(x, kernel, stride, padding, _group(x.shape[3]))


def input_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, padding: Padding, image: tuple[int, int]
) -> jax.Array:
    return depthwise_grouped.input_gradient(dy, kernel, stride, padding, image, _group(dy.shape[3]))


def kernel_gradient(x: jax.Array, dy: jax.Array, stride: int, padding: Padding, window: tuple[int, int]) -> jax.Array:
    return depthwise_grouped.kernel_gradient(x, dy, stride, padding, window, 1 if stride == 1 else _group(x.shape[3]))


def _group(channels: int) -> int:
    """Channels a group; make_divisible keeps the family's widths multiples of 8, anything else takes the plain form."""
    return GROUP if channels % GROUP == 0 else 1
