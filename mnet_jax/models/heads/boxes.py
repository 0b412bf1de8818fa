"""Heads that give boxes: what the record of any kind says, and the plan of one on a backbone. Pure Python, no jax.

A head takes maps of the backbone, makes others of them, each of half the resolution of the one before (`extras`, or a
pyramid), and has on each map one branch for the classes and one for the boxes of its anchors.
"""

import abc
import dataclasses
import math

from mnet_jax.errors import Range, check_choice
from mnet_jax.models.heads.neck import Layers, NeckPlan, after
from mnet_jax.models.heads.taps import Tap
from mnet_jax.models.plans import ConvPlan, LayerPlan, ModelPlan, Norm, Size, Variable

SCORES = ("softmax", "sigmoid")
Shape = tuple[float, float]  # height and width of an anchor
ImageSize = int | tuple[int, int]  # pixels of a side, or (height, width)

MIN_SIZE = 128  # pixels of a side: the smallest image that leaves a first map of 8 x 8
_CLASSES = Range(1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadSpec(abc.ABC):
    """A head as its library has it, for any backbone; a kind of head is a subclass (`ssd.py`, `pyramid.py`)."""

    name: str
    source: str
    scores: str  # what makes scores of the logits: "softmax" or "sigmoid"
    class_bias: float = 0.0  # first bias of the classes' logits
    background: bool = True  # slot 0 of the logits is the background; class k has slot k + 1
    code_scales: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)  # ty, tx, th, tw are multiplied with
    focal_gamma: float = 2.0  # sigmoid: of the focal loss
    huber_delta: float = 1.0  # from which the loss of a code grows in proportion

    @abc.abstractmethod
    def build(self, plan: ModelPlan, num_classes: int) -> "HeadPlan":
        """Returns the head on a backbone; for `resolve_head`, which checks what is given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadPlan:
    """A head on one backbone, for one number of classes. All layers lie beside the backbone's, with unique names."""

    name: str
    norm: Norm  # the backbone's
    taps: tuple[Tap, ...]
    neck: NeckPlan | None = None  # makes the maps of the taps; None: these are the first maps
    extras: tuple[tuple[ConvPlan, ...], ...]
    classes: tuple[Layers, ...]  # of each map; layers of one name are the same
    boxes: tuple[Layers, ...]
    anchors: tuple[tuple[Shape, ...], ...]
    # What the anchors' sides count in: "sides": height and width of the image; "short": both in its shorter side;
    # "strides": pixels between two positions of their map.
    anchor_unit: str
    # Where a position is: "cells": in the middle of its share of the image; "strides": half a stride from the edge,
    # then a stride after the other; "edges": the same, but on the edge along a side that the stride does not divide.
    centres: str = "cells"
    num_classes: int  # without the background
    background: bool
    scores: str
    code_scales: tuple[float, float, float, float]

    @property
    def num_slots(self) -> int:
        """Length of the logits of an anchor: the classes, and the background in front of them where it has a slot."""
        return self.num_classes + int(self.background)

    @property
    def layers(self) -> tuple[LayerPlan, ...]:
        """All layers, each once: of neck and extras, then of each map those of classes and boxes."""
        parts = [*(() if self.neck is None else self.neck.parts), *self.extras]
        for pair in zip(self.classes, self.boxes, strict=True):
            parts += pair
        return tuple({layer.name: layer for part in parts for layer in part}.values())

    @property
    def predictors(self) -> frozenset[str]:
        """The scopes of the layers that give codes and logits."""
        return frozenset(layers[-1].name for layers in (*self.classes, *self.boxes))

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of all layers."""
        return tuple(layer.name for layer in self.layers)

    @property
    def class_scopes(self) -> tuple[str, ...]:
        """The scopes of the layers that other classes need anew: those that give the logits."""
        return tuple(dict.fromkeys(layers[-1].name for layers in self.classes))

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
        if self.neck is not None:
            return self.neck.map_sizes(sizes)
        for layers in self.extras:
            sizes.append(after(layers, sizes[-1]))
        return sizes

    def strides(self) -> list[int]:
        """Returns the pixels between two positions of each map."""
        first = math.prod(self.taps[0].strides)
        return [first << index for index in range(len(self.anchors))]

    def num_anchors(self, image_size: ImageSize) -> int:
        """Returns the number of anchors of an image."""
        pairs = zip(self.map_sizes(image_size), self.anchors, strict=True)
        return sum(math.prod(size) * len(shapes) for size, shapes in pairs)

    def placed(self, image_size: ImageSize) -> list[tuple[LayerPlan, Size]]:
        """Returns every layer with the size of the map that it is given, as often as it runs."""
        sizes = self.map_sizes(image_size)
        found = [] if self.neck is None else self.neck.placed(sizes[: len(self.taps)])
        for layers, size in zip(self.extras, sizes[len(self.taps) - 1 :], strict=False):
            for layer in layers:
                found.append((layer, size))
                size = layer.output_size(size)
        for classes, boxes, size in zip(self.classes, self.boxes, sizes, strict=True):
            layers = {layer.name: layer for layer in (*classes, *boxes)}  # a tower that both look at runs once
            found += [(layer, size) for layer in layers.values()]
        return found


def resolve_head(spec: HeadSpec, plan: ModelPlan, num_classes: int) -> HeadPlan:
    """Returns the head on a backbone; what it adds there is as wide as `plan.width` says, by the rule of its library.

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
    return spec.build(plan, num_classes)


def check_size(image_size: ImageSize) -> Size:
    """Returns (height, width).

    Raises:
      ValueError: unless both are whole numbers of at least 128.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= MIN_SIZE for side in sides):
        raise ValueError(f"boxes need images of at least {MIN_SIZE} pixels a side, got {image_size!r}")
    return sides
