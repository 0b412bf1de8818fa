"""What all pictures share: colours, a figure as PNG, and names that fit. Imports matplotlib only where it draws."""

import io
import warnings
from typing import TYPE_CHECKING

from mnet_jax.files import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Two of the eight colours of Okabe and Ito (2008), told apart with any colour vision and in grey print.
BLUE, ORANGE = "#0072B2", "#D55E00"
GREY = "#707070"
# Those of the eight that show on photos.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


def png(figure: "Figure") -> bytes:
    """Returns the figure as a PNG file. A letter that the font lacks is drawn as a box, without a warning for each."""
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(picture, format="png")
    return picture.getvalue()


def shortened(text: str, longest: int) -> str:
    """Returns the text, or its beginning and end with an ellipsis between: long names often differ at their ends.

    Control characters and bytes that are no text are written out.
    """
    text = printable(text)
    if len(text) <= longest:
        return text
    tail = longest // 3
    return f"{text[: longest - tail - 1]}…{text[-tail:]}"
