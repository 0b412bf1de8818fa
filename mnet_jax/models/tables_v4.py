"""MobileNetV4 as data: arXiv 2404.10518, appendix tables; numbers as in the model garden's mobilenet.py and timm's
mobilenetv3.py."""

import dataclasses

from mnet_jax.models.blocks import (
    BlockSpec,
    Conv,
    FusedInvertedBottleneck,
    MultiQueryAttention,
    UniversalInvertedBottleneck,
)
from mnet_jax.models.plans import BatchNorm
from mnet_jax.models.specs import Head, ModelSpec
from mnet_jax.models.widths import WidthRule

# The model garden's: decay .997 and epsilon 1e-3, but for Conv-Small .95 and 1e-6 (its mobilenetv4_conv_small yaml).
_NORM = BatchNorm(decay=0.997, epsilon=1e-3)
_SMALL_NORM = BatchNorm(decay=0.95, epsilon=1e-6)

# "tf" as in the model garden, "timm" as in its mobilenetv3.py and efficientnet.py.
_RULES = {"tf": WidthRule(), "timm": WidthRule(stem_fixed_below=1.0, head="fixed")}


def _stage(
    features: int,
    *rows: tuple[int, int, int] | MultiQueryAttention,
    activation: str = "relu",
    layer_scale: float | None = None,
) -> tuple[BlockSpec, ...]:
    """Returns a stage of UIBs (start kernel, middle kernel, expansion), the first with stride 2, and of attention."""
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
    norm: BatchNorm = _NORM,
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
        width_rules=_RULES,
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


def _without_aliasing(name: str, spec: ModelSpec, pool: str) -> ModelSpec:
    """Returns timm's variant with averages in place of the strides of blocks; the stem's own stays."""
    blocks = tuple(dataclasses.replace(block, pool=pool) if block.stride > 1 else block for block in spec.blocks)
    return dataclasses.replace(spec, name=name, source=TIMM_SOURCE, blocks=blocks)


TIMM_SOURCE = "timm, mobilenetv3.py"
_CONV_MEDIUM = _v4("v4_conv_medium", 256, 32, _V4_CONV_MEDIUM)
_CONV_LARGE = _v4("v4_conv_large", 384, 24, _V4_CONV_LARGE)
MOBILENET_V4 = (
    _v4("v4_conv_small", 224, 32, _V4_CONV_SMALL, dropout=0.3, norm=_SMALL_NORM),
    _CONV_MEDIUM,
    _CONV_LARGE,
    _v4("v4_hybrid_medium", 256, 32, _V4_HYBRID_MEDIUM),
    _v4("v4_hybrid_large", 384, 24, _V4_HYBRID_LARGE, activation="gelu"),
)
TIMM_V4 = (
    _without_aliasing("v4_conv_aa_medium", _CONV_MEDIUM, "average"),
    _without_aliasing("v4_conv_aa_large", _CONV_LARGE, "average"),
    _without_aliasing("v4_conv_blur_medium", _CONV_MEDIUM, "blur"),
)
