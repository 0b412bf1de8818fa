"""precision_recall.png: precision over recall of each class, for detections and for labels alike."""

from collections.abc import Sequence

import numpy as np

from mnet_jax.plotting import COLOURS, png, shortened

_NAMED = 12  # classes with a line of the legend


def draw_precision(
    precision: np.ndarray, names: Sequence[str], *, title: str, legend: str, figures: np.ndarray | None = None
) -> bytes:
    """Returns a PNG of precision over recall: of each class, and of their mean.

    Args:
      precision: float [R, classes] at R recalls from 0 to 1; NaN for classes that are nowhere.
      names: of the classes.
      title: of the picture.
      legend: what the number behind each name is.
      figures: that number, a share, float [classes]; None: the mean of the class's precision.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    recall = np.linspace(0, 1, len(precision))
    known = np.flatnonzero(~np.isnan(precision).any(0))
    figures = precision.mean(0) if figures is None else figures
    for place, number in enumerate(known[np.argsort(-figures[known], kind="stable")]):
        label = f"{shortened(names[number], 24)} {100 * figures[number]:.1f}"
        shown = len(known) <= _NAMED
        shade = COLOURS[place % len(COLOURS)] if shown else "#cccccc"
        wide, label = (1.6, label) if shown else (0.7, None)
        axes.plot(recall, precision[:, number], color=shade, linewidth=wide, label=label)
    if len(known) > 1:
        mean = precision[:, known].mean(1)
        axes.plot(recall, mean, color="black", linewidth=2.4, label=f"mean {100 * figures[known].mean():.1f}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set_xlabel("recall: found of what is there")
    axes.set_ylabel("precision: right of what was said")
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.grid(color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        shown = axes.legend(title=legend, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
        for text in shown.get_texts():
            text.set_parse_math(False)
    return png(figure)
