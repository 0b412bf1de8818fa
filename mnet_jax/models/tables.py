"""Every architecture as data: `SPECS`, name -> ModelSpec. Row order and columns are those of the papers' tables."""

from mnet_jax.models.specs import (
    BlockSpec,
    Conv,
    FusedInvertedBottleneck,
    Head,
    InvertedResidual,
    ModelSpec,
    MultiQueryAttention,
    Norm,
    Separable,
    UniversalInvertedBottleneck,
    WidthRule,
)

# Norms. All epsilons are TensorFlow's 1e-3 but for V4-Conv-Small's 1e-6 (model garden, mobilenetv4_conv_small yaml).
# Decays: model garden .997 (V1, V2, V4; slim trained V1 with .9997, too slow for runs under some 20,000 steps),
# V3 .99 (arXiv 1905.02244, section 6.1.1), V4-Conv-Small .95 (model garden).
_GARDEN_NORM = Norm(decay=0.997, epsilon=1e-3)
_V3_NORM = Norm(decay=0.99, epsilon=1e-3)
_V4_SMALL_NORM = Norm(decay=0.95, epsilon=1e-6)

# Width rules: "tf" as in slim and the model garden, "timm" as in its mobilenetv3.py and efficientnet.py, "torchvision"
# as in its mobilenetv2.py and mobilenetv3.py.
_V1_RULES = {"tf": WidthRule(rounded=False), "timm": WidthRule()}
_V2_RULE = WidthRule(last_conv="grow")
_V2_RULES = {"tf": _V2_RULE, "timm": _V2_RULE, "torchvision": _V2_RULE}
_V3_RULES = {
    "tf": WidthRule(),
    "timm": WidthRule(stem_fixed_below=0.75, head="fixed"),
    "torchvision": WidthRule(expand_from_input=False, last_conv="from_input", head="scale"),
}
_V4_RULES = {"tf": WidthRule(), "timm": WidthRule(stem_fixed_below=1.0, head="fixed")}


# MobileNetV1: (features, stride) of the separable blocks, arXiv 1704.04861, table 1.
_V1_ROWS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),  # the table prints stride 2 for this last depthwise layer; its output size, slim and Keras say 1
)

# MobileNetV2: (t expansion, c features, n repeats, s stride of the first), arXiv 1801.04381, table 2.
_V2_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _v2_blocks() -> tuple[InvertedResidual, ...]:
    blocks = []
    in_features = 32
    for expand, features, repeats, stride in _V2_ROWS:
        for repeat in range(repeats):
            blocks.append(
                InvertedResidual(
                    expanded=in_features * expand,
                    features=features,
                    stride=1 if repeat else stride,
                    activation="relu6",
                )
            )
            in_features = features
    return tuple(blocks)


# MobileNetV3: (kernel, expanded, features, squeeze-excite, activation, stride), arXiv 1905.02244, tables 1 and 2.
_RE, _HS = "relu", "hard_swish"
_V3_LARGE_ROWS = (
    (3, 16, 16, False, _RE, 1),
    (3, 64, 24, False, _RE, 2),
    (3, 72, 24, False, _RE, 1),
    (5, 72, 40, True, _RE, 2),
    (5, 120, 40, True, _RE, 1),
    (5, 120, 40, True, _RE, 1),
    (3, 240, 80, False, _HS, 2),
    (3, 200, 80, False, _HS, 1),
    (3, 184, 80, False, _HS, 1),
    (3, 184, 80, False, _HS, 1),
    (3, 480, 112, True, _HS, 1),
    (3, 672, 112, True, _HS, 1),
    (5, 672, 160, True, _HS, 2),
    (5, 960, 160, True, _HS, 1),
    (5, 960, 160, True, _HS, 1),
)
_V3_SMALL_ROWS = (
    (3, 16, 16, True, _RE, 2),
    (3, 72, 24, False, _RE, 2),
    (3, 88, 24, False, _RE, 1),
    (5, 96, 40, True, _HS, 2),
    (5, 240, 40, True, _HS, 1),
    (5, 240, 40, True, _HS, 1),
    (5, 120, 48, True, _HS, 1),
    (5, 144, 48, True, _HS, 1),
    (5, 288, 96, True, _HS, 2),
    (5, 576, 96, True, _HS, 1),
    (5, 576, 96, True, _HS, 1),
)


def _v3(name: str, source: str, rows: tuple, last: int, head: int, *, minimalistic: bool = False) -> ModelSpec:
    """`minimalistic`: kernels of 3, no squeeze-excite, ReLU everywhere (slim's V3_LARGE_MINIMALISTIC and small)."""
    blocks = tuple(
        InvertedResidual(
            kernel=3 if minimalistic else kernel,
            expanded=expanded,
            features=features,
            squeeze_excite=squeeze_excite and not minimalistic,
            activation=_RE if minimalistic else activation,
            stride=stride,
        )
        for kernel, expanded, features, squeeze_excite, activation, stride in rows
    )
    activation = _RE if minimalistic else _HS
    return ModelSpec(
        name=name,
        source=source,
        image_size=224,
        stem=Conv(kernel=3, features=16, stride=2, activation=activation),
        blocks=blocks,
        last_conv=Conv(kernel=1, features=last, activation=activation),
        head=Head(features=head, norm=False, activation=activation),
        dropout=0.2,
        norm=_V3_NORM,
        width_rules=_V3_RULES,
    )


# MobileNetV4: arXiv 2404.10518, appendix tables; numbers as in the model garden's mobilenet.py and timm's
# mobilenetv3.py.


def _stage(
    features: int,
    *rows: tuple[int, int, int] | MultiQueryAttention,
    activation: str = "relu",
    layer_scale: float | None = None,
) -> tuple[BlockSpec, ...]:
    """A stage of UIBs (start kernel, middle kernel, expansion), the first with stride 2, and of attention blocks."""
    blocks = []
    for row in rows:
        if isinstance(row, MultiQueryAttention):
            blocks.append(row)
            continue
        start_kernel, middle_kernel, expand = row
        block = UniversalInvertedBottleneck(
            start_kernel=start_kernel,
            middle_kernel=middle_kernel,
            expand=expand,
            features=features,
            stride=1 if blocks else 2,
            activation=activation,
            layer_scale=layer_scale,
        )
        blocks.append(block)
    return tuple(blocks)


def _v4(
    name: str,
    image_size: int,
    stem: int,
    blocks: tuple[BlockSpec, ...],
    *,
    activation: str = "relu",
    dropout: float = 0.2,
    norm: Norm = _GARDEN_NORM,
) -> ModelSpec:
    return ModelSpec(
        name=name,
        source="MobileNetV4, arXiv 2404.10518, appendix",
        image_size=image_size,
        stem=Conv(kernel=3, features=stem, stride=2, activation=activation),
        blocks=blocks,
        last_conv=Conv(kernel=1, features=960, activation=activation),
        head=Head(features=1280, norm=True, activation=activation),
        dropout=dropout,
        norm=norm,
        width_rules=_V4_RULES,
    )


_V4_CONV_SMALL = (
    Conv(kernel=3, features=32, stride=2, activation="relu"),
    Conv(kernel=1, features=32, activation="relu"),
    Conv(kernel=3, features=96, stride=2, activation="relu"),
    Conv(kernel=1, features=64, activation="relu"),
    *_stage(96, (5, 5, 3), (0, 3, 2), (0, 3, 2), (0, 3, 2), (0, 3, 2), (3, 0, 4)),
    *_stage(128, (3, 3, 6), (5, 5, 4), (0, 5, 4), (0, 5, 3), (0, 3, 4), (0, 3, 4)),
)

_V4_CONV_MEDIUM = (
    FusedInvertedBottleneck(expand=4, features=48, stride=2, activation="relu"),
    *_stage(80, (3, 5, 4), (3, 3, 2)),
    *_stage(160, (3, 5, 6), (3, 3, 4), (3, 3, 4), (3, 5, 4), (3, 3, 4), (3, 0, 4), (0, 0, 2), (3, 0, 4)),
    *_stage(
        256,
        (5, 5, 6),
        (5, 5, 4),
        (3, 5, 4),
        (3, 5, 4),
        (0, 0, 4),
        (3, 0, 4),
        (3, 5, 2),
        (5, 5, 4),
        (0, 0, 4),
        (0, 0, 4),
        (5, 0, 2),
    ),
)

_V4_CONV_LARGE = (
    FusedInvertedBottleneck(expand=4, features=48, stride=2, activation="relu"),
    *_stage(96, (3, 5, 4), (3, 3, 4)),
    *_stage(192, (3, 5, 4), *((3, 3, 4),) * 3, (3, 5, 4), *((5, 3, 4),) * 5, (3, 0, 4)),
    *_stage(
        512,
        *((5, 5, 4),) * 4,
        (5, 0, 4),
        (5, 3, 4),
        (5, 0, 4),
        (5, 0, 4),
        (5, 3, 4),
        (5, 5, 4),
        *((5, 0, 4),) * 3,
    ),
)

_LAYER_SCALE = 1e-5  # initial, of the hybrids' UIB and attention blocks

_MEDIUM_16 = MultiQueryAttention(heads=4, key_features=64, key_value_stride=2, features=160, layer_scale=_LAYER_SCALE)
_MEDIUM_32 = MultiQueryAttention(heads=4, key_features=64, features=256, layer_scale=_LAYER_SCALE)
_V4_HYBRID_MEDIUM = (
    FusedInvertedBottleneck(expand=4, features=48, stride=2, activation="relu"),
    *_stage(80, (3, 5, 4), (3, 3, 2), layer_scale=_LAYER_SCALE),
    *_stage(
        160,
        (3, 5, 6),
        (0, 0, 2),
        (3, 3, 4),
        (3, 5, 4),
        _MEDIUM_16,
        (3, 3, 4),
        _MEDIUM_16,
        (3, 0, 4),
        _MEDIUM_16,
        (3, 3, 4),
        _MEDIUM_16,
        (3, 0, 4),
        layer_scale=_LAYER_SCALE,
    ),
    *_stage(
        256,
        (5, 5, 6),
        (5, 5, 4),
        (3, 5, 4),
        (3, 5, 4),
        (0, 0, 2),
        (3, 5, 2),
        (0, 0, 2),
        (0, 0, 4),
        _MEDIUM_32,
        (3, 0, 4),
        _MEDIUM_32,
        (5, 5, 4),
        _MEDIUM_32,
        (5, 0, 4),
        _MEDIUM_32,
        (5, 0, 4),
        layer_scale=_LAYER_SCALE,
    ),
)

_LARGE_16 = MultiQueryAttention(heads=8, key_features=48, key_value_stride=2, features=192, layer_scale=_LAYER_SCALE)
_LARGE_32 = MultiQueryAttention(heads=8, key_features=64, features=512, layer_scale=_LAYER_SCALE)
_V4_HYBRID_LARGE = (
    FusedInvertedBottleneck(expand=4, features=48, stride=2, activation="gelu"),
    *_stage(96, (3, 5, 4), (3, 3, 4), activation="gelu", layer_scale=_LAYER_SCALE),
    *_stage(
        192,
        (3, 5, 4),
        *((3, 3, 4),) * 3,
        (3, 5, 4),
        *((5, 3, 4),) * 2,
        _LARGE_16,
        (5, 3, 4),
        _LARGE_16,
        (5, 3, 4),
        _LARGE_16,
        (5, 3, 4),
        _LARGE_16,
        (3, 0, 4),
        activation="gelu",
        layer_scale=_LAYER_SCALE,
    ),
    *_stage(
        512,
        *((5, 5, 4),) * 4,
        (5, 0, 4),
        (5, 3, 4),
        (5, 0, 4),
        (5, 0, 4),
        (5, 3, 4),
        (5, 5, 4),
        _LARGE_32,
        (5, 0, 4),
        _LARGE_32,
        (5, 0, 4),
        _LARGE_32,
        (5, 0, 4),
        _LARGE_32,
        (5, 0, 4),
        activation="gelu",
        layer_scale=_LAYER_SCALE,
    ),
)


_ALL = (
    ModelSpec(
        name="v1",
        source="MobileNetV1, arXiv 1704.04861, table 1",
        image_size=224,
        stem=Conv(kernel=3, features=32, stride=2, activation="relu6"),
        blocks=tuple(Separable(features=features, stride=stride, activation="relu6") for features, stride in _V1_ROWS),
        dropout=0.001,  # slim's mobilenet_v1.py
        norm=_GARDEN_NORM,
        width_rules=_V1_RULES,
    ),
    ModelSpec(
        name="v2",
        source="MobileNetV2, arXiv 1801.04381, table 2",
        image_size=224,
        stem=Conv(kernel=3, features=32, stride=2, activation="relu6"),
        blocks=_v2_blocks(),
        last_conv=Conv(kernel=1, features=1280, activation="relu6"),
        dropout=0.2,
        norm=_GARDEN_NORM,
        width_rules=_V2_RULES,
    ),
    _v3("v3_large", "MobileNetV3, arXiv 1905.02244, table 1", _V3_LARGE_ROWS, 960, 1280),
    _v3("v3_small", "MobileNetV3, arXiv 1905.02244, table 2", _V3_SMALL_ROWS, 576, 1024),
    _v3("v3_large_minimalistic", "slim, mobilenet_v3.py", _V3_LARGE_ROWS, 960, 1280, minimalistic=True),
    _v3("v3_small_minimalistic", "slim, mobilenet_v3.py", _V3_SMALL_ROWS, 576, 1024, minimalistic=True),
    _v4("v4_conv_small", 224, 32, _V4_CONV_SMALL, dropout=0.3, norm=_V4_SMALL_NORM),
    _v4("v4_conv_medium", 256, 32, _V4_CONV_MEDIUM),
    _v4("v4_conv_large", 384, 24, _V4_CONV_LARGE),
    _v4("v4_hybrid_medium", 256, 32, _V4_HYBRID_MEDIUM),
    _v4("v4_hybrid_large", 384, 24, _V4_HYBRID_LARGE, activation="gelu"),
)

SPECS: dict[str, ModelSpec] = {spec.name: spec for spec in _ALL}


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return list(SPECS)
