"""`mnet models`, a line for each architecture, and `mnet summary`, one of them block by block; both without jax."""

import json
from typing import TextIO

from mnet_jax.models import specs
from mnet_jax.models.tables import SPECS
from mnet_jax.tools import summary


def run(out: TextIO, *, as_json: bool) -> int:
    """Writes every architecture at width 1 with 1000 classes, at its paper's image size."""
    rows = []
    for name, spec in SPECS.items():
        _, totals = summary.summarize(specs.resolve(spec), spec.image_size)
        rows.append(
            {
                "name": name,
                "params": totals.params,
                "multiply_adds": totals.multiply_adds,
                "image_size": spec.image_size,
                "source": spec.source,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2), file=out)
        return 0
    width = max(len(row["name"]) for row in rows)
    print(f"{'name':<{width}}  {'parameters':>10}  {'multiply-adds':>13}  {'pixels':>6}  paper", file=out)
    for row in rows:
        print(
            f"{row['name']:<{width}}  {row['params']:>10,}  {row['multiply_adds'] / 1e6:>11,.1f} M  "
            f"{row['image_size']:>6}  {row['source']}",
            file=out,
        )
    return 0


def run_summary(
    out: TextIO,
    *,
    name: str,
    width: float,
    image_size: int | tuple[int, int] | None,
    num_classes: int,
    width_rule: str,
    stem_stride: int,
    as_json: bool,
) -> int:
    """Writes one architecture's blocks; `image_size` None is its paper's. The arguments are the command line's."""
    specs.check_choice("model", name, tuple(SPECS))
    plan = specs.resolve(
        SPECS[name], num_classes=num_classes, width=width, width_rule=width_rule, stem_stride=stem_stride
    )
    size = plan.image_size if image_size is None else image_size
    height, wide = (size, size) if isinstance(size, int) else size
    rows, totals = summary.summarize(plan, (height, wide))
    if as_json:
        about = {
            "name": name,
            "width": width,
            "width_rule": width_rule,
            "image_size": [height, wide],
            "num_classes": num_classes,
            "stem_stride": stem_stride,
        }
        print(json.dumps(about | summary.as_dict(rows, totals), indent=2), file=out)
        return 0
    print(f"{name} x{width:g}, {height} x {wide} pixels, {num_classes} classes", file=out)
    print(summary.format_table(rows, totals), file=out)
    return 0
