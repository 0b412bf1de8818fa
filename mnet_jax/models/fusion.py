"""MobileNetV5's fusion of maps: one map of a fixed size out of those of several strides."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnet_jax.models.layers import Conv, Shared
from mnet_jax.models.ops.bilinear import upsample
from mnet_jax.models.plans import FusionPlan, Size


class Fusion(nn.Module):
    """Maps [N, H, W, C], the finest first, each half as large as the one before -> [N, *plan.size, plan.features]."""

    plan: FusionPlan
    shared: Shared

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], *, train: bool) -> jax.Array:
        """Returns the fused map."""
        plan = self.plan
        height, width = maps[0].shape[1:3]
        x = jnp.concatenate([maps[0], *(_repeated(coarse, (height, width)) for coarse in maps[1:])], -1)
        for layer in (plan.expand, plan.project):
            x = Conv(layer, self.shared, name=layer.name)(x, train=train)
        x = resized(x, plan.size)
        return self.shared.norm_module(plan.norm.name)(x, train=train).astype(self.shared.dtype)


def resized(x: jax.Array, size: Size) -> jax.Array:
    """Returns a map as averages of whole windows where its sides are multiples of `size`, else sampled bilinearly."""
    batch, height, width, features = x.shape
    if height % size[0] or width % size[1]:
        return upsample(x, size, align_corners=False)
    windows = x.reshape(batch, size[0], height // size[0], size[1], width // size[1], features)
    return windows.mean((2, 4), dtype=jnp.float32).astype(x.dtype)


def _repeated(x: jax.Array, size: Size) -> jax.Array:
    """Returns a map with each position repeated, so often that it has `size`, and cut there."""
    for axis, wanted in enumerate(size, 1):
        x = jnp.repeat(x, -(-wanted // x.shape[axis]), axis)
    return x[:, : size[0], : size[1]]
