"""`mnet chart`: accuracy against multiply-adds, parameters and latency of all that has a published accuracy."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterable
from typing import TextIO

from mnet_jax import errors
from mnet_jax.measuring import measurements
from mnet_jax.measuring.measurements import RUNTIMES, Evaluation, Latency, Network
from mnet_jax.models.count import summarize
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.pretrained.accuracies import Accuracy, accuracies

# Measured by default: every architecture as published, and the narrow ends of the families.
_MEASURED = (
    *((name, 1.0, spec.image_size) for name, spec in SPECS.items()),
    ("v1", 0.5, 224),
    ("v1", 0.25, 224),
    ("v1", 0.25, 128),
    ("v2", 0.5, 224),
    ("v2", 0.35, 224),
    ("v2", 0.35, 96),
    ("v3_large", 0.75, 224),
    ("v3_small", 0.75, 224),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One network of the chart."""

    network: Network
    params: int
    multiply_adds: int
    published: tuple[Accuracy, ...]  # best first; empty where only we have a figure
    latencies: tuple[Latency, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def top1(self) -> float:
        """The best published accuracy, percent; nan where there is none."""
        return self.published[0].top1 if self.published else float("nan")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--out", default="chart.png", metavar="FILE", help="the picture, PNG (default: chart.png)")
    parser.add_argument(
        "--measure", action="store_true", help="measure latencies here first: one image at a time, random weights"
    )
    parser.add_argument(
        "--models",
        metavar="NAME[@WIDTH[@PIXELS]]",
        nargs="+",
        help="what to measure, such as v3_large or v1@0.25@128 (default: every architecture, and the narrow ones)",
    )
    parser.add_argument(
        "--runtime", nargs="+", default=["jax"], metavar="NAME", help=f"{', '.join(RUNTIMES)} (default: jax)"
    )
    parser.add_argument(
        "--measurements",
        metavar="FILE",
        help=f"where figures of this machine are kept (default: {measurements.DEFAULT})",
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Measures if asked to, draws, and says in words what is to be seen."""
    if not args.out.endswith(".png"):
        raise ValueError(f"--out must end in .png, got {args.out!r}")
    for runtime in args.runtime:
        errors.check_choice("runtime", runtime, tuple(RUNTIMES))
    if args.models is not None and not args.measure:
        raise ValueError("--models says what to measure: add --measure")
    if args.measure:
        networks = [parse_network(text) for text in args.models] if args.models else [*map(_network, _MEASURED)]
        _measure(networks, args.runtime, args.measurements)
    points = collect(*measurements.read(args.measurements))
    from mnet_jax.measuring.chart_drawing import draw

    draw(points, args.out)
    if args.json:
        print(json.dumps({"picture": args.out, "points": [dataclasses.asdict(p) for p in points]}, indent=1), file=out)
        return 0
    print(describe(points), file=out)
    print(f"picture: {args.out}", file=out)
    return 0


def parse_network(text: str) -> Network:
    """'v1@0.25@128' -> a network; width 1 and the architecture's own size where they are left out."""
    name, *numbers = text.split("@")
    errors.check_choice("model", name, tuple(SPECS))
    try:
        width = float(numbers[0]) if numbers else 1.0
        size = int(numbers[1]) if len(numbers) > 1 else SPECS[name].image_size
        if len(numbers) > 2 or width <= 0 or size < 32:
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is no NAME@WIDTH@PIXELS: such as {name}, {name}@0.5 or {name}@0.5@160") from None
    return _network((name, width, size))


def _network(given: tuple[str, float, int]) -> Network:
    name, width, size = given
    return Network(model=name, width=width, width_rule="tf", image_size=size)


def collect(latencies: Iterable[Latency] = (), evaluations: Iterable[Evaluation] = ()) -> list[Point]:
    """Everything known, one point a network, in the order of the multiply-adds."""
    published: dict[Network, list[Accuracy]] = {}
    for accuracy in accuracies():
        published.setdefault(_canonical(accuracy), []).append(accuracy)
    measured: dict[Network, list[Latency]] = {}
    for latency in latencies:
        measured.setdefault(_canonical(latency.network), []).append(latency)
    evaluated: dict[Network, list[Evaluation]] = {}
    for evaluation in evaluations:
        evaluated.setdefault(_canonical(evaluation.network), []).append(evaluation)
    points = []
    for network in published | evaluated:
        params, multiply_adds = _count(network)
        points.append(
            Point(
                network=network,
                params=params,
                multiply_adds=multiply_adds,
                published=tuple(sorted(published.get(network, []), key=lambda a: -a.top1)),
                latencies=tuple(measured.get(network, [])),
                evaluations=tuple(evaluated.get(network, [])),
            )
        )
    return sorted(points, key=lambda point: point.multiply_adds)


def _canonical(given: Accuracy | Network) -> Network:
    """The network of a figure; rounding rules that come to the same network are called "tf"."""
    here = (given.model, given.width, given.width_rule)
    plans = [
        dataclasses.replace(resolve(SPECS[given.model], width=given.width, width_rule=rule), width_rule="")
        for rule in (given.width_rule, "tf")
    ]
    rule = "tf" if plans[0] == plans[1] else here[2]
    return Network(model=given.model, width=given.width, width_rule=rule, image_size=given.image_size)


def _count(network: Network) -> tuple[int, int]:
    plan = resolve(SPECS[network.model], num_classes=1000, width=network.width, width_rule=network.width_rule)
    totals = summarize(plan, network.image_size)[1]
    return totals.params, totals.multiply_adds


def describe(points: list[Point]) -> str:
    """The chart for those who cannot see it."""
    known = [point for point in points if point.published]
    figures = sum(len(point.published) for point in known)
    best, last = [], 0.0
    for point in known:  # cheapest first: who is on the frontier
        if point.top1 > last:
            best.append(point)
            last = point.top1
    lines = [
        f"{figures} published accuracies of {len(known)} networks, from {_about(known[0])} to {_about(known[-1])}.",
        "Best for the multiply-adds: " + "; ".join(_about(point) for point in best) + ".",
    ]
    for runtime, name in RUNTIMES.items():
        timed = [(latency, point) for point in points for latency in point.latencies if latency.runtime == runtime]
        if timed:
            timed.sort(key=lambda pair: pair[0].milliseconds)
            threads = sorted({latency.threads for latency, _ in timed})
            shown = "; ".join(f"{title(point.network)} {latency.milliseconds:.3g} ms" for latency, point in timed)
            lines.append(f"{name}, one image, {'/'.join(map(str, threads))} threads of {timed[0][0].machine}: {shown}.")
    for point in points:
        for evaluation in point.evaluations:
            lines.append(
                f"Measured here: {title(point.network)} with {evaluation.weights}, {evaluation.top1:.1f} % of "
                f"{evaluation.num_images:,} images of {evaluation.data}."
            )
    return "\n".join(lines)


def title(network: Network) -> str:
    """'v1 x0.25 128 px', width and size left out where they are the architecture's own."""
    name = network.model if network.width == 1 else f"{network.model} x{network.width:g}"
    own = network.image_size == SPECS[network.model].image_size
    return name if own else f"{name} {network.image_size} px"


def _about(point: Point) -> str:
    return f"{title(point.network)} {point.top1:.1f} % at {point.multiply_adds / 1e6:,.0f} M"


def _measure(networks: list[Network], runtimes: list[str], path: str | os.PathLike | None) -> None:
    from mnet_jax.measuring.latency import measure
    from mnet_jax.tasks.classification.network import create_model

    for runtime in runtimes:
        for network in networks:
            module = create_model(network.model, width=network.width, width_rule=network.width_rule)
            latency = measure(network, module, runtime)
            measurements.add(latency, path=path)
            print(f"mnet: {title(network)}: {latency.milliseconds:.2f} ms ({RUNTIMES[runtime]})", file=sys.stderr)
