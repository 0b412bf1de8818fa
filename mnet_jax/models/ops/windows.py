"""What all convolutions know of windows over a map: padding, sizes, and the values that a tap of the kernel sees."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Padding = tuple[tuple[int, int], tuple[int, int]]


def output_size(
    image: tuple[int, int], kernel: tuple[int, int], stride: int, padding: Padding, dilation: int = 1
) -> tuple[int, int]:
    """Returns (OH, OW) of a convolution over an image (H, W); taps of the kernel are `dilation` rows apart."""
    return tuple(
        (i + low + high - (k - 1) * dilation - 1) // stride + 1
        for i, k, (low, high) in zip(image, kernel, padding, strict=True)
    )


def largest_divisor(size: int, most: int) -> int:
    """Returns the largest divisor of `size` that is at most `most`."""
    return max(n for n in range(1, most + 1) if size % n == 0)


def padded(x: jax.Array, padding: Padding) -> jax.Array:
    """Returns x with zeros around it, at least float32, written once: without the barrier every tap may pad anew."""
    return lax.optimization_barrier(_pad(x, padding).astype(jnp.promote_types(x.dtype, jnp.float32)))


def from_phases(
    phase: Callable[[int, int, tuple[int, int]], jax.Array], stride: int, padding: Padding, image: tuple[int, int]
) -> jax.Array:
    """Returns the image [N, *image, C] from one map a phase of the stride, phase(p, q, size): [N, *size, C].

    That map holds rows stride * a + p and columns stride * b + q of the padded image.
    """
    (low_h, _), (low_w, _) = padding
    height, width = size = -(-(image[0] + low_h) // stride), -(-(image[1] + low_w) // stride)
    rows = [jnp.stack([phase(p, q, size) for q in range(stride)], axis=3) for p in range(stride)]
    whole = jnp.stack(rows, axis=2)
    whole = whole.reshape(whole.shape[0], height * stride, width * stride, whole.shape[-1])
    crop = ((-low_h, low_h + image[0] - height * stride), (-low_w, low_w + image[1] - width * stride))
    return _pad(whole, crop)


def _pad(x: jax.Array, padding: Padding) -> jax.Array:
    """Returns x [N, H, W, C] with zeros around it; negative amounts crop."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)))


def shifted(x: jax.Array, i: int, j: int, stride: int, out: tuple[int, int]) -> jax.Array:
    """Returns what tap (i, j) sees: [N, *out, C], every `stride`-th row from i and column from j."""
    end = (x.shape[0], i + (out[0] - 1) * stride + 1, j + (out[1] - 1) * stride + 1, x.shape[3])
    return lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1))
