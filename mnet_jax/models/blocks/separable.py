"""MobileNetV1's block."""

import dataclasses

from mnet_jax.models.blocks.block import BlockSpec, Place
from mnet_jax.models.plans import BlockPlan, ConvPlan, depthwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Separable(BlockSpec):
    """Depthwise, then pointwise, each with norm and activation."""

    kernel: int = 3
    features: int
    stride: int = 1
    activation: str

    def resolve(self, place: Place) -> "SeparablePlan":
        """Returns the block's plan."""
        features = place.widths.scale(self.features)
        return SeparablePlan(
            depthwise=depthwise("depthwise", place.in_features, self.kernel, place.stride, self.activation),
            pointwise=ConvPlan("pointwise", place.in_features, features, self.activation),
            **place.common("separable", features, residual=False),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeparablePlan(BlockPlan):
    """The layers of `Separable`."""

    depthwise: ConvPlan
    pointwise: ConvPlan
