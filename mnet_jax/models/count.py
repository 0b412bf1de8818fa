"""A model block by block: shapes, parameters, multiply-adds; counted from the plan alone, without jax.

Multiply-adds are those of convolutions, dense layers and attention's two products (queries by keys, weights by values).
Norms, biases, activations and pooling are not counted, as in the papers.
"""

import dataclasses
from collections.abc import Iterable

from mnet_jax.models import plans
from mnet_jax.models.plans import Size, Variable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One block of the network, or one layer outside the blocks, for one image."""

    name: str  # its scope among the variables
    kind: str
    input_shape: tuple[int, ...]  # (height, width, channels), or (channels,) after pooling
    output_shape: tuple[int, ...]
    params: int
    batch_statistics: int
    multiply_adds: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over the network. `variables` is params and batch statistics, what Keras calls total params."""

    params: int
    batch_statistics: int
    variables: int
    multiply_adds: int


def summarize(
    plan: plans.ModelPlan, image_size: int | tuple[int, int], head: Iterable[tuple[plans.LayerPlan, Size]] = ()
) -> tuple[list[Row], Totals]:
    """Returns rows in the order in which the network runs, and their totals.

    Args:
      plan: the network.
      image_size: pixels, one number or (height, width), positive.
      head: layers that a task puts on maps, each with the size of the map that it is given; of one that comes again, as
        layers do that several maps share, only the multiply-adds count again.

    Raises:
      ValueError: if the image has no pixels.
    """
    height, width = size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if min(size) < 1:
        raise ValueError(f"image_size must be at least 1 pixel a side, got {height}x{width}")

    rows = [_layer_row(plan.stem, plan.norm, "conv", size)]
    size = plan.stem.output_size(size)
    for block in plan.blocks:
        out = block.output_size(size)
        rows.append(
            Row(
                name=block.name,
                kind=block.kind,
                input_shape=(*size, block.in_features),
                output_shape=(*out, block.features),
                multiply_adds=block.multiply_adds(size),
                **_count(block.variables(plan.norm)),
            )
        )
        if plan.fusion is not None and block.name == plan.fusion.blocks[0]:
            fused_size = out
        size = out
    if plan.fusion is not None:
        rows.append(_layer_row(plan.fusion, plan.norm, "fusion", fused_size))
    if plan.last_conv is not None:
        rows.append(_layer_row(plan.last_conv, plan.norm, "conv", size))
    rows += [_layer_row(layer, plan.norm, "dense", None) for layer in (plan.head, plan.classifier) if layer is not None]
    counted: set[str] = set()
    for layer, size in head:
        row = _layer_row(layer, plan.norm, "head", size)
        rows.append(dataclasses.replace(row, params=0, batch_statistics=0) if layer.name in counted else row)
        counted.add(layer.name)

    params, statistics = sum(row.params for row in rows), sum(row.batch_statistics for row in rows)
    totals = Totals(
        params=params,
        batch_statistics=statistics,
        variables=params + statistics,
        multiply_adds=sum(row.multiply_adds for row in rows),
    )
    return rows, totals


def format_table(rows: list[Row], totals: Totals) -> str:
    """Returns a table for the terminal, one line a row, then the totals."""
    header = ("name", "kind", "input", "output", "params", "multiply-adds")
    lines = [
        (
            row.name,
            row.kind,
            _shape_text(row.input_shape),
            _shape_text(row.output_shape),
            f"{row.params:,}",
            f"{row.multiply_adds:,}",
        )
        for row in rows
    ]
    total = ("total", "", "", "", f"{totals.params:,}", f"{totals.multiply_adds:,}")
    widths = [max(len(line[column]) for line in (header, *lines, total)) for column in range(len(header))]

    def text(line: tuple[str, ...]) -> str:
        left = (cell.ljust(width) for cell, width in zip(line[:4], widths[:4], strict=True))
        right = (cell.rjust(width) for cell, width in zip(line[4:], widths[4:], strict=True))
        return "  ".join((*left, *right)).rstrip()

    rule = "-" * len(text(header))
    notes = (
        f"{totals.params:,} parameters + {totals.batch_statistics:,} batch statistics = {totals.variables:,} variables",
        f"{totals.multiply_adds / 1e6:,.1f} million multiply-adds an image",
    )
    return "\n".join((text(header), rule, *map(text, lines), rule, text(total), *notes))


def as_dict(rows: list[Row], totals: Totals) -> dict:
    """Returns the same for --json: {"rows": [{"name": ...}, ...], "totals": {...}}, shapes as lists."""
    return {
        "rows": [
            dataclasses.asdict(row) | {"input_shape": list(row.input_shape), "output_shape": list(row.output_shape)}
            for row in rows
        ],
        "totals": dataclasses.asdict(totals),
    }


def _shape_text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _count(variables: list[Variable]) -> dict[str, int]:
    """Parameters and batch statistics among variables, under a row's names."""
    return {
        "params": sum(variable.size for variable in variables if variable.collection == "params"),
        "batch_statistics": sum(variable.size for variable in variables if variable.collection == "batch_stats"),
    }


def _layer_row(
    layer: plans.ConvPlan | plans.NormPlan | plans.FusionPlan, norm: plans.Norm, kind: str, size: Size | None
) -> Row:
    """Returns the row of a layer outside the blocks; `size` None: after pooling."""
    return Row(
        name=layer.name,
        kind=kind,
        input_shape=(*(size or ()), getattr(layer, "in_features", layer.features)),
        output_shape=(*(layer.output_size(size) if size else ()), layer.features),
        multiply_adds=layer.multiply_adds(size or (1, 1)),
        **_count(layer.variables(norm)),
    )
