"""How the pixels of one example came out of its picture, so that whatever lies in the picture can go the same way.

Boxes are (y, x, height, width) in whole pixels; a "picture" is the whole upright image, the "output" what the network
is given of it. A point (y, x) of the picture comes to lie in the output at

    place.y + (y - part.y) * place.height / part.height        and x likewise, mirrored at the end where it is flipped.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Crop:
    """Of one image, or of many with the same leading axes: arrays of tensorflow, NumPy or jax, but for `size`."""

    part: Any  # int32 [..., 4]: what was cut out of the picture; never reaches beyond it
    place: Any  # int32 [..., 4]: where that lies in the output, resized to this box; what it leaves over is void
    flipped: Any  # bool [...]: whether the output was mirrored, left and right, at the end
    picture_size: Any  # int32 [..., 2]: height and width of the picture
    size: tuple[int, int]  # height and width of the output

    def row(self) -> tf.Tensor:
        """Returns one image's numbers as they travel in a batch, int32 [11]."""
        import tensorflow as tf

        return tf.concat([self.part, self.place, tf.cast(self.flipped, tf.int32)[None], self.picture_size], 0)

    @classmethod
    def from_rows(cls, rows: Any, size: tuple[int, int]) -> Crop:
        """Returns the crops of a batch, from its field `crop` int32 [..., 11] and the (height, width) of its images."""
        return cls(rows[..., :4], rows[..., 4:8], rows[..., 8] > 0, rows[..., 9:], size)

    def boxes_to_picture(self, boxes: Any) -> Any:
        """Returns boxes (y1, x1, y2, x2) float32 [..., k, 4] of the output in pixels of the picture, not clipped.

        Of arrays of NumPy or jax, whose leading axes are those of the crop.
        """
        row = (1,) * (boxes.ndim - 1) + (4,)
        sign, offset = np.array([1, -1, 1, -1], np.float32), np.array([0, 1, 0, 1], np.float32) * self.size[1]
        mirrored = boxes[..., [0, 3, 2, 1]] * sign.reshape(row) + offset.reshape(row)
        flipped = self.flipped[..., None, None]
        boxes = mirrored * flipped + boxes * (1 - flipped)
        part, place = self.part[..., None, :], self.place[..., None, :]
        scale = part[..., [2, 3, 2, 3]] / place[..., [2, 3, 2, 3]]
        return ((boxes - place[..., [0, 1, 0, 1]]) * scale + part[..., [0, 1, 0, 1]]).astype(np.float32)

    def map_to_picture(self, values: np.ndarray, void: float) -> np.ndarray:
        """Returns values [H, W, ...] of one image's output at each pixel of its picture, [h, w, ...], by the nearest.

        Pixels of the picture that are not in the output are `void`. Of NumPy arrays.
        """
        values = values[:, ::-1] if self.flipped else values
        rows, columns = (
            _nearest(int(self.picture_size[axis]), self.part[axis::2], self.place[axis::2], self.size[axis])
            for axis in (0, 1)
        )
        found = values[np.maximum(rows, 0)][:, np.maximum(columns, 0)]
        found[(rows < 0)[:, None] | (columns < 0)[None]] = void
        return found


def _nearest(length: int, part: np.ndarray, place: np.ndarray, size: int) -> np.ndarray:
    """Returns the output's pixel for each of `length` pixels of a picture along one axis, -1 where there is none."""
    offset = np.arange(length) - int(part[0])
    found = int(place[0]) + (2 * offset + 1) * int(place[1]) // (2 * int(part[1]))
    seen = (offset >= 0) & (offset < int(part[1])) & (found >= 0) & (found < size)
    return np.where(seen, found, -1)
