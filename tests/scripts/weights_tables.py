"""Prints the two generated tables of docs/weights.md: timm's architectures, and the catalogue.

python tests/scripts/weights_tables.py
"""

import argparse
import io
import json

from mnet_jax.commands import weights
from mnet_jax.models.count import summarize
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.pretrained.timm_rows import TIMM_ARCHITECTURES, TIMM_ROWS, TIMM_UNSUPPORTED


def architectures() -> str:
    """A row for each MobileNet of timm: ours, its parameters, and how many sets of weights timm publishes."""
    lines = ["| timm's architecture | model | parameters | published |", "|---|---|---|---|"]
    for name, (model, width) in TIMM_ARCHITECTURES.items():
        _, totals = summarize(resolve(SPECS[model], num_classes=1000, width=width, width_rule="timm"), 224)
        published = sum(row[0].partition(".")[0] == name for row in TIMM_ROWS)
        lines.append(f"| `{name}` | {model} x{width:g} | {totals.params:,} | {published or '-'} |")
    return "\n".join([*lines, *(f"| `{name}` | - | {why} | |" for name, why in TIMM_UNSUPPORTED.items())])


def catalogue() -> str:
    """A row for each set of weights, as `mnet weights` has them."""
    out = io.StringIO()
    weights.run(argparse.Namespace(words=[], json=True), out)
    lines = ["| name | model | pixels | parameters | top-1 | top-5 | published by |", "|---|---|---|---|---|---|---|"]
    for row in json.loads(out.getvalue()):
        top1, top5 = ("-" if row[key] is None else f"{row[key]:.2f}" for key in ("top1", "top5"))
        lines.append(
            f"| `{row['name']}` | {row['model']} x{row['width']:g} | {row['image_size']} | {row['params']:,} | "
            f"{top1} | {top5} | {row['published'] or '-'} |"
        )
    return "\n".join(lines)


def main() -> None:
    print(f"{architectures()}\n\n{catalogue()}")


if __name__ == "__main__":
    main()
