"""mistakes.png: the pictures that a model was most sure of and wrong about."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from mnet_jax.plotting import ORANGE, png, shortened

_COLUMNS = 6
_CELL_WIDTH, _CELL_HEIGHT, _SIDE, _TOP = 1.75, 2.25, 1.62, 0.5  # inches: a picture with its text, a picture, the title
_LONGEST = 24  # characters of a line under a picture


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One picture, uint8 [H, W, 3], and what it was taken for."""

    pixels: np.ndarray
    true: str
    predicted: str
    probability: float
    file: str


def draw_mistakes(mistakes: Sequence[Mistake], *, num_wrong: int, num_images: int, title: str) -> bytes:
    """A PNG sheet of thumbnails, the surest mistake first; says so where there are none."""
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, max(len(mistakes), 3))
    rows = max(1, -(-len(mistakes) // columns))
    width, height = columns * _CELL_WIDTH, rows * _CELL_HEIGHT + _TOP
    figure = Figure(figsize=(width, height), dpi=120)
    shown = f"; the {len(mistakes)} surest" if len(mistakes) < num_wrong else ""
    heading = f"{title}: {num_wrong:,} of {num_images:,} wrong{shown}"
    figure.text(0.5, 1 - 0.16 / height, heading, fontsize=11, ha="center", va="top", parse_math=False)
    for place, mistake in enumerate(mistakes):
        row, column = divmod(place, columns)
        left, top = column * _CELL_WIDTH + (_CELL_WIDTH - _SIDE) / 2, height - _TOP - row * _CELL_HEIGHT
        axes = figure.add_axes((left / width, (top - _SIDE) / height, _SIDE / width, _SIDE / height))
        axes.set_axis_off()
        axes.imshow(mistake.pixels)
        lines = (
            (f"{shortened(mistake.predicted, _LONGEST - 6)} {100 * mistake.probability:.0f} %", ORANGE, 8),
            (f"is {shortened(mistake.true, _LONGEST - 3)}", "black", 8),
            (shortened(os.path.basename(mistake.file), _LONGEST), "#707070", 6.5),
        )
        for line, (text, color, size) in enumerate(lines):
            x, y = (left + _SIDE / 2) / width, (top - _SIDE - 0.05 - 0.155 * line) / height
            figure.text(x, y, text, color=color, fontsize=size, ha="center", va="top", parse_math=False)
    if not mistakes:
        figure.text(0.5, 0.45, "no mistakes", ha="center", color="#707070")
    return png(figure)
