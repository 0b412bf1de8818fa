"""Boxes drawn on photos, and the sheet of mistakes that a report has."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from mnet_jax.plotting import BLUE, COLOURS, GREY, ORANGE, png, shortened

_COLUMNS, _CELL, _TEXT, _TOP = 4, 2.4, 0.62, 0.5  # of the sheet, inches: a picture's side, its text, the title


@dataclasses.dataclass(frozen=True)
class Box:
    """One box to draw on a picture."""

    corners: Sequence[float]  # y1, x1, y2, x2 in pixels of the picture
    colour: str
    text: str = ""


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A picture, uint8 [H, W, 3], with what was said of it and what is there."""

    pixels: np.ndarray
    said: Box
    there: Sequence[Box]
    lines: tuple[str, str]  # what was said; what is true
    file: str


def colour(number: int) -> str:
    """Returns the colour of a class."""
    return COLOURS[number % len(COLOURS)]


def draw_boxes(pixels: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Returns a copy of a picture uint8 [H, W, 3] with boxes drawn on it, the last one on top."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    size = max(11, round(max(picture.size) / 50))
    wide, font = max(1, round(max(picture.size) / 250)), ImageFont.load_default(size)
    right, bottom = picture.width - 1, picture.height - 1
    for box in boxes:
        y1, x1, y2, x2 = (float(value) for value in box.corners)
        x1, x2 = sorted(min(max(x, 0), right) for x in (x1, x2))
        y1, y2 = sorted(min(max(y, 0), bottom) for y in (y1, y2))
        pen.rectangle((x1, y1, x2, y2), outline=box.colour, width=wide)
        if box.text:
            width = pen.textlength(box.text, font)
            top = y1 - size - 4 if y1 > size + 4 else min(y1 + wide, bottom - size - 3)
            left = max(0, min(x1, right - width - 6))
            pen.rectangle((left, top, left + width + 6, top + size + 4), fill=box.colour)
            pen.text((left + 3, top + 1), box.text, fill="black", font=font)
    return np.asarray(picture)


def draw_mistakes(mistakes: Sequence[Mistake], *, heading: str) -> bytes:
    """Returns a PNG sheet of photos, the surest mistake first: in orange what was said, in blue what is there."""
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, max(len(mistakes), 3))
    rows = [mistakes[first : first + columns] for first in range(0, len(mistakes), columns)]
    tall = [_CELL * max(min(1.0, one.pixels.shape[0] / one.pixels.shape[1]) for one in row) for row in rows]
    width, height = columns * (_CELL + 0.15), (sum(tall) or _CELL) + max(1, len(rows)) * _TEXT + _TOP
    figure = Figure(figsize=(width, height), dpi=120)
    figure.text(0.5, 1 - 0.16 / height, heading, fontsize=11, ha="center", va="top", parse_math=False)
    top = height - _TOP
    for row, cell in zip(rows, tall, strict=True):
        for column, mistake in enumerate(row):
            left = column * (_CELL + 0.15) + 0.075
            axes = figure.add_axes((left / width, (top - cell) / height, _CELL / width, cell / height))
            axes.set_axis_off()
            axes.set_anchor("S")
            axes.imshow(draw_boxes(mistake.pixels, [*mistake.there, mistake.said]))
            said, true = mistake.lines
            lines = ((said, ORANGE, 8), (true, BLUE, 8), (os.path.basename(mistake.file), GREY, 6.5))
            for line, (text, shade, size) in enumerate(lines):
                place = {"x": (left + _CELL / 2) / width, "y": (top - cell - 0.05 - 0.155 * line) / height}
                look = {"color": shade, "fontsize": size, "ha": "center", "va": "top"}
                figure.text(**place, s=shortened(text, 40), **look, parse_math=False)
        top -= cell + _TEXT
    if not mistakes:
        figure.text(0.5, 0.45, "no mistakes", ha="center", color=GREY)
    return png(figure)
