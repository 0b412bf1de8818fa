"""The picture of `mnet chart`: three panels that share their accuracy axis."""

import io
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mnet_jax.measuring.measurements import Latency

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mnet_jax.commands.chart import Point

# Okabe and Ito's colours (2008), told apart with any colour vision; a shape each for grey print.
_GENERATIONS = {"v1": ("#0072B2", "o"), "v2": ("#D55E00", "s"), "v3": ("#009E73", "^"), "v4": ("#A0408A", "D")}
_GREY, _INK = "#606060", "#202020"

# Where a label stands: (points right, points up, horizontal alignment) from its mark, where above would collide.
_ABOVE = (0, 8, "center")
_PLACES = {
    "v1": (4, -13, "left"),
    "v2": (8, -8, "left"),
    "v3_large": (-6, 6, "right"),
    "v3_small": (-6, 6, "right"),
    "v3_large_minimalistic": (-7, -4, "right"),
    "v3_small_minimalistic": (-7, 1, "right"),
    "v4_conv_small": (9, 7, "left"),
    "v4_conv_medium": (6, -10, "left"),
    "v4_conv_large": (0, -14, "center"),
    "v4_hybrid_medium": (-6, 6, "right"),
    "v4_hybrid_large": (4, 8, "right"),
}


def draw(points: Sequence["Point"], out: str | os.PathLike) -> None:
    """Draws a PNG, moved into place as a whole."""
    from matplotlib.figure import Figure

    out = pathlib.Path(out)
    figure = Figure(figsize=(9.6, 8.6), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.35, 1))
    cost = figure.add_subplot(grid[0, :])
    size = figure.add_subplot(grid[1, 0])
    time = figure.add_subplot(grid[1, 1])

    _panel(cost, points, lambda point: point.multiply_adds / 1e6)
    _names(cost, points, lambda point: point.multiply_adds / 1e6)
    _evaluations(cost, points)
    _finish(cost, "multiply-adds of one image, millions")
    _legend(cost, points)
    _panel(size, points, lambda point: point.params / 1e6)
    _finish(size, "parameters, millions (1,000 classes)")
    _latency_panel(time, points)
    figure.suptitle("MobileNet: published ImageNet top-1 against cost", fontsize=13)

    picture = io.BytesIO()
    figure.savefig(picture, format="png", pil_kwargs={"optimize": True})
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(out.name + ".new")
    beside.write_bytes(picture.getvalue())
    beside.replace(out)


def _generation(point: "Point") -> str:
    return point.network.model[:2]


def _headline(point: "Point") -> bool:
    """Whether this is an architecture as its paper has it: width 1, its own resolution."""
    from mnet_jax.models.tables import SPECS

    return point.network.width == 1 and point.network.image_size == SPECS[point.network.model].image_size


def _panel(axes: "Axes", points: Sequence["Point"], x: Callable[["Point"], float]) -> None:
    """Every published network: a mark at its best figure, a bar down to its lowest, a line along the best."""
    for name, (color, marker) in _GENERATIONS.items():
        mine = [p for p in points if p.published and _generation(p) == name]
        mine.sort(key=lambda p: (x(p), -p.top1))
        if not mine:
            continue
        axes.vlines(
            [x(p) for p in mine], [p.published[-1].top1 for p in mine], [p.top1 for p in mine],
            color=color, linewidth=1.2, alpha=0.35,
        )  # fmt: skip
        best, frontier = -math.inf, []
        for point in mine:
            if point.top1 > best:
                best = point.top1
                frontier.append(point)
        axes.plot([x(p) for p in frontier], [p.top1 for p in frontier], color=color, linewidth=1.3, alpha=0.7)
        for measured in (False, True):
            some = [p for p in mine if bool(p.latencies) is measured]
            axes.scatter(
                [x(p) for p in some], [p.top1 for p in some], marker=marker, zorder=3,
                s=[52 if _headline(p) else 20 for p in some], facecolor=color, linewidth=1.4 if measured else 0.6,
                edgecolor=_INK if measured else "white",
            )  # fmt: skip


def _names(axes: "Axes", points: Sequence["Point"], x: Callable[["Point"], float]) -> None:
    from matplotlib.patheffects import withStroke

    for point in points:
        right, up, side = _PLACES.get(point.network.model, _ABOVE)
        if point.published and _headline(point):
            axes.annotate(
                point.network.model, (x(point), point.top1), (right, up), textcoords="offset points", ha=side,
                fontsize=9.5, color=_GENERATIONS[_generation(point)][0],
                path_effects=[withStroke(linewidth=3, foreground="white")], zorder=4,
            )  # fmt: skip


def _evaluations(axes: "Axes", points: Sequence["Point"]) -> None:
    """Accuracies measured here, with the 95 % interval that the number of images leaves."""
    for point in points:
        for evaluation in point.evaluations:
            p, n = evaluation.top1 / 100, evaluation.num_images
            margin = 196 * math.sqrt(p * (1 - p) / n)
            axes.errorbar(
                point.multiply_adds / 1e6, evaluation.top1, yerr=margin, fmt="*", markersize=11, color=_INK,
                markerfacecolor="#F0E442", elinewidth=1, capsize=3, zorder=5,
            )  # fmt: skip


def _latency_panel(axes: "Axes", points: Sequence["Point"]) -> None:
    pairs = [(latency, p) for p in points if p.published for latency in p.latencies]
    if not pairs:
        axes.text(
            0.5, 0.5, "no latency measured here yet:\nmnet chart --measure", transform=axes.transAxes,
            ha="center", va="center", color=_GREY,
        )  # fmt: skip
        axes.set_axis_off()
        return
    newest = pairs[-1][0]
    for name, (color, marker) in _GENERATIONS.items():
        mine = sorted(
            ((lat.milliseconds, p) for lat, p in pairs if _generation(p) == name),
            key=lambda pair: pair[0],
        )
        best, frontier = -math.inf, []
        for milliseconds, point in mine:
            if point.top1 > best:
                best = point.top1
                frontier.append((milliseconds, point.top1))
        axes.plot(*zip(*frontier, strict=True), color=color, linewidth=1.3, alpha=0.7) if frontier else None
        axes.scatter(
            [milliseconds for milliseconds, _ in mine], [p.top1 for _, p in mine], marker=marker, zorder=3,
            s=[52 if _headline(p) else 20 for _, p in mine], facecolor="white",
            edgecolor=color, linewidth=1.4,
        )  # fmt: skip
    _finish(axes, f"milliseconds for one image, {_circumstances(newest)}")


def _circumstances(latency: Latency) -> str:
    return f"{latency.threads} CPU threads"


def _legend(axes: "Axes", points: Sequence["Point"]) -> None:
    from matplotlib.lines import Line2D

    def mark(label: str, **style: object) -> Line2D:
        return Line2D([], [], linestyle="none", label=label, **style)

    rows = [mark(f"MobileNet {name}", marker=marker, color=color) for name, (color, marker) in _GENERATIONS.items()]
    rows.append(mark("as in its paper; small: other widths, resolutions", marker="o", markersize=7, color=_GREY))
    rows.append(mark("bar: from the lowest figure published", marker="|", markersize=9, color=_GREY))
    if any(p.latencies for p in points):
        rows.append(mark("timed on this machine", marker="o", color="white", markeredgecolor=_INK))
    if any(p.evaluations for p in points):
        rows.append(
            mark("evaluated here, 95 % interval", marker="*", markersize=10, color="#F0E442", markeredgecolor=_INK)
        )
    axes.legend(handles=rows, loc="lower right", fontsize=9, frameon=False)


def _finish(axes: "Axes", label: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(label, fontsize=10)
    axes.set_ylabel("top-1, %", fontsize=10)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    low, high = axes.get_xlim()
    ticks = [m * 10**e for e in range(-1, 6) for m in (1, 2, 5) if low <= m * 10**e <= high]
    axes.set_xticks(ticks)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
