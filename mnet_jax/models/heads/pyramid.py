"""Heads on a feature pyramid (RetinaNet, FPNLite): the record of one, and its plan. Pure Python, no jax."""

import dataclasses
from typing import ClassVar

from mnet_jax.errors import check_choice
from mnet_jax.models.heads.boxes import HeadPlan, HeadSpec, Shape
from mnet_jax.models.heads.neck import Layers, build_neck, convolution
from mnet_jax.models.heads.taps import find_tap
from mnet_jax.models.plans import ModelPlan, NormPlan

NECKS = ("object_detection", "model_garden")
MAPS = 5  # of strides 8 to 128, P3 to P7 of the papers


@dataclasses.dataclass(frozen=True, kw_only=True)
class PyramidSpec(HeadSpec):
    """A head whose layers are the same for all maps of a pyramid, but for the norms, of which each map has its own."""

    anchor_unit: ClassVar[str] = "strides"

    neck: str  # of `NECKS`
    last_map: str  # "output" or "last", see `taps.find_tap`
    features: int  # of the towers at any width; of the pyramid at width 1, in the model garden at any
    separable: bool
    anchors: tuple[Shape, ...]  # of a position, in strides of its map
    centres: str  # see `HeadPlan.centres`
    layers: int = 4  # of a tower
    one_tower: bool  # classes and boxes look at one tower, or have one each
    tower_bias: bool
    scores: str = "sigmoid"

    def build(self, plan: ModelPlan, num_classes: int) -> HeadPlan:
        """Returns the head on a backbone."""
        check_choice("neck", self.neck, NECKS)
        if len(plan.map_blocks) < 3:
            raise ValueError(
                f"{plan.name} has maps of {len(plan.map_blocks)} resolutions; the head {self.name} takes 3"
            )
        if plan.quantization is not None:
            raise ValueError(f"the head {self.name} is not trained with int8 rounding: choose one of SSD or SSDLite")
        scaled = max(
            int(self.features * plan.width), 16
        )  # additional_layer_depth, and min_depth of TensorFlow's configs
        features = scaled if self.neck == "object_detection" else self.features
        taps = (find_tap(plan, "output", 2), find_tap(plan, "output", 1), find_tap(plan, self.last_map, 0))
        slots = num_classes + int(self.background)
        numbers = {"classes": len(self.anchors) * slots, "boxes": len(self.anchors) * 4}
        towers = {what: "tower" if self.one_tower else f"{what}_tower" for what in numbers}

        def branch(what: str, level: int) -> Layers:
            bias = self.class_bias if what == "classes" else 0.0
            last = convolution(
                f"{what}_all", self.features, numbers[what], separable=self.separable, bias=True, bias_mean=bias
            )
            return *self._tower(towers[what], features, level), *last

        return HeadPlan(
            name=self.name,
            norm=plan.norm,
            taps=taps,
            neck=build_neck(
                self.neck,
                tuple(tap.features for tap in taps),
                features,
                MAPS - len(taps),
                separable=self.separable,
            ),
            extras=(),
            classes=tuple(branch("classes", 3 + index) for index in range(MAPS)),
            boxes=tuple(branch("boxes", 3 + index) for index in range(MAPS)),
            anchors=(self.anchors,) * MAPS,
            anchor_unit=self.anchor_unit,
            centres=self.centres,
            num_classes=num_classes,
            background=self.background,
            scores=self.scores,
            code_scales=self.code_scales,
        )

    def _tower(self, name: str, into: int, level: int) -> Layers:
        found = []
        for index in range(self.layers):
            layer, wide = f"{name}_{index}", self.features
            found += convolution(layer, into, wide, separable=self.separable, bias=self.tower_bias)
            found.append(NormPlan(name=f"{layer}_norm_{level}", features=wide, activation="relu6"))
            into = wide
        return tuple(found)
