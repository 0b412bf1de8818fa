"""What a MobileNet is, as data: frozen records for the papers' blocks, and `resolve`, which turns them into a plan.

A *spec* says what a paper's table says, at width 1; a *plan* (plans.py) is one concrete network. Everyone else reads
plans, so that no width is computed twice. Pure Python, no jax.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from mnet_jax.errors import Range, check_choice, check_number
from mnet_jax.models.plans import (
    PADDINGS,
    STEM_STRIDES,
    BlockPlan,
    ConvBlockPlan,
    ConvPlan,
    FusedInvertedBottleneckPlan,
    InvertedResidualPlan,
    ModelPlan,
    MultiQueryAttentionPlan,
    Norm,
    NormPlan,
    Quantization,
    SeparablePlan,
    SqueezeExcitePlan,
    UniversalInvertedBottleneckPlan,
)

# --- Specs: one record per kind of block, numbers as the papers print them ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conv:
    """A k x k convolution with norm and activation: stems, and the first stages of MobileNetV4-Conv-Small."""

    kernel: int
    features: int
    stride: int = 1
    activation: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Separable:
    """MobileNetV1's block: depthwise, then pointwise, each with norm and activation."""

    kernel: int = 3
    features: int
    stride: int = 1
    activation: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertedResidual:
    """The block of MobileNetV2 and V3: expand 1x1, depthwise, squeeze-excite where asked, linear projection 1x1.

    `expanded` is the width inside the block, as the V3 paper's tables 1 and 2 print it; where it equals the block's
    input there is no expansion layer.
    """

    kernel: int = 3
    expanded: int
    features: int
    stride: int = 1
    squeeze_excite: bool = False
    activation: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusedInvertedBottleneck:
    """MobileNetV4's fused block: a full k x k convolution that expands, then a linear projection 1x1."""

    kernel: int = 3
    expand: int
    features: int
    stride: int = 1
    activation: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniversalInvertedBottleneck:
    """MobileNetV4's UIB: an inverted bottleneck with an optional depthwise before the expansion and one after it.

    A kernel of 0 means that this depthwise is absent. The stride is the middle depthwise's, or the start's where there
    is no middle one.
    """

    start_kernel: int
    middle_kernel: int
    expand: int
    features: int
    stride: int = 1
    activation: str
    layer_scale: float | None = None

    @property
    def kind(self) -> str:
        """The paper's name for this choice of kernels (arXiv 2404.10518, figure 4)."""
        if self.start_kernel:
            return "extra_dw" if self.middle_kernel else "convnext_like"
        return "inverted_bottleneck" if self.middle_kernel else "ffn"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiQueryAttention:
    """Mobile multi-query attention (V4 hybrids): many query heads share one key and one value head; always residual.

    With `key_value_stride` above 1, keys and values come from maps made smaller by a strided depthwise convolution
    each.
    """

    stride: ClassVar[int] = 1
    heads: int
    key_features: int  # a head's size, of values too; the same at every width
    key_value_stride: int = 1
    key_value_kernel: int = 3
    features: int
    layer_scale: float | None = None


BlockSpec = (
    Conv | Separable | InvertedResidual | FusedInvertedBottleneck | UniversalInvertedBottleneck | MultiQueryAttention
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """The hidden layer between pooling and classifier: with norm and no bias in V4, with bias and no norm in V3."""

    features: int
    norm: bool
    activation: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WidthRule:
    """How one library widens or narrows a network; the default is TensorFlow's (slim, model garden)."""

    rounded: bool = True  # to multiples of 8 by `make_divisible`; otherwise max(int(features * width), 8)
    stem_fixed_below: float = 0.0  # the stem keeps its features at widths below this
    expand_from_input: bool = True  # inner width = ratio * the rounded input; otherwise it scales by itself
    last_conv: str = "scale"  # "scale", "grow" (never below its features at width 1) or "from_input" (ratio * input)
    head: str = "grow"  # "scale", "grow" or "fixed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One architecture of one paper, with its default regularisation."""

    name: str
    source: str  # paper and table
    image_size: int  # pixels of a side, of the paper's headline number
    stem: Conv
    blocks: tuple[BlockSpec, ...]
    last_conv: Conv | None = None
    head: Head | None = None
    dropout: float
    norm: Norm
    width_rules: Mapping[str, WidthRule]


BELOW_ONE = Range(0.0, 1.0, open_high=True)
FINITE = Range(0.0, open_low=True, open_high=True)  # above 0, and no infinity

# --- Arithmetic ---


def make_divisible(value: float, divisor: int = 8) -> int:
    """Rounds to the nearest multiple of `divisor`, at least one, never below 0.9 of the value (slim's mobilenet.py)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


# --- resolve ---


def resolve(
    spec: ModelSpec,
    *,
    num_classes: int = 1000,
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
    """Turns a spec into the plan of one concrete network; the only place where a width is rounded.

    Args:
      spec: the architecture.
      num_classes: size of the logits, at least 1.
      width: multiplier of every layer's width, above 0.
      width_rule: whose rounding: "tf", "timm" or (V2, V3) "torchvision"; see `tables.py`.
      dropout: rate before the classifier; None for the spec's own.
      drop_path: rate of the last block, growing linearly from 0 at the first; only residual blocks drop.
      padding: "same" (TensorFlow) or "symmetric" (PyTorch), see `explicit_padding`.
      stem_stride: stride after the first two strided layers: 4 as published, 2 or 1 for small images.
      norm_decay: None for the spec's own.
      norm_epsilon: None for the spec's own.
      quantize_range_decay: train with int8 rounding (`quantization.py`), whose ranges keep this much of themselves a
        step; None: without.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    dropout = spec.dropout if dropout is None else dropout
    decay = spec.norm.decay if norm_decay is None else norm_decay
    epsilon = spec.norm.epsilon if norm_epsilon is None else norm_epsilon
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
        raise ValueError(f"num_classes must be a whole number of at least 1, got {num_classes!r}")
    check_number("width", width, FINITE)
    check_choice(f"width_rule of {spec.name}", width_rule, tuple(spec.width_rules))
    check_number("dropout", dropout, BELOW_ONE)
    check_number("drop_path", drop_path, BELOW_ONE)
    check_choice("padding", padding, PADDINGS)
    check_choice("stem_stride", stem_stride, STEM_STRIDES)
    check_number("norm_decay", decay, BELOW_ONE)
    check_number("norm_epsilon", epsilon, FINITE)

    if quantize_range_decay is not None:
        check_number("quantize_range_decay", quantize_range_decay, BELOW_ONE)
        if any(isinstance(block, MultiQueryAttention) for block in spec.blocks):
            raise ValueError(
                f"{spec.name} has attention, which is not trained with int8 rounding: choose a network without"
            )

    rule = spec.width_rules[width_rule]

    def scale(features: int, how: str = "scale") -> int:
        if how == "fixed":
            return features
        scaled = features * (max(width, 1.0) if how == "grow" else width)
        return make_divisible(scaled) if rule.rounded else max(int(scaled), 8)

    strides = _final_strides(spec, stem_stride)
    features = scale(spec.stem.features, "fixed" if width < rule.stem_fixed_below else "scale")
    stem = ConvPlan("stem", 3, features, spec.stem.activation, kernel=spec.stem.kernel, stride=strides[0])

    blocks: list[BlockPlan] = []
    feature_blocks: dict[int, str] = {}
    reduction = stem.stride
    table_features = spec.stem.features  # what the table says of the layer before; `features` is what the plan says
    for index, block in enumerate(spec.blocks):
        match block:
            case InvertedResidual() if block.expanded != table_features and not rule.expand_from_input:
                expanded = scale(block.expanded)
            case InvertedResidual() if block.expanded != table_features:
                expanded = make_divisible(features * block.expanded / table_features)
            case FusedInvertedBottleneck() | UniversalInvertedBottleneck():
                expanded = make_divisible(features * block.expand)
            case _:
                expanded = features
        plan = _block_plan(
            block,
            name=f"block_{index:02d}",
            in_features=features,
            expanded=expanded,
            features=scale(block.features),
            stride=strides[1 + index],
            drop_path=drop_path * index / max(len(spec.blocks) - 1, 1),
        )
        blocks.append(plan)
        reduction *= plan.stride
        if reduction >= stem_stride:
            feature_blocks[reduction] = plan.name
        table_features, features = block.features, plan.features

    last_conv = head = None
    if spec.last_conv is not None:
        if rule.last_conv == "from_input":
            wide = features * spec.last_conv.features // table_features
        else:
            wide = scale(spec.last_conv.features, rule.last_conv)
        last_conv = ConvPlan("last_conv", features, wide, spec.last_conv.activation, kernel=spec.last_conv.kernel)
        features = wide
    if spec.head is not None:
        wide = scale(spec.head.features, rule.head)
        head = ConvPlan("head", features, wide, spec.head.activation, norm=spec.head.norm, bias=not spec.head.norm)
        features = wide
    return ModelPlan(
        name=spec.name,
        width=width,
        width_rule=width_rule,
        num_classes=num_classes,
        padding=padding,
        norm=Norm(decay=decay, epsilon=epsilon),
        dropout=dropout,
        image_size=spec.image_size,
        stem_stride=stem_stride,
        stem=stem,
        blocks=tuple(blocks),
        last_conv=last_conv,
        head=head,
        classifier=ConvPlan("classifier", features, num_classes, norm=False, bias=True, init="classifier"),
        feature_blocks=tuple(feature_blocks.items()),
        quantization=None if quantize_range_decay is None else Quantization(range_decay=quantize_range_decay),
    )


def _final_strides(spec: ModelSpec, stem_stride: int) -> list[int]:
    """Strides of the stem and of every block, after the first strided layers have given up theirs."""
    strides = [spec.stem.stride, *(block.stride for block in spec.blocks)]
    strided = [index for index, stride in enumerate(strides) if stride > 1]
    for index in strided[: {4: 0, 2: 1, 1: 2}[stem_stride]]:
        strides[index] = 1
    return strides


def _block_plan(
    block: BlockSpec, *, name: str, in_features: int, expanded: int, features: int, stride: int, drop_path: float
) -> BlockPlan:
    """Names a block's layers and connects their widths; `expanded` is the width inside the block."""
    residual = stride == 1 and in_features == features and not isinstance(block, (Conv, Separable))
    common = {
        "name": name,
        "in_features": in_features,
        "features": features,
        "stride": stride,
        "residual": residual,
        "drop_path": drop_path if residual else 0.0,
    }
    match block:
        case Conv():
            conv = ConvPlan("conv", in_features, features, block.activation, kernel=block.kernel, stride=stride)
            return ConvBlockPlan(kind="conv", conv=conv, **common)
        case Separable():
            return SeparablePlan(
                kind="separable",
                depthwise=_depthwise("depthwise", in_features, block.kernel, stride, block.activation),
                pointwise=ConvPlan("pointwise", in_features, features, block.activation),
                **common,
            )
        case InvertedResidual():
            return InvertedResidualPlan(
                kind="inverted_residual",
                expand=ConvPlan("expand", in_features, expanded, block.activation) if expanded != in_features else None,
                depthwise=_depthwise("depthwise", expanded, block.kernel, stride, block.activation),
                squeeze_excite=_squeeze_excite(expanded) if block.squeeze_excite else None,
                project=ConvPlan("project", expanded, features),
                **common,
            )
        case FusedInvertedBottleneck():
            return FusedInvertedBottleneckPlan(
                kind="fused_ib",
                expand=ConvPlan("expand", in_features, expanded, block.activation, kernel=block.kernel, stride=stride),
                project=ConvPlan("project", expanded, features),
                **common,
            )
        case UniversalInvertedBottleneck(start_kernel=start, middle_kernel=middle, activation=activation):
            start_stride = 1 if middle else stride
            return UniversalInvertedBottleneckPlan(
                kind=block.kind,
                start_depthwise=_depthwise("start_depthwise", in_features, start, start_stride) if start else None,
                expand=ConvPlan("expand", in_features, expanded, activation),
                middle_depthwise=_depthwise("middle_depthwise", expanded, middle, stride, activation)
                if middle
                else None,
                project=ConvPlan("project", expanded, features),
                layer_scale=block.layer_scale,
                **common,
            )
        case MultiQueryAttention(key_features=key_features, key_value_kernel=kernel, key_value_stride=kv_stride):
            shrinks = kv_stride > 1
            return MultiQueryAttentionPlan(
                kind="mqa",
                norm=NormPlan(name="norm", features=in_features),
                query=ConvPlan("query", in_features, block.heads * key_features, norm=False, init="xavier"),
                key_depthwise=_depthwise("key_depthwise", in_features, kernel, kv_stride) if shrinks else None,
                key=ConvPlan("key", in_features, key_features, norm=False, init="xavier"),
                value_depthwise=_depthwise("value_depthwise", in_features, kernel, kv_stride) if shrinks else None,
                value=ConvPlan("value", in_features, key_features, norm=False, init="xavier"),
                output=ConvPlan("output", block.heads * key_features, features, norm=False, init="xavier"),
                heads=block.heads,
                key_features=key_features,
                layer_scale=block.layer_scale,
                **common,
            )


def _depthwise(name: str, features: int, kernel: int, stride: int, activation: str | None = None) -> ConvPlan:
    return ConvPlan(name, features, features, activation, kernel=kernel, stride=stride, depthwise=True)


def _squeeze_excite(features: int) -> SqueezeExcitePlan:
    """V3's squeeze-excite: a quarter of the width it gates, rounded; ReLU, then relu6(x + 3) / 6; both with biases."""
    squeezed = make_divisible(features / 4)
    return SqueezeExcitePlan(
        name="se",
        reduce=ConvPlan("reduce", features, squeezed, "relu", norm=False, bias=True),
        expand=ConvPlan("expand", squeezed, features, "hard_sigmoid", norm=False, bias=True),
    )
