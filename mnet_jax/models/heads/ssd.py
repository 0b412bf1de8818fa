"""Heads of SSD and SSDLite: the record of one, and its plan on a backbone. Pure Python, no jax.

A head takes two maps of the backbone, adds `extras`, each of half the resolution, and has on each map one branch for
the classes and one for the boxes of its anchors.
"""

import dataclasses

from mnet_jax.models.heads.boxes import HeadPlan, HeadSpec, Shape
from mnet_jax.models.heads.taps import find_tap
from mnet_jax.models.plans import ConvPlan, ModelPlan, depthwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class SsdSpec(HeadSpec):
    """SSD or SSDLite as a library has it."""

    first_map: str  # which map of the last resolution but one: "expansion" or "output", see `taps.find_tap`
    extras: tuple[int, ...]  # features of the maps that follow those of the backbone, at width 1
    separable: bool  # SSDLite: 3x3 convolutions are depthwise, and one precedes each predictor; SSD: dense, and none
    anchors: tuple[tuple[Shape, ...], ...]  # of a position of each map, as shares of the image
    anchor_unit: str  # "sides" or "short", see `HeadPlan`
    deviation: float  # of the first kernels of extras and predictors

    def build(self, plan: ModelPlan, num_classes: int) -> HeadPlan:
        """Returns the head on a backbone; its extras are as wide as `plan.width` says."""
        if len(plan.map_blocks) < 2:
            raise ValueError(f"{plan.name} has maps of one resolution; the head {self.name} takes two")
        taps = (find_tap(plan, self.first_map, 1), find_tap(plan, "last", 0))
        extras, features = [], [tap.features for tap in taps]
        for number, wide in enumerate(self.extras):
            extras.append(_extra(self, f"extra_{number}", features[-1], wide, plan.width))
            features.append(extras[-1][-1].features)
        slots = num_classes + int(self.background)
        pairs = list(enumerate(zip(features, self.anchors, strict=True)))
        return HeadPlan(
            name=self.name,
            norm=plan.norm,
            taps=taps,
            extras=tuple(extras),
            classes=tuple(
                _predictor(self, f"classes_{number}", wide, len(shapes) * slots, self.class_bias)
                for number, (wide, shapes) in pairs
            ),
            boxes=tuple(
                _predictor(self, f"boxes_{number}", wide, len(shapes) * 4, 0.0) for number, (wide, shapes) in pairs
            ),
            anchors=self.anchors,
            anchor_unit=self.anchor_unit,
            num_classes=num_classes,
            background=self.background,
            scores=self.scores,
            code_scales=self.code_scales,
        )


def _extra(spec: SsdSpec, name: str, into: int, features: int, width: float) -> tuple[ConvPlan, ...]:
    """Layers that halve a map: 1x1 to half the features, then 3x3 with stride 2 (separable: depthwise and 1x1).

    Features grow with the width, are not rounded to multiples of 8, and are at least 16 (TensorFlow's
    feature_map_generators.py with min_depth 16; torchvision's ssdlite.py: the same).
    """
    wide = max(int(features * width), 16)
    narrow = max(int(features * width / 2), 16) if not spec.separable else max(wide // 2, 8)
    reduce = ConvPlan(f"{name}_reduce", into, narrow, "relu6", deviation=spec.deviation)
    if not spec.separable:
        return reduce, ConvPlan(f"{name}_expand", narrow, wide, "relu6", kernel=3, stride=2, deviation=spec.deviation)
    spatial = dataclasses.replace(depthwise(f"{name}_depthwise", narrow, 3, 2, "relu6"), deviation=spec.deviation)
    return reduce, spatial, ConvPlan(f"{name}_expand", narrow, wide, "relu6", deviation=spec.deviation)


def _predictor(spec: SsdSpec, name: str, into: int, features: int, bias: float) -> tuple[ConvPlan, ...]:
    """Layers from a map to the numbers of its anchors, channel = anchor * numbers of an anchor + number."""
    last = ConvPlan(name, into, features, norm=False, bias=True, deviation=spec.deviation, bias_mean=bias)
    if not spec.separable:
        return (last,)
    spatial = dataclasses.replace(depthwise(f"{name}_depthwise", into, 3, 1, "relu6"), deviation=spec.deviation)
    return spatial, last
