"""Heads that give boxes: the record of one (SSD, SSDLite), and its plan on one backbone. Pure Python, no jax.

A head takes two maps of the backbone, adds `extras`, each of half the resolution, and has on each map one branch for
the classes and one for the boxes of its anchors.
"""

import dataclasses
import math

from mnet_jax.errors import Range, check_choice
from mnet_jax.models.heads.taps import Tap, find_tap
from mnet_jax.models.plans import ConvPlan, ModelPlan, Norm, Size, Variable, depthwise

SCORES = ("softmax", "sigmoid")
Shape = tuple[float, float]  # height and width of an anchor
ImageSize = int | tuple[int, int]  # pixels of a side, or (height, width)

MIN_SIZE = 128  # pixels of a side: the smallest image that leaves a first map of 8 x 8
_CLASSES = Range(1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """A head as its library has it, for any backbone."""

    name: str
    source: str
    first_map: str  # which map of the last resolution but one: "expansion" or "output", see `taps.find_tap`
    extras: tuple[int, ...]  # features of the maps that follow those of the backbone, at width 1
    separable: bool  # SSDLite: 3x3 convolutions are depthwise, and one precedes each predictor; SSD: dense, and none
    anchors: tuple[tuple[Shape, ...], ...]  # of a position of each map, as shares of the image
    anchor_unit: str  # "sides": of its height and its width; "short": both of its shorter side
    scores: str  # what makes scores of the logits: "softmax" or "sigmoid"
    deviation: float  # of the first kernels of extras and predictors
    class_bias: float = 0.0  # first bias of the classes' logits
    background: bool = True  # slot 0 of the logits is the background; class k has slot k + 1
    code_scales: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)  # ty, tx, th, tw are multiplied with


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadPlan:
    """A head on one backbone, for one number of classes. All layers lie beside the backbone's, with unique names."""

    name: str
    norm: Norm  # the backbone's
    taps: tuple[Tap, ...]
    extras: tuple[tuple[ConvPlan, ...], ...]
    classes: tuple[tuple[ConvPlan, ...], ...]  # of each map
    boxes: tuple[tuple[ConvPlan, ...], ...]
    anchors: tuple[tuple[Shape, ...], ...]
    anchor_unit: str
    num_classes: int  # without the background
    background: bool
    scores: str
    code_scales: tuple[float, float, float, float]

    @property
    def num_slots(self) -> int:
        """Length of the logits of an anchor: the classes, and the background in front of them where it has a slot."""
        return self.num_classes + int(self.background)

    @property
    def layers(self) -> tuple[ConvPlan, ...]:
        """All layers: of the extras, then of each map those of classes and boxes."""
        parts = [*self.extras]
        for pair in zip(self.classes, self.boxes, strict=True):
            parts += pair
        return tuple(layer for part in parts for layer in part)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of all layers."""
        return tuple(layer.name for layer in self.layers)

    @property
    def class_scopes(self) -> tuple[str, ...]:
        """The scopes of the layers that other classes need anew: those that give the logits."""
        return tuple(layers[-1].name for layers in self.classes)

    def variables(self) -> list[Variable]:
        """Returns the variables of all layers."""
        return [variable for layer in self.layers for variable in layer.variables(self.norm)]

    def ranges(self) -> list[tuple[str, ...]]:
        """Returns the paths of the ranges that quantised training observes."""
        return [path for layer in self.layers for path in layer.ranges()]

    def map_sizes(self, image_size: ImageSize) -> list[Size]:
        """Returns height and width of each map, in the order of the outputs.

        Raises:
          ValueError: unless the image has at least 128 pixels a side.
        """
        size = check_size(image_size)
        sizes = [tap.size(size) for tap in self.taps]
        for layers in self.extras:
            sizes.append(_after(layers, sizes[-1]))
        return sizes

    def num_anchors(self, image_size: ImageSize) -> int:
        """Returns the number of anchors of an image."""
        pairs = zip(self.map_sizes(image_size), self.anchors, strict=True)
        return sum(math.prod(size) * len(shapes) for size, shapes in pairs)

    def placed(self, image_size: ImageSize) -> list[tuple[ConvPlan, Size]]:
        """Returns every layer with the size of the map that it is given, in the order of `layers`."""
        sizes = self.map_sizes(image_size)
        found = []
        for layers, size in zip(self.extras, sizes[len(self.taps) - 1 :], strict=False):
            for layer in layers:
                found.append((layer, size))
                size = layer.output_size(size)
        for classes, boxes, size in zip(self.classes, self.boxes, sizes, strict=True):
            found += [(layer, size) for layer in (*classes, *boxes)]
        return found


def resolve_head(spec: HeadSpec, plan: ModelPlan, num_classes: int) -> HeadPlan:
    """Returns the head on a backbone; its extras are as wide as `plan.width` says.

    Args:
      spec: the head.
      plan: the backbone; what it has above its maps is not used.
      num_classes: without the background, at least 1.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes not in _CLASSES:
        raise ValueError(f"num_classes must be a whole number {_CLASSES}, got {num_classes!r}")
    check_choice("scores", spec.scores, SCORES)
    if len(plan.map_blocks) < 2:
        raise ValueError(f"{plan.name} has maps of one resolution; the head {spec.name} takes two")
    taps = (find_tap(plan, spec.first_map, 1), find_tap(plan, "last", 0))
    extras, features = [], [tap.features for tap in taps]
    for number, wide in enumerate(spec.extras):
        extras.append(_extra(spec, f"extra_{number}", features[-1], wide, plan.width))
        features.append(extras[-1][-1].features)
    slots = num_classes + int(spec.background)
    pairs = list(enumerate(zip(features, spec.anchors, strict=True)))
    return HeadPlan(
        name=spec.name,
        norm=plan.norm,
        taps=taps,
        extras=tuple(extras),
        classes=tuple(
            _predictor(spec, f"classes_{number}", wide, len(shapes) * slots, spec.class_bias)
            for number, (wide, shapes) in pairs
        ),
        boxes=tuple(
            _predictor(spec, f"boxes_{number}", wide, len(shapes) * 4, 0.0) for number, (wide, shapes) in pairs
        ),
        anchors=spec.anchors,
        anchor_unit=spec.anchor_unit,
        num_classes=num_classes,
        background=spec.background,
        scores=spec.scores,
        code_scales=spec.code_scales,
    )


def check_size(image_size: ImageSize) -> Size:
    """Returns (height, width).

    Raises:
      ValueError: unless both are whole numbers of at least 128.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= MIN_SIZE for side in sides):
        raise ValueError(f"boxes need images of at least {MIN_SIZE} pixels a side, got {image_size!r}")
    return sides


def _extra(spec: HeadSpec, name: str, into: int, features: int, width: float) -> tuple[ConvPlan, ...]:
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


def _predictor(spec: HeadSpec, name: str, into: int, features: int, bias: float) -> tuple[ConvPlan, ...]:
    """Layers from a map to the numbers of its anchors, channel = anchor * numbers of an anchor + number."""
    last = ConvPlan(name, into, features, norm=False, bias=True, deviation=spec.deviation, bias_mean=bias)
    if not spec.separable:
        return (last,)
    spatial = dataclasses.replace(depthwise(f"{name}_depthwise", into, 3, 1, "relu6"), deviation=spec.deviation)
    return spatial, last


def _after(layers: tuple[ConvPlan, ...], size: Size) -> Size:
    for layer in layers:
        size = layer.output_size(size)
    return size
