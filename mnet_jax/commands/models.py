"""`mnet models`: a line for each architecture, without jax."""

import argparse
import json
from typing import TextIO

from mnet_jax.models import count
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the command has no arguments of its own."""


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Writes every architecture at width 1 with 1000 classes, at its paper's image size."""
    rows = []
    for name, spec in SPECS.items():
        _, totals = count.summarize(resolve(spec, num_classes=1000), spec.image_size)
        rows.append(
            {
                "name": name,
                "params": totals.params,
                "multiply_adds": totals.multiply_adds,
                "image_size": spec.image_size,
                "source": spec.source,
            }
        )
    if args.json:
        print(json.dumps(rows, indent=2), file=out)
        return 0
    width, wide = max(len(row["name"]) for row in rows), max(len(f"{row['params']:,}") for row in rows)
    print(f"{'name':<{width}}  {'parameters':>{wide}}  {'multiply-adds':>13}  {'pixels':>6}  paper", file=out)
    for row in rows:
        print(
            f"{row['name']:<{width}}  {row['params']:>{wide},}  {row['multiply_adds'] / 1e6:>11,.1f} M  "
            f"{row['image_size']:>6}  {row['source']}",
            file=out,
        )
    return 0
