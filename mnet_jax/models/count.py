"""A model block by block: shapes, parameters, multiply-adds; counted from the plan alone, without jax.

Multiply-adds are those of convolutions, dense layers and attention's two products (queries by keys, weights by values).
Norms, biases, activations and pooling are not counted, as in the papers.
"""

import dataclasses
import math

from mnet_jax.models import plans
from mnet_jax.models.variables import Variable, block_variables, layer_variables

Size = tuple[int, int]  # height, width


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


def summarize(plan: plans.ModelPlan, image_size: int | tuple[int, int]) -> tuple[list[Row], Totals]:
    """Rows in the order in which the network runs, and their totals.

    Args:
      plan: the network.
      image_size: pixels, one number or (height, width), positive.

    Raises:
      ValueError: if the image has no pixels.
    """
    height, width = size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if min(size) < 1:
        raise ValueError(f"image_size must be at least 1 pixel a side, got {height}x{width}")

    rows = [_layer_row(plan.stem, "conv", size)]
    size = _after(plan.stem, size)
    for block in plan.blocks:
        out = (plans.output_size(size[0], block.stride), plans.output_size(size[1], block.stride))
        rows.append(
            Row(
                name=block.name,
                kind=block.kind,
                input_shape=(*size, block.in_features),
                output_shape=(*out, block.features),
                multiply_adds=_block_multiply_adds(block, size),
                **_count(block_variables(block)),
            )
        )
        size = out
    if plan.last_conv is not None:
        rows.append(_layer_row(plan.last_conv, "conv", size))
    if plan.head is not None:
        rows.append(_layer_row(plan.head, "dense", None))
    rows.append(_layer_row(plan.classifier, "dense", None))

    params, statistics = sum(row.params for row in rows), sum(row.batch_statistics for row in rows)
    totals = Totals(
        params=params,
        batch_statistics=statistics,
        variables=params + statistics,
        multiply_adds=sum(row.multiply_adds for row in rows),
    )
    return rows, totals


def format_table(rows: list[Row], totals: Totals) -> str:
    """A table for the terminal, one line a row, then the totals."""
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
    """The same for --json: {"rows": [{"name": ...}, ...], "totals": {...}}, shapes as lists."""
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


def _after(layer: plans.ConvPlan | None, size: Size) -> Size:
    stride = 1 if layer is None else layer.stride
    return plans.output_size(size[0], stride), plans.output_size(size[1], stride)


def _conv_multiply_adds(layer: plans.ConvPlan | None, size: Size) -> int:
    """For an input of `size`: a kernel's weights each work once an output position."""
    return 0 if layer is None else math.prod(layer.kernel_shape) * math.prod(_after(layer, size))


def _block_multiply_adds(block: plans.BlockPlan, size: Size) -> int:
    if isinstance(block, plans.MultiQueryAttentionPlan):
        return _attention_multiply_adds(block, size)
    total = 0
    for layer in block.layers:
        if isinstance(layer, plans.SqueezeExcitePlan):
            total += _conv_multiply_adds(layer.reduce, (1, 1)) + _conv_multiply_adds(layer.expand, (1, 1))
        else:
            total += _conv_multiply_adds(layer, size)
            size = _after(layer, size)
    return total


def _attention_multiply_adds(block: plans.MultiQueryAttentionPlan, size: Size) -> int:
    memory = _after(block.key_depthwise, size)  # the map that keys and values come from
    layers = (
        (block.query, size),
        (block.key_depthwise, size),
        (block.key, memory),
        (block.value_depthwise, size),
        (block.value, memory),
        (block.output, size),
    )
    products = 2 * math.prod(size) * math.prod(memory) * block.heads * block.key_features
    return products + sum(_conv_multiply_adds(layer, at) for layer, at in layers)


def _layer_row(layer: plans.ConvPlan, kind: str, size: Size | None) -> Row:
    """A layer outside the blocks; `size` None: after pooling."""
    return Row(
        name=layer.name,
        kind=kind,
        input_shape=(*(size or ()), layer.in_features),
        output_shape=(*(_after(layer, size) if size else ()), layer.features),
        multiply_adds=_conv_multiply_adds(layer, size or (1, 1)),
        **_count(layer_variables(layer)),
    )
