"""What each pixel of a picture is said to be, and how often that is so: confusion matrices in the picture's own pixels.

Logits lie on a grid of their own. The picture's pixels are looked up there directly: through its Crop into the
network's input, and from there onto the grid, bilinearly; nothing is rounded on the way. A strip of rows at a time, so
that a large picture needs little memory.
"""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnet_jax.data.crop import Crop

_STRIP = 32  # rows of the picture at a time


def sampling(
    pixels: Any, crop: Crop, axis: int, given: int, *, align_corners: bool, xp: ModuleType = jnp
) -> jax.Array | np.ndarray:
    """Returns the share of each of `given` places of a grid in pixels of one picture along an axis, [n, given].

    Args:
      pixels: numbers of rows (axis 0) or columns (axis 1) of the picture, int [n].
      crop: of one image.
      axis: 0 or 1.
      given: places of the grid along this axis, all over the network's input.
      align_corners: whether the grid's outermost places are at the centres of the input's outermost pixels; else its
        outermost edges are the input's (`models.ops.bilinear`).
      xp: numpy or jax.numpy, of which the result is.
    """
    size = crop.size[axis]
    part, place = crop.part[axis::2], crop.place[axis::2]
    at = place[0] + (pixels + 0.5 - part[0]) * (place[1] / part[1]) - 0.5  # in pixels of the input
    if axis == 1:
        at = xp.where(crop.flipped, size - 1 - at, at)
    at = at * ((given - 1) / max(size - 1, 1)) if align_corners else (at + 0.5) * (given / size) - 0.5
    at = xp.clip(at, 0, given - 1)
    return xp.maximum(0, 1 - xp.abs(at[:, None] - xp.arange(given)[None])).astype(np.float32)


def picture_classes(logits: np.ndarray, crop: Crop, *, align_corners: bool) -> np.ndarray:
    """Returns the class of each pixel of one picture, uint8 [height, width], from its logits [h, w, C]; in NumPy."""
    height, width = (int(side) for side in crop.picture_size)
    rows, columns = (
        sampling(np.arange(side), crop, axis, logits.shape[axis], align_corners=align_corners, xp=np)
        for axis, side in enumerate((height, width))
    )
    wide = np.einsum("ow,hwc->hoc", columns, logits, optimize=True)
    found = [
        np.einsum("oh,hwc->owc", rows[start : start + _STRIP], wide, optimize=True).argmax(-1)
        for start in range(0, height, _STRIP)
    ]
    return np.concatenate(found).astype(np.uint8)


def confusion(logits: jax.Array, truth: jax.Array, crop: Crop, *, align_corners: bool) -> jax.Array:
    """Returns how many pixels of each picture are of class i and said to be of class j, int32 [N, C, C].

    Args:
      logits: [N, h, w, C].
      truth: uint8 [N, H, W], H and W at least those of each picture; what is no class counts for nothing.
      crop: of these images.
      align_corners: see `sampling`.
    """
    num_classes, (height, width) = logits.shape[-1], truth.shape[1:]
    strips = -(-height // _STRIP)
    truth = jnp.pad(truth, ((0, 0), (0, strips * _STRIP - height), (0, 0)), constant_values=255)
    exact = jax.lax.Precision.HIGHEST

    def of_image(each: tuple) -> jax.Array:
        logits, truth, part, place, flipped, picture_size = each
        crop_of = Crop(part, place, flipped, picture_size, crop.size)
        columns = sampling(jnp.arange(width), crop_of, 1, logits.shape[1], align_corners=align_corners)
        wide = jnp.einsum("ow,hwc->hoc", columns, logits.astype(jnp.float32), precision=exact)

        def strip(number: jax.Array, counts: jax.Array) -> jax.Array:
            pixels = number * _STRIP + jnp.arange(_STRIP)
            rows = sampling(pixels, crop_of, 0, logits.shape[0], align_corners=align_corners)
            said = jnp.einsum("oh,hwc->owc", rows, wide, precision=exact).argmax(-1).reshape(-1)
            true = jax.lax.dynamic_slice_in_dim(truth, number * _STRIP, _STRIP).reshape(-1).astype(jnp.int32)
            said, true = (jax.nn.one_hot(values, num_classes, dtype=jnp.float32) for values in (said, true))
            return counts + jnp.einsum("pi,pj->ij", true, said).astype(jnp.int32)  # at most 2 ** 24 pixels: exact

        used = -(-picture_size[0] // _STRIP)
        return jax.lax.fori_loop(0, jnp.minimum(used, strips), strip, jnp.zeros((num_classes,) * 2, jnp.int32))

    return jax.lax.map(of_image, (logits, truth, crop.part, crop.place, crop.flipped, crop.picture_size))
