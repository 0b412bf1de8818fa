"""The depthwise convolution and its gradients on TPU: block-diagonal groups of eight channels, where that is quicker.

Shapes as in depthwise.py.
"""

import jax

from mnet_jax.models import depthwise_grouped
from mnet_jax.models.depthwise_grouped import Padding

# Channels a group: 8 beat 1, 4, 16, 32 and C in v3_large's layers (docs/depthwise.md).
GROUP = 8
# With so many channels the plain gradients are up to twice as quick, though alone they are not: in a network the
# grouped form has its map copied into another layout first. Forward that holds where they fill whole registers.
MANY = 256
LANES = 128


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    channels = x.shape[3]
    group = 1 if channels >= MANY and channels % LANES == 0 else _group(channels)
    return depthwise_grouped.convolve(x, kernel, stride, padding, group)


def input_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, padding: Padding, image: tuple[int, int]
) -> jax.Array:
    return depthwise_grouped.input_gradient(dy, kernel, stride, padding, image, _gradient_group(dy.shape[3]))


def kernel_gradient(x: jax.Array, dy: jax.Array, stride: int, padding: Padding, window: tuple[int, int]) -> jax.Array:
    group = 1 if stride == 1 else _gradient_group(x.shape[3])
    return depthwise_grouped.kernel_gradient(x, dy, stride, padding, window, group)


def _group(channels: int) -> int:
    """Channels a group; make_divisible keeps the family's widths multiples of 8, anything else takes the plain form."""
    return GROUP if channels % GROUP == 0 else 1


def _gradient_group(channels: int) -> int:
    return 1 if channels >= MANY else _group(channels)
