"""MobileNetV5 as data: the vision encoder of Gemma 3n, which has no paper; numbers as in timm's mobilenetv5.py."""

from mnet_jax.models.blocks import (
    BlockSpec,
    Conv,
    FusedInvertedBottleneck,
    MultiQueryAttention,
    UniversalInvertedBottleneck,
)
from mnet_jax.models.plans import RmsNorm
from mnet_jax.models.specs import Fusion, ModelSpec
from mnet_jax.models.widths import WidthRule

TIMM_SOURCE = "timm, mobilenetv5.py"
_GELU = "gelu_tanh"
_LAYER_SCALE = 1e-5  # initial, of UIB and attention blocks
_RULES = {"tf": WidthRule(), "timm": WidthRule(stem_fixed_below=1.0, head="fixed")}

# Start kernel and expansion of the blocks before the attention; the first also has the middle kernel 5 and the stride.
_LOCAL_8 = ((3, 6), (5, 4), (3, 4), (5, 4), (3, 4))
_LOCAL_16 = ((5, 6), *((5, 4),) * 7, (0, 1))
_BASE_16 = ((5, 6), *((5, 4),) * 2, (0, 1))
_LOCAL_32 = ((5, 6),)


def _local(features: int, rows: tuple[tuple[int, int], ...]) -> tuple[BlockSpec, ...]:
    """Returns UIBs, the first of which strides."""
    return tuple(
        UniversalInvertedBottleneck(
            start_kernel=start_kernel,
            middle_kernel=0 if place else 5,
            expand=expand,
            features=features,
            stride=1 if place else 2,
            activation=_GELU,
            layer_scale=_LAYER_SCALE,
        )
        for place, (start_kernel, expand) in enumerate(rows)
    )


def _global(
    features: int, pairs: int, *, heads: int, key_features: int, key_value_stride: int = 1
) -> tuple[BlockSpec, ...]:
    """Returns pairs of attention and a UIB without a kernel, which is a feed-forward layer."""
    attention = MultiQueryAttention(
        heads=heads,
        key_features=key_features,
        key_value_stride=key_value_stride,
        features=features,
        layer_scale=_LAYER_SCALE,
    )
    forward = UniversalInvertedBottleneck(
        start_kernel=0, middle_kernel=0, expand=2, features=features, activation=_GELU, layer_scale=_LAYER_SCALE
    )
    return (attention, forward) * pairs


def _v5(name: str, image_size: int, blocks: tuple[BlockSpec, ...]) -> ModelSpec:
    edge = tuple(
        FusedInvertedBottleneck(expand=4, features=128, stride=stride, activation=_GELU) for stride in (2, 1, 1)
    )
    return ModelSpec(
        name=name,
        source=TIMM_SOURCE,
        image_size=image_size,
        stem=Conv(kernel=3, features=64, stride=2, activation=_GELU, bias=True),
        blocks=(*edge, *_local(256, _LOCAL_8), *blocks),
        fusion=Fusion(maps=2, expand=2, features=2048, size=16, activation=_GELU),
        dropout=0.0,
        norm=RmsNorm(epsilon=1e-6),
        width_rules=_RULES,
    )


MOBILENET_V5 = (
    _v5(
        "v5_base",
        256,
        (
            *_local(512, _BASE_16),
            *_global(512, 6, heads=8, key_features=64),
            *_local(1024, _LOCAL_32),
            *_global(1024, 7, heads=16, key_features=64),
        ),
    ),
    _v5(
        "v5_300m",
        768,
        (
            *_local(640, _LOCAL_16),
            *_global(640, 14, heads=12, key_features=64, key_value_stride=2),
            *_local(1280, _LOCAL_32),
            *_global(1280, 19, heads=16, key_features=96),
        ),
    ),
)
