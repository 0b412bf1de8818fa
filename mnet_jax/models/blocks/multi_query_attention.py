"""The attention of MobileNetV4's hybrids."""

import dataclasses
import math
from typing import ClassVar

from mnet_jax.models.blocks.block import BlockSpec, Place
from mnet_jax.models.plans import BlockPlan, ConvPlan, NormPlan, Size, depthwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiQueryAttention(BlockSpec):
    """Mobile multi-query attention: many query heads share one key and one value head; always residual.

    With `key_value_stride` above 1, keys and values come from maps made smaller by a strided depthwise convolution
    each.
    """

    stride: ClassVar[int] = 1
    refuses_int8: ClassVar[str] = "attention"
    heads: int
    key_features: int  # a head's size, of values too; the same at every width
    key_value_stride: int = 1
    key_value_kernel: int = 3
    features: int
    layer_scale: float | None = None

    def resolve(self, place: Place) -> "MultiQueryAttentionPlan":
        """Returns the block's plan."""
        into, features = place.in_features, place.widths.scale(self.features)
        inside = self.heads * self.key_features

        def shrink(name: str) -> ConvPlan | None:
            if self.key_value_stride == 1:
                return None
            return depthwise(name, into, self.key_value_kernel, self.key_value_stride)

        return MultiQueryAttentionPlan(
            norm=NormPlan(name="norm", features=into),
            query=ConvPlan("query", into, inside, norm=False, init="xavier"),
            key_depthwise=shrink("key_depthwise"),
            key=ConvPlan("key", into, self.key_features, norm=False, init="xavier"),
            value_depthwise=shrink("value_depthwise"),
            value=ConvPlan("value", into, self.key_features, norm=False, init="xavier"),
            output=ConvPlan("output", inside, features, norm=False, init="xavier"),
            heads=self.heads,
            key_features=self.key_features,
            layer_scale=self.layer_scale,
            **place.common("mqa", features),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiQueryAttentionPlan(BlockPlan):
    """The layers of `MultiQueryAttention`."""

    norm: NormPlan
    query: ConvPlan  # to heads * key_features channels, head-major
    key_depthwise: ConvPlan | None
    key: ConvPlan
    value_depthwise: ConvPlan | None
    value: ConvPlan
    output: ConvPlan
    heads: int
    key_features: int
    layer_scale: float | None

    def multiply_adds(self, size: Size) -> int:
        """Returns those of the projections and of two products: queries by keys, and weights by values."""
        memory = size if self.key_depthwise is None else self.key_depthwise.output_size(size)
        shrinking = sum(
            layer.multiply_adds(size) for layer in (self.key_depthwise, self.value_depthwise) if layer is not None
        )
        projections = sum(layer.multiply_adds(size) for layer in (self.query, self.output))
        projections += sum(layer.multiply_adds(memory) for layer in (self.key, self.value))
        return shrinking + projections + 2 * math.prod(size) * math.prod(memory) * self.heads * self.key_features
