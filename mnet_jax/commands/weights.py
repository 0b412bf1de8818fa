"""`mnet weights`: the catalogue of published weights, without jax and without the network."""

import argparse
import json
from typing import TextIO

from mnet_jax.models.heads.mask_tables import find_segmenter, resolve_segmenter
from mnet_jax.models.heads.tables import find_detector, resolve_detector
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.models.variables import list_variables
from mnet_jax.pretrained.layouts import LAYOUTS
from mnet_jax.pretrained.sources import CATALOGUE, Source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which of them to show."""
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="only names that contain all of these, such as v4 timm"
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Writes a line for each set of weights."""
    found = [source for source in CATALOGUE.values() if all(word in source.name for word in args.words)]
    if not found:
        raise ValueError(f"no published weights whose name contains {' and '.join(args.words)}; mnet weights shows all")
    rows = [_row(source) for source in found]
    if args.json:
        print(json.dumps(rows, indent=2), file=out)
        return 0
    width = max(len(row["name"]) for row in rows)
    print(f"{'name':<{width}}  {'model':<26}  {'pixels':>6}  {'parameters':>10}  {'top-1':>6}  {'top-5':>6}", file=out)
    for row in rows:
        model = f"{row['model']} x{row['width']:g}"
        print(
            f"{row['name']:<{width}}  {model:<26}  {row['image_size']:>6}  {row['params']:>10,}  "
            f"{_percent(row['top1']):>6}  {_percent(row['top5']):>6}",
            file=out,
        )
    return 0


def _row(source: Source) -> dict[str, object]:
    """Returns one entry of the catalogue by column, with the parameters that its plan comes to."""
    if source.segmenter is not None:
        plan, head = resolve_segmenter(find_segmenter(source.segmenter), source.num_classes)
        variables = list_variables(plan) + head.variables()
    elif source.detector is None:
        plan = resolve(
            SPECS[source.model],
            num_classes=source.num_classes or None,
            width=source.width,
            width_rule=LAYOUTS[source.layout].width_rule,
        )
        variables = list_variables(plan)
    else:
        plan, head = resolve_detector(find_detector(source.detector), source.num_classes)
        variables = list_variables(plan) + head.variables()
    accuracy = source.accuracy
    return {
        "name": source.name,
        "model": source.model,
        "width": source.width,
        "num_classes": source.num_classes,
        "image_size": source.image_size,
        "params": sum(variable.size for variable in variables if variable.collection == "params"),
        "top1": accuracy and accuracy.top1,
        "top5": accuracy and accuracy.top5,
        "published": accuracy and accuracy.source,
        "padding": source.padding,
        "norm_epsilon": source.norm_epsilon,
        "statistics": source.statistics,
        "eval_crop": round(source.eval_crop, 4),
        "interpolation": source.interpolation,
        "url": source.url,
        "checksum": source.checksum,
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
