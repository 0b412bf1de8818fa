"""Bilinear resizing of maps, as the two rules of the field have it.

Each side is one product with a small matrix, which every backend is quick at, and whose gradients are such products.
"""

import jax
import jax.numpy as jnp
import numpy as np


def upsample(x: jax.Array, size: tuple[int, int], *, align_corners: bool) -> jax.Array:
    """Returns maps [N, h, w, C] resized bilinearly to [N, *size, C], in x's dtype; `size` is (height, width).

    A map that is made smaller is sampled, not averaged.

    Args:
      x: floating point [N, h, w, C].
      size: of the result.
      align_corners: True: the centres of the corner pixels stay where they are (TensorFlow's DeepLab). False: the
        corners of the map do, so that pixel i of the result lies at (i + .5) h / height - .5 (PyTorch's default;
        TensorFlow's half_pixel_centers), and what lies beyond the outermost centres has their values.

    Raises:
      ValueError: if x has not four axes, or the size is not positive.
    """
    if x.ndim != 4 or len(size) != 2 or min(size) < 1:
        raise ValueError(f"upsample got maps {x.shape} and size {size}; allowed: [N, h, w, C] and two positive sides")
    dtype = x.dtype
    x = x.astype(jnp.promote_types(dtype, jnp.float32))
    exact = jax.lax.Precision.HIGHEST
    if size[1] != x.shape[2]:  # columns first: fewer rows then
        x = jnp.einsum(
            "ow,nhwc->nhoc", _weights(x.shape[2], size[1], align_corners).astype(x.dtype), x, precision=exact
        )
    if size[0] != x.shape[1]:
        x = jnp.einsum(
            "oh,nhwc->nowc", _weights(x.shape[1], size[0], align_corners).astype(x.dtype), x, precision=exact
        )
    return x.astype(dtype)


def _weights(given: int, wanted: int, align_corners: bool) -> np.ndarray:
    """Returns float64 [wanted, given]: what each value of the result has of each that is given."""
    index = np.arange(wanted, dtype=np.float64)
    if align_corners:
        place = index * ((given - 1) / max(wanted - 1, 1))
    else:
        place = np.clip((index + 0.5) * (given / wanted) - 0.5, 0, given - 1)
    low = np.minimum(place.astype(np.int64), given - 1)
    high = np.minimum(low + 1, given - 1)
    share = place - low
    weights = np.zeros((wanted, given))
    rows = np.arange(wanted)
    np.add.at(weights, (rows, low), 1 - share)
    np.add.at(weights, (rows, high), share)
    return weights
