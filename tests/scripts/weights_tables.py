"""Prints the generated tables of docs/weights.md: timm's architectures, the catalogue, the names of the libraries.

python tests/scripts/weights_tables.py
"""

import argparse
import io
import json

from mnet_jax.commands import weights
from mnet_jax.models.count import summarize
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.pretrained.sources import CATALOGUE
from mnet_jax.pretrained.timm_rows import TIMM_ARCHITECTURES, TIMM_ROWS
from mnet_jax.pretrained.unsupported import UNSUPPORTED


def architectures() -> str:
    """A row for each MobileNet of timm: ours, its parameters, and how many sets of weights timm publishes."""
    lines = ["| timm's architecture | model | parameters | published |", "|---|---|---|---|"]
    for name, (model, width) in TIMM_ARCHITECTURES.items():
        _, totals = summarize(resolve(SPECS[model], num_classes=1000, width=width, width_rule="timm"), 224)
        published = sum(row[0].partition(".")[0] == name for row in TIMM_ROWS)
        lines.append(f"| `{name}` | {model} x{width:g} | {totals.params:,} | {published or '-'} |")
    return "\n".join(lines)


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


def libraries() -> str:
    """How many names of each library load, and a row with its reason for each that does not."""
    lines = ["| library | published names | loaded |", "|---|---|---|"]
    for library in dict.fromkeys(name.partition("/")[0] for name in (*CATALOGUE, *UNSUPPORTED)):
        loaded, refused = (sum(name.startswith(f"{library}/") for name in names) for names in (CATALOGUE, UNSUPPORTED))
        lines.append(f"| {library} | {loaded + refused} | {loaded} |")
    lines += ["", "| name | why it is not loaded |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {why} |" for name, why in UNSUPPORTED.items())])


def main() -> None:
    print(f"{architectures()}\n\n{catalogue()}\n\n{libraries()}")


if __name__ == "__main__":
    main()
