"""The depthwise convolution and its gradients on TPU: block-diagonal groups of eight channels, where that is quicker.

Shapes as in depthwise.py.
"""

import jax
from jax import lax

from mnet_jax.models.ops import depthwise_gpu
from mnet_jax.models.ops.windows import Padding

# Channels a group: 8 beats 1, 16 and 32 in nearly all layers of v3_large (docs/tpu.md).
GROUP = 8
# Channels that fill whole registers: there the plain form is up to twice as quick (all of v1 from its third block on).
LANES = 128
# With so many channels the plain input gradient is up to twice as quick, though alone it is not: in a network XLA makes
# one loop of it and the gradient of the norm and activation before, which suits the grouped form badly. Not so where it
# is dilated (v3_large's last blocks at 512 px and output stride 16: 107.3 M cycles grouped, 112.6 plain).
MANY = 256
# A batch that does not fill the registers' lanes is laid out differently: groups pay only up to here (stem and three
# blocks of v3_large with 64 images: 14.4 instead of 17.5 M cycles), and not at all with few images (stem and four
# blocks of v3_small: 3.64 with and 3.19 without them for 16 images, 3.99 and 4.17 for 32).
NARROW = 16
FEW = 16


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, dilation: int = 1) -> jax.Array:
    return depthwise_gpu.convolve(x, kernel, stride, padding, dilation, _group(x))


def input_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, padding: Padding, image: tuple[int, int], dilation: int = 1
) -> jax.Array:
    many = dy.shape[3] >= MANY
    group = 1 if many and stride == dilation == 1 else _group(dy)
    dx = depthwise_gpu.input_gradient(dy, kernel, stride, padding, image, dilation, group)
    # The barrier keeps the two apart: block_12 of v3_large needs 1.03 M instead of 1.31 M cycles so.
    return lax.optimization_barrier(dx) if many and group > 1 else dx


def kernel_gradient(
    x: jax.Array, dy: jax.Array, stride: int, padding: Padding, window: tuple[int, int], dilation: int = 1
) -> jax.Array:
    group = 1 if stride == 1 else _group(x)
    return depthwise_gpu.kernel_gradient(x, dy, stride, padding, window, dilation, group)


def _group(x: jax.Array) -> int:
    """Channels a group; make_divisible keeps the family's widths multiples of 8, anything else takes the plain form.

    So does a batch whose size is left open (in an exported file).
    """
    images, channels = x.shape[0], x.shape[3]
    if channels % GROUP or channels % LANES == 0 or not isinstance(images, int):
        return 1
    return GROUP if images % LANES == 0 or (images > FEW and channels <= NARROW) else 1
