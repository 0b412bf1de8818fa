"""confusion.png: which classes are taken for which."""

from typing import TYPE_CHECKING

import numpy as np

from mnet_jax.plotting import BLUE, ORANGE, png, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUMBERED = 20  # up to this many classes the counts stand in the cells
_LONGEST = 24  # characters of a class name


def draw_confusion(confusion: np.ndarray, names: tuple[str, ...], *, title: str) -> bytes:
    """A PNG of the counts [true class, predicted class]: rows are shares of the true class, right blue, wrong orange.

    It grows with the number of classes, so that every name can be read.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    count = len(names)
    cell = 0.75 if count <= 5 else 0.45 if count <= _NUMBERED else 0.16
    font = 9 if count <= _NUMBERED else 7
    labels = [shortened(name, _LONGEST) for name in names]
    margin = 0.6 + max(map(len, labels)) * font * 0.0085
    side = max(2.2, count * cell)
    figure = Figure(figsize=(side + margin + 1.1, side + margin + 0.9), dpi=120, layout="constrained")
    axes = figure.subplots()
    figure.suptitle(title, fontsize=11, parse_math=False)

    totals = confusion.sum(1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    right = np.eye(count, dtype=bool)
    for mask, color in ((right, BLUE), (~right, ORANGE)):
        shades = LinearSegmentedColormap.from_list("shades", ["white", color])
        axes.imshow(np.ma.masked_array(shares, ~mask), cmap=shades, vmin=0.0, vmax=1.0)
    if count <= _NUMBERED:
        _write_counts(axes, confusion, shares, font)
    axes.set_xticks(range(count), labels, rotation=90 if count > 3 else 0, fontsize=font, parse_math=False)
    axes.set_yticks(range(count), labels, fontsize=font, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    return png(figure)


def _write_counts(axes: "Axes", confusion: np.ndarray, shares: np.ndarray, font: float) -> None:
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=color, fontsize=font)
