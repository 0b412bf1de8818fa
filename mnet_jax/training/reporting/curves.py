"""curves.png: loss, the task's headline, learning rate and images/s of a run, from its metrics.jsonl."""

import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mnet_jax.files import write_whole
from mnet_jax.plotting import BLUE as TRAINING
from mnet_jax.plotting import GREY, png
from mnet_jax.plotting import ORANGE as EVALUATION
from mnet_jax.tasks.task import Metric, Task
from mnet_jax.training import selection
from mnet_jax.training.reporting.run_files import read_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 40  # up to this many points each is marked; beyond it a noisy curve gets a running mean


def draw_curves(
    metrics: str | os.PathLike, out: str | os.PathLike, task: Task, best_by: Metric, *, title: str | None = None
) -> None:
    """Writes `out` (PNG) from a metrics.jsonl. A curve without points says so in its panel.

    Args:
      metrics: the file to read.
      out: the file to write.
      task: whose headline is shown.
      best_by: the metric by which the best evaluation is chosen.
      title: the run's name; None: the directory that holds `metrics`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    metrics, out = pathlib.Path(metrics), pathlib.Path(out)
    rows = read_rows(metrics)
    train = [row for row in rows if row["kind"] == "train"]
    evals = [row for row in rows if row["kind"] == "eval"]
    # below two epochs the numbers on an axis of epochs would all be fractions
    unit = "epoch" if max((row.get("epoch", 0.0) for row in rows), default=0.0) >= 2.0 else "step"

    figure = Figure(figsize=(9.0, 6.0), dpi=120, layout="constrained")  # 1080 x 720: sharp at a README's 800 to 900
    (loss, headline), (rate, speed) = figure.subplots(2, 2, sharex=True)
    figure.suptitle(
        title_line(title or metrics.resolve().parent.name, evals, unit, task.metrics[0], best_by), fontsize=11
    )

    _curve(loss, train, unit, "loss", color=TRAINING, label="training")
    _curve(loss, evals, unit, "loss", color=EVALUATION, label="evaluation", marker="o", smooth=False)
    _finish(loss, "loss", log=_spans_decades([row.get("loss") for row in train + evals]))

    metric = task.metrics[0]
    shown = {"scale": 100.0} if metric.percent else {}
    _curve(headline, train, unit, metric.name, color=TRAINING, label="training", **shown)
    _curve(headline, evals, unit, metric.name, color=EVALUATION, label="evaluation", marker="o", smooth=False, **shown)
    if metric.percent:
        _finish(headline, f"{metric.label}, %", top=100.0)
    else:
        _finish(headline, metric.label)

    _curve(rate, train, unit, "learning_rate", color=TRAINING, smooth=False)
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    _finish(rate, "learning rate", from_zero=True)

    _curve(speed, train, unit, "images_per_second", color=TRAINING)
    speed.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:.3g}")
    _finish(speed, "images/s", from_zero=True)
    for axes in (rate, speed):
        axes.set_xlabel(unit)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    rate.set_xlim(0.0, 1.03 * max((row[unit] for row in rows), default=1.0) or 1.0)  # shared by all four

    write_whole(out, png(figure))


def title_line(name: str, evals: Sequence[dict], unit: str, headline: Metric, best_by: Metric) -> str:
    """Returns the run's name with the headline of its last and, where that is another, of its best evaluation."""
    known = [row for row in evals if row.get(headline.name) is not None]
    if not known:
        return name
    last = known[-1]
    text = f"{name}: {headline.label} {headline.show(last[headline.name])} at {unit} {last[unit]:,.4g}"
    best_step = selection.best(((row["step"], row) for row in known), best_by)
    best = next((row for row in known if row["step"] == best_step), last)
    if best["step"] != last["step"]:
        text += f", best {headline.show(best[headline.name])} at {unit} {best[unit]:,.4g}"
    return text


def _curve(
    axes: "Axes",
    rows: Sequence[dict],
    unit: str,
    name: str,
    *,
    color: str,
    label: str | None = None,
    scale: float = 1.0,
    marker: str = ".",
    smooth: bool = True,
) -> None:
    """One metric over time. Missing and non-finite values (null) leave a gap."""
    if not any(row.get(name) is not None for row in rows):
        return
    x = [row[unit] for row in rows]
    y = [float("nan") if row.get(name) is None else scale * row[name] for row in rows]
    few = len(rows) <= _FEW
    style = {"color": color, "linewidth": 1.6, "markersize": 4 if marker == "o" else 7}
    if few or not smooth:
        # unclipped: a dot on the edge, such as a learning rate of 0, shows whole
        axes.plot(x, y, marker=marker if few else None, label=label, clip_on=not few, **style)
        return
    axes.plot(x, y, color=color, linewidth=0.6, alpha=0.3)
    axes.plot(x, running_mean(y, max(3, len(y) // 50)), label=label, **style)


def running_mean(values: Sequence[float], width: int) -> np.ndarray:
    """Mean over a window of `width` values around each, shorter at the ends; NaNs are left out, and stay gaps."""
    values = np.asarray(values)
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    index = np.arange(len(values))
    first = np.maximum(index - width // 2, 0)
    # no further ahead than back, or a curve that starts steep would start wrong
    end = np.minimum(index + np.minimum(width // 2, index) + 1, len(values))
    means = (sums[end] - sums[first]) / np.maximum(counts[end] - counts[first], 1)
    return np.where(known, means, np.nan)


def _spans_decades(values: Sequence[float | None]) -> bool:
    """True when a linear axis would hide most of the curve: the largest value is over 20 times the median."""
    known = sorted(value for value in values if value is not None)
    return bool(known) and known[0] > 0 and known[-1] > 20 * known[len(known) // 2]


def _finish(axes: "Axes", label: str, *, from_zero: bool = False, top: float | None = None, log: bool = False) -> None:
    axes.set_ylabel(label)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelbottom=True)
    if not axes.lines:
        axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center", va="center", color=GREY)
        axes.set_yticks([])
        axes.grid(False)
        return
    if log:
        axes.set_yscale("log")
    if from_zero:
        axes.set_ylim(bottom=0.0)
    if top is not None and axes.get_ylim()[1] > top:
        axes.set_ylim(top=top + 0.01 * (top - axes.get_ylim()[0]))
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=9, framealpha=0.7, edgecolor="none")
