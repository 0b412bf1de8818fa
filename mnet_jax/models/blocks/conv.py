"""A convolution alone: stems, and the first stages of MobileNetV4-Conv-Small."""

import dataclasses

from mnet_jax.models.blocks.block import BlockSpec, Place
from mnet_jax.models.plans import BlockPlan, ConvPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conv(BlockSpec):
    """A k x k convolution with norm and activation."""

    kernel: int
    features: int
    stride: int = 1
    activation: str
    bias: bool = False  # before its norm

    def resolve(self, place: Place) -> "ConvBlockPlan":
        """Returns the block's plan."""
        features = place.widths.scale(self.features)
        how = {"kernel": self.kernel, "stride": place.stride, "bias": self.bias}
        conv = ConvPlan("conv", place.in_features, features, self.activation, **how)
        return ConvBlockPlan(conv=conv, **place.common("conv", features, residual=False))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvBlockPlan(BlockPlan):
    """The layers of `Conv`."""

    conv: ConvPlan
