"""Maps of classes in colours: over a photo, and on the sheet that a report has."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from mnet_jax.plotting import COLOURS, GREY, png, shortened

VOID_COLOUR = (255, 255, 255)
_SHADES = (1.0, 0.5, 1.5, 0.25, 1.75)  # below 1 towards black, above it towards white; the next one after each seven
_COVER = 0.55  # how much of the photo the colours hide
_COLUMN, _GAP, _TOP, _TEXT, _KEY = 3.2, 0.08, 0.55, 0.24, 0.24  # of the sheet, inches
_NAMED = 28  # classes with a place in the legend
_PER_LINE = 7


@dataclasses.dataclass(frozen=True)
class Example:
    """One image: its photo uint8 [H, W, 3], what is there and what is said, uint8 [H, W] each."""

    photo: np.ndarray | None
    truth: np.ndarray
    said: np.ndarray
    text: str
    file: str


def palette() -> np.ndarray:
    """Returns a colour for each of 256 classes, uint8 [256, 3]; 255, void, is white.

    The seven of Okabe and Ito in turn, which are told apart with any colour vision, then darker and lighter ones.
    """
    base = np.array([[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in COLOURS], np.float64)
    found = []
    for number in range(255):
        colour, shade = base[number % len(base)], _SHADES[number // len(base) % len(_SHADES)]
        found.append(colour * shade if shade <= 1 else 255 - (255 - colour) * (2 - shade))
    return np.round([*found, VOID_COLOUR]).astype(np.uint8)


def overlay(photo: np.ndarray, classes: np.ndarray, bare: Sequence[int] = ()) -> np.ndarray:
    """Returns a photo uint8 [H, W, 3] with the colours of its classes, uint8 [H, W], over it; edges are drawn dark.

    Classes of `bare`, such as a background, have no colour: the photo stays as it is there.
    """
    cover = np.where(np.isin(classes, bare), 0.0, _COVER)[..., None]
    mixed = photo * (1 - cover) + palette()[classes] * cover
    edges = np.zeros(classes.shape, bool)
    edges[1:] |= classes[1:] != classes[:-1]
    edges[:, 1:] |= classes[:, 1:] != classes[:, :-1]
    mixed[edges] *= 0.4
    return np.round(mixed).astype(np.uint8)


def with_legend(picture: np.ndarray, names: Sequence[tuple[int, str]]) -> np.ndarray:
    """Returns a picture uint8 [H, W, 3] with a white strip below: the colour and the name of each (class, name)."""
    from PIL import Image, ImageDraw, ImageFont

    width = picture.shape[1]
    size = max(12, round(max(picture.shape[:2]) / 45))
    font, colours, pad = ImageFont.load_default(size), palette(), size // 2
    places, x, y = [], pad, pad
    for number, name in names:
        text = shortened(name, 24)
        needed = round(size * 1.4 + font.getlength(text)) + 2 * pad
        if x > pad and x + needed > width:
            x, y = pad, y + round(size * 1.5)
        places.append((number, text, x, y))
        x += needed
    strip = Image.new("RGB", (width, y + round(size * 1.5) + pad if places else 0), "white")
    pen = ImageDraw.Draw(strip)
    for number, text, left, top in places:
        pen.rectangle((left, top, left + size, top + size), fill=tuple(colours[number].tolist()), outline=GREY)
        pen.text((left + round(size * 1.4), top - size * 0.1), text, fill="black", font=font)
    return np.concatenate([picture, np.asarray(strip)]) if places else picture


def draw_examples(examples: Sequence[Example], names: Sequence[str], *, title: str) -> bytes:
    """Returns a PNG sheet: a row an image, with its photo, truth and prediction, and a legend of the classes below."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    colours = palette()
    heights = [_COLUMN * one.truth.shape[0] / one.truth.shape[1] for one in examples]
    there = sorted({int(c) for one in examples for values in (one.truth, one.said) for c in np.unique(values)} - {255})
    shown = there[:_NAMED]
    lines = -(-(len(shown) + 1) // _PER_LINE)
    width = 3 * _COLUMN + 4 * _GAP
    height = _TOP + sum(heights) + len(examples) * (_GAP + _TEXT) + lines * _KEY + 0.2
    figure = Figure(figsize=(width, height), dpi=100)
    figure.text(0.5, 1 - 0.1 / height, title, fontsize=11, ha="center", va="top", parse_math=False)
    top = height - _TOP
    for column, heading in enumerate(("photo", "truth", "prediction")):
        x = (_GAP + column * (_COLUMN + _GAP) + _COLUMN / 2) / width
        figure.text(x, (top + 0.05) / height, heading, fontsize=9, ha="center", va="bottom")
    for one, tall in zip(examples, heights, strict=True):
        for column, pixels in enumerate((one.photo, colours[one.truth], colours[one.said])):
            left = _GAP + column * (_COLUMN + _GAP)
            axes = figure.add_axes((left / width, (top - tall) / height, _COLUMN / width, tall / height))
            axes.set_axis_off()
            axes.imshow(pixels, interpolation="nearest", aspect="auto")
        text = f"{shortened(os.path.basename(one.file), 60)}   {one.text}"
        figure.text(
            _GAP / width, (top - tall - 0.04) / height, text, fontsize=8, color=GREY, va="top", parse_math=False
        )
        top -= tall + _GAP + _TEXT
    for place, number in enumerate([*shown, 255]):
        row, column = divmod(place, _PER_LINE)
        x, y = _GAP + column * (width - _GAP) / _PER_LINE, top - 0.1 - row * _KEY
        key = Rectangle((x / width, (y - 0.14) / height), 0.16 / width, 0.14 / height, transform=figure.transFigure)
        key.set(facecolor=colours[number] / 255, edgecolor=GREY, linewidth=0.5)
        figure.add_artist(key)
        name = "void" if number == 255 else shortened(names[number], 16)
        figure.text((x + 0.22) / width, (y - 0.07) / height, name, fontsize=8, va="center", parse_math=False)
    if len(there) > len(shown):
        figure.text(1 - _GAP / width, 0.06 / height, f"and {len(there) - len(shown)} more", fontsize=8, ha="right")
    return png(figure)
