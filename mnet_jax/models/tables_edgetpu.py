"""The MobileNets for the Edge TPU as data: the model garden's projects/edgetpu/vision, numbers as in timm's
efficientnet.py."""

from mnet_jax.models.blocks import BlockSpec, Conv, FusedInvertedBottleneck, InvertedResidual
from mnet_jax.models.plans import BatchNorm
from mnet_jax.models.specs import ModelSpec
from mnet_jax.models.widths import WidthRule

_NORM = BatchNorm(decay=0.99, epsilon=1e-3)  # the model garden's
_RULES = dict.fromkeys(("tf", "timm"), WidthRule(last_conv="fixed"))
_RELU = "relu"


def _fused(features: int, expand: int, stride: int = 1, group_features: int | None = None) -> FusedInvertedBottleneck:
    return FusedInvertedBottleneck(
        expand=expand, features=features, stride=stride, activation=_RELU, group_features=group_features
    )


def _separate(
    features: int, of: int, expand: int, stride: int = 1, kernel: int = 3, *, residual: bool = True
) -> InvertedResidual:
    return InvertedResidual(
        kernel=kernel,
        expanded=of * expand,
        features=features,
        stride=stride,
        activation=_RELU,
        residual=residual,
    )


def _spec(name: str, source: str, stem: Conv, blocks: tuple[BlockSpec, ...], last: int) -> ModelSpec:
    return ModelSpec(
        name=name,
        source=source,
        image_size=224,
        stem=stem,
        blocks=blocks,
        last_conv=Conv(kernel=1, features=last, activation=_RELU),
        dropout=0.2,
        norm=_NORM,
        width_rules=_RULES,
    )


def _stem(kernel: int, features: int) -> Conv:
    return Conv(kernel=kernel, features=features, stride=2, activation=_RELU)


_V1 = (
    Conv(kernel=1, features=16, activation=_RELU),
    _fused(32, 8, 2),
    *(_fused(32, 4),) * 3,
    _fused(48, 8, 2),
    *(_fused(48, 4),) * 3,
    _separate(96, 48, 8, 2),
    *(_separate(96, 96, 4),) * 3,
    _separate(96, 96, 8, residual=False),
    *(_separate(96, 96, 4),) * 3,
    _separate(160, 96, 8, 2, 5),
    *(_separate(160, 160, 4, 1, 5),) * 3,
    _separate(192, 160, 8),
)


def _v2(size: str, stem: Conv, features: tuple[int, ...], last: int, group: int = 64) -> ModelSpec:
    """Returns a network of the second generation, whose fused blocks have groups of `group` features."""
    zero, one, two, three, four, five, six = features
    blocks = (
        Conv(kernel=1, features=zero, activation=_RELU),
        _fused(one, 8, 2),
        _fused(one, 4, 1, group),
        _fused(two, 8, 2),
        _fused(two, 4, 1, group),
        _fused(two, 4),
        _fused(two, 4, 1, group),
        _fused(three, 8, 2),
        *(_separate(three, three, 4),) * 3,
        _separate(four, three, 8),
        *(_separate(four, four, 4),) * 3,
        _separate(five, four, 8, 2),
        *(_separate(five, five, 4),) * 3,
        _separate(six, five, 8),
    )
    return _spec(f"edgetpu_v2_{size}", f"model garden, MobileNet-EdgeTPU V2 {size.upper()}", stem, blocks, last)


MOBILENET_EDGETPU = (
    _spec("edgetpu_v1", "model garden, MobileNet-EdgeTPU", _stem(3, 32), _V1, 1280),
    _v2("xs", _stem(3, 32), (16, 32, 48, 96, 144, 160, 192), 1280),
    _v2("s", _stem(5, 64), (24, 48, 64, 128, 160, 192, 256), 1280),
    _v2("m", _stem(5, 64), (32, 64, 80, 160, 192, 240, 320), 1344),
    _v2("l", _stem(7, 64), (32, 64, 96, 192, 240, 256, 384), 1408, 128),
)
