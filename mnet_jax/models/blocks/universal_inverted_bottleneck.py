"""MobileNetV4's universal inverted bottleneck (UIB)."""

import dataclasses

from mnet_jax.models.blocks.block import BlockSpec, Place
from mnet_jax.models.plans import BlockPlan, ConvPlan, depthwise
from mnet_jax.models.widths import make_divisible


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniversalInvertedBottleneck(BlockSpec):
    """An inverted bottleneck with an optional depthwise before the expansion and one after it.

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
    pool: str | None = None

    @property
    def kind(self) -> str:
        """The paper's name for this choice of kernels (arXiv 2404.10518, figure 4)."""
        if self.start_kernel:
            return "extra_dw" if self.middle_kernel else "convnext_like"
        return "inverted_bottleneck" if self.middle_kernel else "ffn"

    def resolve(self, place: Place) -> "UniversalInvertedBottleneckPlan":
        """Returns the block's plan."""
        into, features = place.in_features, place.widths.scale(self.features)
        expanded = make_divisible(into * self.expand)
        start = middle = None
        if self.start_kernel:
            stride = 1 if self.middle_kernel else place.stride
            start = self._strided(depthwise("start_depthwise", into, self.start_kernel, stride))
        if self.middle_kernel:
            middle = self._strided(
                depthwise("middle_depthwise", expanded, self.middle_kernel, place.stride, self.activation)
            )
        return UniversalInvertedBottleneckPlan(
            start_depthwise=start,
            expand=ConvPlan("expand", into, expanded, self.activation),
            middle_depthwise=middle,
            project=ConvPlan("project", expanded, features),
            layer_scale=self.layer_scale,
            **place.common(self.kind, features),
        )

    def _strided(self, layer: ConvPlan) -> ConvPlan:
        return dataclasses.replace(layer, pool=self.pool)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniversalInvertedBottleneckPlan(BlockPlan):
    """The layers of `UniversalInvertedBottleneck`."""

    start_depthwise: ConvPlan | None
    expand: ConvPlan
    middle_depthwise: ConvPlan | None
    project: ConvPlan
    layer_scale: float | None  # how a learned factor for each channel starts, the leaf "layer_scale"; None: no factor
