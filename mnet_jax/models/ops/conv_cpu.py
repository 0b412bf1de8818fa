"""The convolution over all channels and its gradients on CPU. Shapes as in conv.py.

XLA:CPU gives plain convolutions to YNN, which (in jax 0.10) uses one thread, and convolutions of an input with zeros
between its rows to Eigen, which uses all threads and skips the zeros. So here every second row of the input and of the
kernel is zero, at twice the stride: the same sums in half the time on two cores (docs/depthwise.md).
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.models.ops.windows import Padding, from_phases, output_size, padded, shifted

# The loop is the faster form of up to 36 multiply-adds a value (kh kw I), with 16 to 128 features.
LOOP_TAPS = 36


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding, dilation: int = 1) -> jax.Array:
    """Returns the convolution; of few channels, as an image's three, in one loop, which norm and activation join."""
    in_loop = math.prod(kernel.shape[:3]) <= LOOP_TAPS
    return (_convolve_in_loop if in_loop else _convolve_spread)(x, kernel, stride, padding, dilation)


def gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, *, stride: int, padding: Padding, dilation: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of x and of the kernel."""
    (dkernel,) = jax.linear_transpose(lambda kernel: _convolve_spread(x, kernel, stride, padding, dilation), kernel)(dy)
    return _input_gradient(dy, kernel, stride, padding, x.shape[1:3], dilation), dkernel


def _convolve_in_loop(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, dilation: int) -> jax.Array:
    """Makes kh kw I multiply-adds in one loop, each of one input channel with the vector of all output features."""
    kh, kw, channels, _ = kernel.shape
    out = output_size(x.shape[1:3], (kh, kw), stride, padding, dilation)
    dtype, x = x.dtype, padded(x, padding)
    kernel = kernel.astype(x.dtype)
    taps = [
        shifted(x, i * dilation, j * dilation, stride, out)[..., c : c + 1] * kernel[None, None, i, j, c : c + 1]
        for i in range(kh)
        for j in range(kw)
        for c in range(channels)
    ]
    return sum(taps[1:], start=taps[0]).astype(dtype)


def _convolve_spread(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, dilation: int) -> jax.Array:
    """XLA's convolution, the rows of x and of the kernel apart by one row of zeros; these always meet."""
    (low, high), columns = padding
    return lax.conv_general_dilated(
        x,
        kernel,
        (2 * stride, stride),
        ((2 * low, 2 * high), columns),
        lhs_dilation=(2, 1),
        rhs_dilation=(2 * dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _input_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, padding: Padding, image: tuple[int, int], dilation: int
) -> jax.Array:
    """Makes a convolution at stride 1 for each phase of the stride, as in depthwise_cpu.py.

    Row stride * a + p of the padded image receives dy[a - m] kernel[p + stride * m]^T for every m; columns likewise.
    """
    kernel = kernel.swapaxes(2, 3)

    def phase(p: int, q: int, size: tuple[int, int]) -> jax.Array:
        taps = kernel[p::stride, q::stride][::-1, ::-1]
        (kh, kw), (images, rows, columns) = taps.shape[:2], dy.shape[:3]
        if not kh * kw:  # a kernel smaller than the stride
            return jnp.zeros((images, *size, kernel.shape[3]), dy.dtype)
        reach_h, reach_w = (kh - 1) * dilation, (kw - 1) * dilation
        around = ((reach_h, size[0] - rows), (reach_w, size[1] - columns))
        return _convolve_spread(dy, taps, 1, around, dilation)

    return from_phases(phase, stride, padding, image)
