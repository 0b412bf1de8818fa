"""The convolution over all channels and its gradients on CPU. Shapes as in conv.py.

XLA:CPU gives plain convolutions to YNN, which (in jax 0.10) uses one thread, and convolutions of an input with zeros
between its rows to Eigen, which uses all threads and skips the zeros. So here every second row of the input and of the
kernel is zero, at twice the stride: the same sums in half the time on two cores (docs/depthwise.md).

A dilated kernel is one product of matrices a tap, over the part of the map that the tap sees: with the rates of
DeepLab most taps see little of a map, or nothing. XLA's own form has no second derivatives here (jax 0.10: its
simplifier aborts).
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.models.ops import pointwise
from mnet_jax.models.ops.windows import Padding, from_phases, output_size, padded, shifted

# The loop is the faster form of up to 36 multiply-adds a value (kh kw I), with 16 to 128 features.
LOOP_TAPS = 36


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding, dilation: int = 1) -> jax.Array:
    """Returns the convolution; of few channels, as an image's three, in one loop, which norm and activation join."""
    if dilation > 1:
        return _convolve_by_taps(x, kernel, padding, dilation)
    in_loop = math.prod(kernel.shape[:3]) <= LOOP_TAPS
    return (_convolve_in_loop if in_loop else _convolve_spread)(x, kernel, stride, padding)


def gradients(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, *, stride: int, padding: Padding, dilation: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of x and of the kernel."""
    if dilation > 1:
        return pointwise.gradients(lambda x, kernel: _convolve_by_taps(x, kernel, padding, dilation), x, kernel, dy)
    (dkernel,) = jax.linear_transpose(lambda kernel: _convolve_spread(x, kernel, stride, padding), kernel)(dy)
    return _input_gradient(dy, kernel, stride, padding, x.shape[1:3]), dkernel


def _convolve_by_taps(x: jax.Array, kernel: jax.Array, padding: Padding, dilation: int) -> jax.Array:
    """Makes a product of matrices for each tap of the kernel, of those positions alone where it does not see zeros."""
    out = output_size(x.shape[1:3], kernel.shape[:2], 1, padding, dilation)
    dtype = x.dtype
    x, kernel = (a.astype(jnp.promote_types(dtype, jnp.float32)) for a in (x, kernel))
    total = jnp.zeros((x.shape[0], *out, kernel.shape[3]), x.dtype)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            shifts = [tap * dilation - low for tap, (low, _) in zip((i, j), padding, strict=True)]
            first = [max(0, -shift) for shift in shifts]
            end = [min(y, size - shift) for y, size, shift in zip(out, x.shape[1:3], shifts, strict=True)]
            if any(low >= high for low, high in zip(first, end, strict=True)):
                continue
            rows, columns = (slice(low + s, high + s) for low, high, s in zip(first, end, shifts, strict=True))
            seen = x[:, rows, columns]
            product = jnp.matmul(seen.reshape(-1, x.shape[3]), kernel[i, j]).reshape(*seen.shape[:3], -1)
            around = [(low, y - high, 0) for low, high, y in zip(first, end, out, strict=True)]
            total += lax.pad(product, jnp.zeros((), x.dtype), ((0, 0, 0), *around, (0, 0, 0)))
    return total.astype(dtype)


def _convolve_in_loop(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Makes kh kw I multiply-adds in one loop, each of one input channel with the vector of all output features."""
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


def _convolve_spread(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """XLA's convolution, the rows of x and of the kernel apart by one row of zeros; these always meet."""
    (low, high), columns = padding
    return lax.conv_general_dilated(
        x,
        kernel,
        (2 * stride, stride),
        ((2 * low, 2 * high), columns),
        lhs_dilation=(2, 1),
        rhs_dilation=(2, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _input_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, padding: Padding, image: tuple[int, int]
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
        return _convolve_spread(dy, taps, 1, ((kh - 1, size[0] - rows), (kw - 1, size[1] - columns)))

    return from_phases(phase, stride, padding, image)
