"""From a paper's table to one concrete network. Pure Python, no jax."""

import dataclasses
from typing import Any

from mnet_jax.errors import Range, check_choice, check_number
from mnet_jax.models.blocks import BlockPlan, Place
from mnet_jax.models.plans import (
    PADDINGS,
    STEM_STRIDES,
    ConvPlan,
    FusionPlan,
    ModelPlan,
    Norm,
    NormPlan,
    Quantization,
    with_classifier,
)
from mnet_jax.models.specs import Fusion, ModelSpec
from mnet_jax.models.tables import find_spec
from mnet_jax.models.widths import Widths, make_divisible

BELOW_ONE = Range(0.0, 1.0, open_high=True)
FINITE = Range(0.0, open_low=True, open_high=True)  # above 0, and no infinity


def resolve(
    spec: ModelSpec,
    *,
    num_classes: int | None = None,
    width: float = 1.0,
    width_rule: str = "tf",
    dropout: float | None = None,
    drop_path: float = 0.0,
    padding: str = "same",
    stem_stride: int = 4,
    norm_decay: float | None = None,
    norm_epsilon: float | None = None,
    quantize_range_decay: float | None = None,
) -> ModelPlan:
    """Returns the plan of one concrete network.

    Args:
      spec: the architecture.
      num_classes: size of the logits, at least 1; None: a backbone, without a classifier.
      width: multiplier of every layer's width, above 0.
      width_rule: whose rounding: "tf", "timm", "torchvision" (V2, V3) or "deeplab" (V2); see `tables.py`.
      dropout: rate before the classifier; None for the spec's own.
      drop_path: rate of the last block, growing linearly from 0 at the first; only residual blocks drop.
      padding: "same" (TensorFlow) or "symmetric" (PyTorch), see `sizes.explicit_padding`.
      stem_stride: stride after the first two strided layers: 4 as published, 2 or 1 for small images.
      norm_decay: None for the spec's own.
      norm_epsilon: None for the spec's own.
      quantize_range_decay: train with int8 rounding (fake_quantization.py), whose ranges keep this much of themselves
        a step; None: without.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    dropout = spec.dropout if dropout is None else dropout
    check_number("width", width, FINITE)
    check_choice(f"width_rule of {spec.name}", width_rule, tuple(spec.width_rules))
    check_number("dropout", dropout, BELOW_ONE)
    check_number("drop_path", drop_path, BELOW_ONE)
    check_choice("padding", padding, PADDINGS)
    check_choice("stem_stride", stem_stride, STEM_STRIDES)
    norm = _norm(spec, norm_decay, norm_epsilon)
    quantization = None if quantize_range_decay is None else _quantization(spec, quantize_range_decay)

    widths = Widths(spec.width_rules[width_rule], width)
    strides = _final_strides(spec, stem_stride)
    how = {"kernel": spec.stem.kernel, "stride": strides[0], "bias": spec.stem.bias}
    stem = ConvPlan("stem", 3, widths.stem(spec.stem.features), spec.stem.activation, **how)
    blocks: list[BlockPlan] = []
    map_blocks: dict[int, str] = {}
    reduction = stem.stride
    features, table_features = stem.features, spec.stem.features  # of the layer before: the plan's and the table's
    for index, block in enumerate(spec.blocks):
        plan = block.resolve(
            Place(
                name=f"block_{index:02d}",
                in_features=features,
                table_features=table_features,
                stride=strides[1 + index],
                drop_path=drop_path * index / max(len(spec.blocks) - 1, 1),
                widths=widths,
            )
        )
        blocks.append(plan)
        reduction *= plan.stride
        if reduction >= stem_stride:
            map_blocks[reduction] = plan.name
        features, table_features = plan.features, block.features

    fusion = last_conv = head = None
    if spec.fusion is not None:
        fusion = _fusion(spec.fusion, list(map_blocks.values())[-spec.fusion.maps :], blocks, widths)
        features = fusion.features
    if spec.last_conv is not None:
        wide = widths.last_conv(spec.last_conv.features, of=table_features, into=features)
        last_conv = ConvPlan("last_conv", features, wide, spec.last_conv.activation, kernel=spec.last_conv.kernel)
        features = wide
    if spec.head is not None:
        wide = widths.head(spec.head.features)
        head = ConvPlan("head", features, wide, spec.head.activation, norm=spec.head.norm, bias=spec.head.bias)
    backbone = ModelPlan(
        name=spec.name,
        width=width,
        width_rule=width_rule,
        padding=padding,
        norm=norm,
        dropout=dropout,
        image_size=spec.image_size,
        stem_stride=stem_stride,
        stem=stem,
        blocks=tuple(blocks),
        last_conv=last_conv,
        head=head,
        map_blocks=tuple(map_blocks.items()),
        fusion=fusion,
        quantization=quantization,
    )
    return backbone if num_classes is None else with_classifier(backbone, num_classes)


def _fusion(spec: Fusion, names: list[str], blocks: list[BlockPlan], widths: Widths) -> FusionPlan:
    """Returns the fusion of the maps that the blocks `names` give."""
    into = sum(block.features for block in blocks if block.name in names)
    expanded, features = make_divisible(into * spec.expand), widths.head(spec.features)
    return FusionPlan(
        name="fusion",
        blocks=tuple(names),
        expand=ConvPlan("expand", into, expanded, spec.activation),
        project=ConvPlan("project", expanded, features),
        norm=NormPlan(name="norm", features=features),
        size=(spec.size, spec.size),
    )


def _norm(spec: ModelSpec, decay: float | None, epsilon: float | None) -> Norm:
    """Returns the spec's norm with the settings that are given."""
    given = {name: value for name, value in (("decay", decay), ("epsilon", epsilon)) if value is not None}
    known = {field.name for field in dataclasses.fields(spec.norm)}
    for name, value in given.items():
        if name not in known:
            hint = f"leave norm_{name} out (--config.model.norm_{name}=None)"
            raise ValueError(f"the norm of {spec.name} has no {name}: {hint}")
        check_number(f"norm_{name}", value, BELOW_ONE if name == "decay" else FINITE)
    return dataclasses.replace(spec.norm, **given)


def _quantization(spec: ModelSpec, range_decay: float) -> Quantization:
    check_number("quantize_range_decay", range_decay, BELOW_ONE)
    refused = next((block.refuses_int8 for block in spec.blocks if block.refuses_int8), None)
    if any(block.pool for block in spec.blocks):
        refused = "averages in place of strides"
    if refused:
        raise ValueError(
            f"{spec.name} has {refused}, which is not trained with int8 rounding: choose a network without"
        )
    return Quantization(range_decay=range_decay)


def _final_strides(spec: ModelSpec, stem_stride: int) -> list[int]:
    """Strides of the stem and of every block, after the first strided layers have given up theirs."""
    strides = [spec.stem.stride, *(block.stride for block in spec.blocks)]
    strided = [index for index, stride in enumerate(strides) if stride > 1]
    for index in strided[: {4: 0, 2: 1, 1: 2}[stem_stride]]:
        strides[index] = 1
    return strides


def resolve_section(section: Any, *, quantize_range_decay: float | None = None) -> ModelPlan:
    """Returns the backbone that a config's section `model` describes; as `resolve`, by the names of its fields."""
    return resolve(
        find_spec(section.name),
        width=section.width,
        width_rule=section.width_rule,
        dropout=section.dropout,
        drop_path=section.drop_path,
        padding=section.padding,
        stem_stride=section.stem_stride,
        norm_decay=section.norm_decay,
        norm_epsilon=section.norm_epsilon,
        quantize_range_decay=quantize_range_decay,
    )
