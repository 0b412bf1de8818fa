"""The fused block of MobileNetV4 and of the Edge TPU's MobileNets."""

import dataclasses
import math

from mnet_jax.models.blocks.block import BlockSpec, Place
from mnet_jax.models.plans import BlockPlan, ConvPlan
from mnet_jax.models.widths import make_divisible


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusedInvertedBottleneck(BlockSpec):
    """A full k x k convolution that expands, then a linear projection 1x1.

    `group_features`: of a convolution in groups, how many features each makes; more where a width's channels cannot be
    divided so.
    """

    kernel: int = 3
    expand: int
    features: int
    stride: int = 1
    activation: str
    group_features: int | None = None
    pool: str | None = None

    def resolve(self, place: Place) -> "FusedInvertedBottleneckPlan":
        """Returns the block's plan."""
        into, features = place.in_features, place.widths.scale(self.features)
        expanded = make_divisible(into * self.expand)
        groups = 1
        if self.group_features is not None:
            groups = math.gcd(max(expanded // self.group_features, 1), into, expanded)
        how = {"kernel": self.kernel, "stride": place.stride, "groups": groups, "pool": self.pool}
        return FusedInvertedBottleneckPlan(
            expand=ConvPlan("expand", into, expanded, self.activation, **how),
            project=ConvPlan("project", expanded, features),
            **place.common("fused_ib", features),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusedInvertedBottleneckPlan(BlockPlan):
    """The layers of `FusedInvertedBottleneck`."""

    expand: ConvPlan
    project: ConvPlan
