"""The linen module of each kind of block: [N, H, W, C] -> [N, H', W', C'], scopes named after the plan's layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from mnet_jax.models import blocks
from mnet_jax.models.dropout import Dropout
from mnet_jax.models.fake_quantization import round_observed
from mnet_jax.models.layers import Conv, Shared, SqueezeExcite, attend
from mnet_jax.models.plans import BlockPlan, ConvPlan


class Block(nn.Module):
    """What the blocks share: scale a branch where the plan says so, drop it for some examples, add it to the input."""

    plan: BlockPlan
    shared: Shared

    def conv(self, layer: ConvPlan | None, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies a layer of the plan under its own name; a layer that the plan lacks (None) changes nothing."""
        return x if layer is None else Conv(layer, self.shared, name=layer.name)(x, train=train)

    def scaled(self, branch: jax.Array, initial: float | None) -> jax.Array:
        """Multiplies by a learned factor per channel, "layer_scale", that starts at `initial`; None: no such factor."""
        if initial is None:
            return branch
        factor = self.param("layer_scale", initializers.constant(initial), (branch.shape[-1],), jnp.float32)
        return branch * factor.astype(branch.dtype).reshape(1, 1, 1, -1)

    def merge(self, x: jax.Array, branch: jax.Array, *, train: bool) -> jax.Array:
        """Adds the branch to the block's input where the plan has a residual, after drop path (stochastic depth)."""
        if not self.plan.residual:
            return branch
        if self.plan.drop_path:
            branch = Dropout(self.plan.drop_path, whole=True, name="drop_path")(branch, train=train)
        x = x + branch
        return round_observed(self, "output_range", x, self.shared.quantization, train=train).astype(x.dtype)


class ConvBlock(Block):
    """A single convolution."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.conv(self.plan.conv, x, train=train)


class Separable(Block):
    """MobileNetV1: depthwise, pointwise."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self.conv(self.plan.depthwise, x, train=train)
        return self.conv(self.plan.pointwise, x, train=train)


class InvertedResidual(Block):
    """MobileNetV2 and V3: expand, depthwise, squeeze-excite, project."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = self.conv(self.plan.expand, x, train=train)
        y = self.conv(self.plan.depthwise, y, train=train)
        gate = self.plan.squeeze_excite
        if gate is not None:
            y = SqueezeExcite(gate, self.shared, name=gate.name)(y, train=train)
        y = self.conv(self.plan.project, y, train=train)
        return self.merge(x, y, train=train)


class FusedInvertedBottleneck(Block):
    """MobileNetV4: full convolution that expands, project."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = self.conv(self.plan.expand, x, train=train)
        y = self.conv(self.plan.project, y, train=train)
        return self.merge(x, y, train=train)


class UniversalInvertedBottleneck(Block):
    """MobileNetV4's UIB: depthwise or not, expand, depthwise or not, project."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = self.conv(self.plan.start_depthwise, x, train=train)
        y = self.conv(self.plan.expand, y, train=train)
        y = self.conv(self.plan.middle_depthwise, y, train=train)
        y = self.conv(self.plan.project, y, train=train)
        y = self.scaled(y, self.plan.layer_scale)
        return self.merge(x, y, train=train)


class MultiQueryAttention(Block):
    """MobileNetV4's attention over all positions of the map, at any resolution: there is no positional parameter."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        plan = self.plan
        y = self.shared.norm_module(plan.norm.name)(x, train=train).astype(self.shared.dtype)
        query = self.conv(plan.query, y, train=train)
        key = self.conv(plan.key, self.conv(plan.key_depthwise, y, train=train), train=train)
        value = self.conv(plan.value, self.conv(plan.value_depthwise, y, train=train), train=train)
        batch, height, width, _ = x.shape
        y = attend(
            query.reshape(batch, height * width, plan.heads, plan.key_features),
            key.reshape(batch, -1, plan.key_features),
            value.reshape(batch, -1, plan.key_features),
        )
        y = self.conv(plan.output, y.reshape(batch, height, width, -1), train=train)
        return self.merge(x, self.scaled(y, plan.layer_scale), train=train)


MODULES: dict[type[BlockPlan], type[Block]] = {
    blocks.ConvBlockPlan: ConvBlock,
    blocks.SeparablePlan: Separable,
    blocks.InvertedResidualPlan: InvertedResidual,
    blocks.FusedInvertedBottleneckPlan: FusedInvertedBottleneck,
    blocks.UniversalInvertedBottleneckPlan: UniversalInvertedBottleneck,
    blocks.MultiQueryAttentionPlan: MultiQueryAttention,
}
