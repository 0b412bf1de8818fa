"""A figure as the bytes of a PNG file."""

import io
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def png(figure: "Figure") -> bytes:
    """The PNG. Letters that the font lacks (a class named in Chinese) are boxes, without a warning for each."""
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(picture, format="png")
    return picture.getvalue()
