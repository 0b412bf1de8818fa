"""`mnet chart`: accuracy against multiply-adds, parameters and latency of all that has a published accuracy."""

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import TextIO

from mnet_jax import errors
from mnet_jax.files import write_whole
from mnet_jax.measuring import chart, clock
from mnet_jax.measuring.clock import Network
from mnet_jax.models.tables import SPECS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds where the picture goes, and what is measured before it is drawn."""
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
        "--measurements",
        metavar="FILE",
        help=f"where figures of this machine are kept (default: {clock.LATENCIES})",
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Measures if asked to, draws, and says in words what is to be seen."""
    picture = pathlib.Path(args.out)
    if picture.suffix != ".png":
        raise ValueError(f"--out must end in .png, got {args.out!r}")
    if args.models is not None and not args.measure:
        raise ValueError("--models says what to measure: add --measure")
    if args.measure:
        from mnet_jax.tasks.classification.network import create_model

        networks = [_network(text) for text in args.models] if args.models else chart.MEASURED
        for network in networks:
            module = create_model(network.model, width=network.width, width_rule=network.width_rule)
            latency = clock.measure_latency(network, module)
            clock.add_latency(latency, path=args.measurements)
            print(f"mnet: {network.title}: {latency.milliseconds:.2f} ms (JAX)", file=sys.stderr)
    points = chart.collect(clock.read_latencies(args.measurements))
    picture.parent.mkdir(parents=True, exist_ok=True)
    write_whole(picture, chart.draw(points))
    if args.json:
        print(json.dumps({"picture": args.out, "points": [dataclasses.asdict(p) for p in points]}, indent=1), file=out)
        return 0
    print(chart.describe(points), file=out)
    print(f"picture: {args.out}", file=out)
    return 0


def _network(text: str) -> Network:
    """Returns the network of 'v1@0.25@128'; width 1 and the architecture's own size where they are left out."""
    name, *numbers = text.split("@")
    errors.check_choice("model", name, tuple(SPECS))
    try:
        width = float(numbers[0]) if numbers else 1.0
        size = int(numbers[1]) if len(numbers) > 1 else SPECS[name].image_size
        if len(numbers) > 2 or width <= 0 or size < 32:
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is no NAME@WIDTH@PIXELS: such as {name}, {name}@0.5 or {name}@0.5@160") from None
    return Network(model=name, width=width, image_size=size)
