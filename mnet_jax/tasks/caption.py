"""A photo with lines of text below it, as `mnet predict --draw` writes it for tasks without places in the photo."""

import io
from collections.abc import Sequence

import numpy as np


def captioned(pixels: np.ndarray, lines: Sequence[str]) -> bytes:
    """Returns a PNG of a photo, uint8 [H, W, 3], at most 640 pixels long, with the lines below it."""
    from PIL import Image, ImageDraw

    photo = Image.fromarray(pixels)
    photo.thumbnail((640, 640))
    width, height, row_height = *photo.size, 14
    sheet = Image.new("RGB", (max(width, 280), height + row_height * len(lines) + 6), "white")
    sheet.paste(photo, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        pen.text((4, height + 3 + row_height * number), line, fill="black")
    file = io.BytesIO()
    sheet.save(file, format="PNG")
    return file.getvalue()
