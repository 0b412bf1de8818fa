"""What `mnet chart` shows: published accuracies, counted costs and latencies measured here, drawn and in words.

The picture has three panels that share their accuracy axis.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mnet_jax.measuring.clock import Latency, Network
from mnet_jax.models.count import summarize
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import BACKBONES, SPECS, VARIANTS
from mnet_jax.plotting import BLUE, ORANGE, png
from mnet_jax.pretrained.accuracies import Accuracy, accuracies

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Every architecture of a paper, and the narrow ends of the families: measured where nothing else is asked for.
MEASURED = (
    *(
        Network(model=name, image_size=spec.image_size)
        for name, spec in SPECS.items()
        if name not in (*BACKBONES, *VARIANTS)
    ),
    Network(model="v1", width=0.5, image_size=224),
    Network(model="v1", width=0.25, image_size=224),
    Network(model="v1", width=0.25, image_size=128),
    Network(model="v2", width=0.5, image_size=224),
    Network(model="v2", width=0.35, image_size=224),
    Network(model="v2", width=0.35, image_size=96),
    Network(model="v3_large", width=0.75, image_size=224),
    Network(model="v3_small", width=0.75, image_size=224),
)

# A colour that is told apart with any colour vision, and a shape for grey print.
_GENERATIONS = {"v1": (BLUE, "o"), "v2": (ORANGE, "s"), "v3": ("#009E73", "^"), "v4": ("#A0408A", "D")}
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One network of the chart."""

    network: Network
    params: int  # with 1,000 classes
    multiply_adds: int  # of one image
    published: tuple[Accuracy, ...]  # best first, at least one
    latencies: tuple[Latency, ...] = ()

    @property
    def top1(self) -> float:
        """Returns the best published accuracy, in per cent."""
        return self.published[0].top1


def collect(latencies: Iterable[Latency] = ()) -> list[Point]:
    """Returns a point for each network with a published accuracy, in the order of their multiply-adds."""
    published: dict[Network, list[Accuracy]] = {}
    for accuracy in accuracies():
        published.setdefault(_canonical(accuracy), []).append(accuracy)
    measured: dict[Network, list[Latency]] = {}
    for latency in latencies:
        measured.setdefault(_canonical(latency.network), []).append(latency)
    points = []
    for network, figures in published.items():
        plan = resolve(SPECS[network.model], num_classes=1000, width=network.width, width_rule=network.width_rule)
        _, totals = summarize(plan, network.image_size)
        points.append(
            Point(
                network=network,
                params=totals.params,
                multiply_adds=totals.multiply_adds,
                published=tuple(sorted(figures, key=lambda figure: -figure.top1)),
                latencies=tuple(measured.get(network, [])),
            )
        )
    return sorted(points, key=lambda point: point.multiply_adds)


def _canonical(given: Accuracy | Network) -> Network:
    """Returns the network of a figure; rounding rules that come to the same network are called "tf"."""
    plans = [
        dataclasses.replace(resolve(SPECS[given.model], width=given.width, width_rule=rule), width_rule="")
        for rule in (given.width_rule, "tf")
    ]
    rule = "tf" if plans[0] == plans[1] else given.width_rule
    return Network(model=given.model, width=given.width, width_rule=rule, image_size=given.image_size)


def describe(points: list[Point]) -> str:
    """Returns the chart in words, a line for each of: what is known, the best for their cost, what was timed here."""
    figures = sum(len(point.published) for point in points)
    best, last = [], 0.0
    for point in points:  # cheapest first: who is on the frontier
        if point.top1 > last:
            best.append(point)
            last = point.top1
    lines = [
        f"{figures} published accuracies of {len(points)} networks, from {_about(points[0])} to {_about(points[-1])}.",
        "Best for the multiply-adds: " + "; ".join(_about(point) for point in best) + ".",
    ]
    timed = sorted(
        ((latency, point) for point in points for latency in point.latencies), key=lambda pair: pair[0].milliseconds
    )
    if timed:
        threads = sorted({latency.threads for latency, _ in timed})
        shown = "; ".join(f"{point.network.title} {latency.milliseconds:.3g} ms" for latency, point in timed)
        lines.append(f"JAX, one image, {'/'.join(map(str, threads))} threads of {timed[0][0].machine}: {shown}.")
    return "\n".join(lines)


def _about(point: Point) -> str:
    return f"{point.network.title} {point.top1:.1f} % at {point.multiply_adds / 1e6:,.0f} M"


# --- The picture ---


def draw(points: Sequence[Point]) -> bytes:
    """Returns the picture as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 8.6), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.35, 1))
    cost = figure.add_subplot(grid[0, :])
    size = figure.add_subplot(grid[1, 0])
    time = figure.add_subplot(grid[1, 1])

    _panel(cost, points, lambda point: point.multiply_adds / 1e6)
    _names(cost, points, lambda point: point.multiply_adds / 1e6)
    _finish(cost, "multiply-adds of one image, millions")
    _legend(cost, points)
    _panel(size, points, lambda point: point.params / 1e6)
    _finish(size, "parameters, millions (1,000 classes)")
    _latency_panel(time, points)
    figure.suptitle("MobileNet: published ImageNet top-1 against cost", fontsize=13)

    return png(figure)


def _generation(point: Point) -> str:
    return point.network.model[:2]


def _headline(point: Point) -> bool:
    """Returns whether this is an architecture as its paper has it: width 1, its own resolution."""
    return point.network.width == 1 and point.network.image_size == SPECS[point.network.model].image_size


def _panel(axes: "Axes", points: Sequence[Point], x: Callable[[Point], float]) -> None:
    """Draws every network: a mark at its best figure, a bar down to its lowest, a line along the best."""
    for name, (color, marker) in _GENERATIONS.items():
        mine = [p for p in points if _generation(p) == name]
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


def _names(axes: "Axes", points: Sequence[Point], x: Callable[[Point], float]) -> None:
    """Writes the names of the architectures beside their marks."""
    from matplotlib.patheffects import withStroke

    for point in points:
        right, up, side = _PLACES.get(point.network.model, _ABOVE)
        if _headline(point):
            axes.annotate(
                point.network.model, (x(point), point.top1), (right, up), textcoords="offset points", ha=side,
                fontsize=9.5, color=_GENERATIONS[_generation(point)][0],
                path_effects=[withStroke(linewidth=3, foreground="white")], zorder=4,
            )  # fmt: skip


def _latency_panel(axes: "Axes", points: Sequence[Point]) -> None:
    """Draws the networks that were timed here, or says how to time them."""
    pairs = [(latency, p) for p in points for latency in p.latencies]
    if not pairs:
        axes.text(
            0.5, 0.5, "no latency measured here yet:\nmnet chart --measure", transform=axes.transAxes,
            ha="center", va="center", color=_GREY,
        )  # fmt: skip
        axes.set_axis_off()
        return
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
    _finish(axes, f"milliseconds for one image, {pairs[-1][0].threads} CPU threads")


def _legend(axes: "Axes", points: Sequence[Point]) -> None:
    from matplotlib.lines import Line2D

    def mark(label: str, **style: object) -> Line2D:
        return Line2D([], [], linestyle="none", label=label, **style)

    rows = [mark(f"MobileNet {name}", marker=marker, color=color) for name, (color, marker) in _GENERATIONS.items()]
    rows.append(mark("as in its paper; small: other widths, resolutions", marker="o", markersize=7, color=_GREY))
    rows.append(mark("bar: from the lowest figure published", marker="|", markersize=9, color=_GREY))
    if any(p.latencies for p in points):
        rows.append(mark("timed on this machine", marker="o", color="white", markeredgecolor=_INK))
    axes.legend(handles=rows, loc="lower right", fontsize=9, frameon=False)


def _finish(axes: "Axes", label: str) -> None:
    """Gives a panel its scale, ticks, grid and labels."""
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
