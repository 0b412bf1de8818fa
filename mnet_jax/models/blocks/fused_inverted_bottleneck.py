"""MobileNetV4's fused block."""

import dataclasses

from mnet_jax.models.blocks.block import BlockSpec, Place
from mnet_jax.models.plans import BlockPlan, ConvPlan
from mnet_jax.models.widths import make_divisible


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusedInvertedBottleneck(BlockSpec):
    """A full k x k convolution that expands, then a linear projection 1x1."""

    kernel: int = 3
    expand: int
    features: int
    stride: int = 1
    activation: str

    def resolve(self, place: Place) -> "FusedInvertedBottleneckPlan":
        """Returns the block's plan."""
        into, features = place.in_features, place.widths.scale(self.features)
        expanded = make_divisible(into * self.expand)
        return FusedInvertedBottleneckPlan(
            expand=ConvPlan("expand", into, expanded, self.activation, kernel=self.kernel, stride=place.stride),
            project=ConvPlan("project", expanded, features),
            **place.common("fused_ib", features),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusedInvertedBottleneckPlan(BlockPlan):
    """The layers of `FusedInvertedBottleneck`."""

    expand: ConvPlan
    project: ConvPlan
