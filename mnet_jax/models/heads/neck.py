"""A feature pyramid as data: maps of one width from those of a backbone, coarse to fine. Pure Python, no jax."""

import dataclasses
import math

from mnet_jax.models.plans import ConvPlan, LayerPlan, NormPlan, Size

Layers = tuple[LayerPlan, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeckPlan:
    """Feature pyramid (arXiv 1612.03144): each tap is made as wide as the others, and what is above it is added to it.

    From the coarsest tap to the finest: lateral, plus twice the size of the map above, then smoothed; beyond the
    coarsest tap each map is made of the one before. All layers lie beside the backbone's, with unique names.
    """

    laterals: tuple[Layers, ...]  # of each tap, from the finest
    smoothing: tuple[Layers, ...]  # of each tap's sum
    smoothed_goes_down: bool  # what is added to a finer map is the smoothed map, or the sum
    coarser: tuple[Layers, ...]
    between: str | None  # activation of what a second coarser map and those after it are made of
    final: tuple[Layers, ...]  # of each map at the end, from the finest

    @property
    def parts(self) -> tuple[Layers, ...]:
        """All layers, in the order of the fields."""
        return (*self.laterals, *self.smoothing, *self.coarser, *self.final)

    def map_sizes(self, taps: list[Size]) -> list[Size]:
        """Returns height and width of each map for taps of these sizes, from the finest."""
        sizes = list(taps)
        for layers in self.coarser:
            sizes.append(after(layers, sizes[-1]))
        return sizes

    def placed(self, taps: list[Size]) -> list[tuple[LayerPlan, Size]]:
        """Returns every layer with the size of the map that it is given, in the order of `parts`."""
        sizes = self.map_sizes(taps)
        given = [*taps, *taps, *sizes[len(taps) - 1 : -1], *sizes]
        found = []
        for layers, size in zip(self.parts, given, strict=True):
            for layer in layers:
                found.append((layer, size))
                size = layer.output_size(size)
        return found


def after(layers: Layers, size: Size) -> Size:
    """Returns the size of what layers make of a map of `size`."""
    for layer in layers:
        size = layer.output_size(size)
    return size


def build_neck(kind: str, taps: tuple[int, ...], features: int, coarser: int, *, separable: bool) -> NeckPlan:
    """Returns a feature pyramid as one of two libraries has it.

    Args:
      kind: "object_detection": TensorFlow's Object Detection API, feature_map_generators.py; each convolution but the
        laterals has norm and ReLU6, the coarsest tap is not smoothed, and what is smoothed goes down. "model_garden":
        TensorFlow's model garden, modeling/decoders/fpn.py; convolutions have biases, each map its own norm at the end.
      taps: features of the backbone's maps, from the finest.
      features: of every map of the pyramid.
      coarser: how many maps follow the coarsest tap.
      separable: 3x3 convolutions are depthwise and pointwise ones, and in the model garden the laterals too.
    """
    garden = kind == "model_garden"
    levels = [3 + index for index in range(len(taps) + coarser)]  # maps of stride 8, 16, ...
    inner, outer = levels[: len(taps)], levels[len(taps) :]

    def block(name: str, stride: int = 1) -> Layers:
        if garden:
            return convolution(name, features, features, separable=separable, stride=stride, bias=True)
        norm = NormPlan(name=f"{name}_norm", features=features, activation="relu6")
        return *convolution(name, features, features, separable=separable, stride=stride), norm

    return NeckPlan(
        laterals=tuple(
            convolution(f"lateral_{level}", wide, features, kernel=1, separable=separable and garden, bias=True)
            for level, wide in zip(inner, taps, strict=True)
        ),
        smoothing=tuple(() if level == inner[-1] and not garden else block(f"smooth_{level}") for level in inner),
        smoothed_goes_down=not garden,
        coarser=tuple(block(f"coarser_{level}", 2) for level in outer),
        between="relu6" if garden else None,
        final=tuple((NormPlan(name=f"pyramid_{level}_norm", features=features),) if garden else () for level in levels),
    )


def convolution(
    name: str,
    into: int,
    features: int,
    *,
    separable: bool,
    kernel: int = 3,
    stride: int = 1,
    bias: bool = False,
    bias_mean: float = 0.0,
) -> Layers:
    """Returns a linear convolution without norm; `separable`: a depthwise one, and a pointwise one that has the bias.

    Dense kernels start with a deviation of .01, as in both libraries. Separable ones start as Keras starts its
    SeparableConv2D (Glorot), because what both libraries set does not reach its pointwise kernel, and a norm takes the
    scale of the depthwise one back.
    """
    if not separable:
        dense = ConvPlan(name, into, features, kernel=kernel, stride=stride, norm=False, bias=bias, deviation=0.01)
        return (dataclasses.replace(dense, bias_mean=bias_mean),)
    spatial = ConvPlan(
        f"{name}_depthwise",
        into,
        into,
        kernel=kernel,
        stride=stride,
        depthwise=True,
        norm=False,
        deviation=math.sqrt(2 / (kernel * kernel * (into + 1))),
    )
    return spatial, ConvPlan(name, into, features, norm=False, bias=bias, init="xavier", bias_mean=bias_mean)
