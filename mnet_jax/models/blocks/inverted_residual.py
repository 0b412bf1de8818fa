"""The block of MobileNetV2 and V3."""

import dataclasses

from mnet_jax.models.blocks.block import BlockSpec, Place
from mnet_jax.models.plans import BlockPlan, ConvPlan, SqueezeExcitePlan, depthwise
from mnet_jax.models.widths import make_divisible


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertedResidual(BlockSpec):
    """Expand 1x1, depthwise, squeeze-excite where asked, linear projection 1x1.

    `expanded` is the width inside the block, as the V3 paper's tables 1 and 2 print it; where it equals the block's
    input there is no expansion layer.
    """

    kernel: int = 3
    expanded: int
    features: int
    stride: int = 1
    squeeze_excite: bool = False
    squeeze_divisor: int = 8  # of the width between the two layers of squeeze-excite, a quarter of `expanded`
    squeeze_activation: str = "relu"  # of the first of them
    activation: str
    residual: bool = True  # whether its input is added where that fits

    def resolve(self, place: Place) -> "InvertedResidualPlan":
        """Returns the block's plan."""
        into, features = place.in_features, place.widths.scale(self.features)
        expanded = place.widths.expanded(self.expanded, of=place.table_features, into=into)
        return InvertedResidualPlan(
            expand=None if expanded == into else ConvPlan("expand", into, expanded, self.activation),
            depthwise=depthwise("depthwise", expanded, self.kernel, place.stride, self.activation),
            squeeze_excite=self._gate(expanded) if self.squeeze_excite else None,
            project=ConvPlan("project", expanded, features),
            **place.common("inverted_residual", features, residual=self.residual),
        )

    def _gate(self, features: int) -> SqueezeExcitePlan:
        """Returns V3's squeeze-excite: an activation, then relu6(x + 3) / 6; both layers with biases."""
        squeezed = make_divisible(features / 4, self.squeeze_divisor)
        return SqueezeExcitePlan(
            name="se",
            reduce=ConvPlan("reduce", features, squeezed, self.squeeze_activation, norm=False, bias=True),
            expand=ConvPlan("expand", squeezed, features, "hard_sigmoid", norm=False, bias=True),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertedResidualPlan(BlockPlan):
    """The layers of `InvertedResidual`."""

    expand: ConvPlan | None
    depthwise: ConvPlan
    squeeze_excite: SqueezeExcitePlan | None
    project: ConvPlan
