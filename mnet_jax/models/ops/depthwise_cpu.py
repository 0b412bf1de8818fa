"""The depthwise convolution and its gradients on CPU, as element-wise loops. Shapes as in depthwise.py.

XLA:CPU has no fast grouped convolution, but vectorises element-wise loops over the channels and splits them over its
threads.
"""

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.models.ops.windows import Padding, from_phases, largest_divisor, output_size, padded, shifted

# Kernel gradient: rows (or images) summed in registers, and taps that share one loop. 8 x 10 multiply-adds are about
# what LLVM still unrolls; beyond that it stops vectorising and the gradient is five times slower.
CHAIN = 8
TAPS = 10


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, dilation: int = 1) -> jax.Array:
    """Makes kh * kw shifted multiply-adds in one fused loop; dilation is a longer shift."""
    kh, kw = kernel.shape[:2]
    out = output_size(x.shape[1:3], (kh, kw), stride, padding, dilation)
    dtype, x = x.dtype, padded(x, padding)
    kernel = kernel.astype(x.dtype)
    taps = [
        shifted(x, i * dilation, j * dilation, stride, out) * kernel[None, None, i, j]
        for i in range(kh)
        for j in range(kw)
    ]
    return sum(taps[1:], start=taps[0]).astype(dtype)


def input_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, padding: Padding, image: tuple[int, int], dilation: int = 1
) -> jax.Array:
    """Makes one small convolution a phase (polyphase form), so that no multiply-add meets a zero of a dilated dy.

    Row stride * a + p of the padded image receives dy[a - m] * kernel[p + stride * m] for every m; columns likewise.
    With a dilation the stride is 1: row a receives dy[a - dilation * m] * kernel[m].
    """
    kh, kw = kernel.shape[:2]
    (reach_h, _), (reach_w, _) = around = _around(dy.shape[1:3], (kh, kw), stride, padding, image, dilation)
    dtype, dy = dy.dtype, padded(dy, around)
    kernel = kernel.astype(dy.dtype)

    def phase(p: int, q: int, size: tuple[int, int]) -> jax.Array:
        total = jnp.zeros((dy.shape[0], *size, dy.shape[3]), dy.dtype)
        for i in range(p, kh, stride):
            for j in range(q, kw, stride):
                seen = shifted(dy, reach_h - i // stride * dilation, reach_w - j // stride * dilation, 1, size)
                total += seen * kernel[None, None, i, j]
        return total.astype(dtype)

    return from_phases(phase, stride, padding, image)


def kernel_gradient(
    x: jax.Array, dy: jax.Array, stride: int, padding: Padding, window: tuple[int, int], dilation: int = 1
) -> jax.Array:
    """Products of x and dy summed over a few rows (or images) in registers, then small sums over what is left."""
    dtype, out = x.dtype, dy.shape[1:3]
    # dy as the input gradient pads it: the same operation, so that XLA computes and stores dy once for both.
    around = _around(out, window, stride, padding, x.shape[1:3], dilation)
    dy = shifted(padded(dy, around), around[0][0], around[1][0], 1, out)
    x = padded(x, padding)
    images, rows = (largest_divisor(size, CHAIN) for size in dy.shape[:2])
    axis, chain = (1, rows) if rows >= min(5, images) else (0, images)  # images where rows do not divide well
    size = dy.shape[axis]
    chain = chain if chain >= 4 else min(size, CHAIN)
    whole = size - size % chain
    total = _summed_products(x, lax.slice_in_dim(dy, 0, whole, axis=axis), stride, window, dilation, axis, chain)
    if whole < size:
        x = lax.slice_in_dim(x, whole * (stride if axis == 1 else 1), None, axis=axis)
        rest = lax.slice_in_dim(dy, whole, size, axis=axis)
        total += _summed_products(x, rest, stride, window, dilation, axis, size - whole)
    return total.astype(dtype)


def _summed_products(
    x: jax.Array, dy: jax.Array, stride: int, window: tuple[int, int], dilation: int, axis: int, chain: int
) -> jax.Array:
    """Returns the kernel gradient [kh, kw, 1, C] of padded x and a dy whose `axis` (0 or 1) is a multiple of `chain`.

    Several taps share one loop, because a reduction of several operands is the one operation that XLA:CPU fuses,
    vectorises and splits over its threads with more than one result: a value of x or dy is loaded once for all of them.
    """
    channels = dy.shape[3]
    out = dy.shape[1:3]
    parts = (*dy.shape[:axis], dy.shape[axis] // chain, chain, *dy.shape[axis + 1 :])
    taps = [(i, j) for i in range(window[0]) for j in range(window[1])]
    together = max(1, TAPS // window[1]) * window[1]
    sums = []
    for first in range(0, len(taps), together):
        group = taps[first : first + together]
        seen = [shifted(x[: dy.shape[0]], i * dilation, j * dilation, stride, out) for i, j in group]
        products = [(values * dy).reshape(parts) for values in seen]
        zeros = [jnp.zeros((), x.dtype)] * len(group)
        sums += lax.reduce(products, zeros, lambda a, b: [p + q for p, q in zip(a, b, strict=True)], (axis + 1,))
    return jnp.stack([part.reshape(-1, channels).sum(axis=0) for part in sums]).reshape(*window, 1, channels)


def _around(
    out: tuple[int, int],
    window: tuple[int, int],
    stride: int,
    padding: Padding,
    image: tuple[int, int],
    dilation: int,
) -> Padding:
    """Zeros that the polyphase input gradient needs around dy: a phase's reach before, up to the image's end after."""
    sizes = zip(image, padding, window, out, strict=True)
    return tuple(
        ((k - 1) // stride * dilation, max(0, -(-(size + low) // stride) - y)) for size, (low, _), k, y in sizes
    )
