"""MobileNet, the backbone: a plan -> feature maps, and the embedding. A task's network is a subclass with its head."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnet_jax.models import plans
from mnet_jax.models.blocks.modules import MODULES
from mnet_jax.models.compute import Compute
from mnet_jax.models.fake_quantization import range_variable, round_in
from mnet_jax.models.fusion import Fusion
from mnet_jax.models.layers import Conv, Shared
from mnet_jax.models.variables import list_variables

# The `name` to give to every network: the scope by which profiles, `mnet benchmark step-breakdown` and `mnet tpu-check`
# find the network in a program, whatever the task.
SCOPE = "MobileNet"


class MobileNet(nn.Module):
    """Any network of the family, up to its maps and its embedding.

    Variables: {"params": ..., "batch_stats": ...}, all float32, in scopes named after the plan's layers: "stem",
    "block_00" ..., "fusion", "last_conv", "head". Those of layers that are not used do not exist: a network that uses
    the maps alone has none of the last three (but, in quantised training, the range of the pooled vector). Drop path
    draws from the keys of the examples, or else from the rng stream "dropout" (`dropout.py`).

    A subclass has a `__call__`, the scopes of its own layers lie beside the backbone's, and `list_variables` says them
    too:

        class Detector(MobileNet):
            @nn.compact
            def __call__(self, images, *, train=False):
                maps = self.maps(images, train=train)
                return {stride: nn.Dense(5, name=f"boxes_{stride}")(x) for stride, x in maps.items()}

    Attributes:
      plan: what `resolve.resolve` made.
      compute: dtype, and how training normalises.
    """

    plan: plans.ModelPlan
    compute: Compute = Compute()

    def setup(self) -> None:
        """Declares the backbone's layers; their variables come to be where they are first used."""
        plan, shared = self.plan, self.shared()
        for layer in (plan.stem, plan.last_conv, plan.head):
            if layer is not None:
                setattr(self, layer.name, Conv(layer, shared))
        if plan.fusion is not None:
            self.fusion = Fusion(plan.fusion, shared)
        if plan.quantization is not None:
            self.pool_range = range_variable(self, "pool_range")
        for block in plan.blocks:
            setattr(self, block.name, MODULES[type(block)](block, shared))

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns the embedding, as `embed` does."""
        return self.embed(images, train=train)

    def maps(self, images: jax.Array, *, train: bool = False, last_conv: bool = False) -> dict[int, jax.Array]:
        """Returns feature maps by stride: 4, 8, 16, 32 (from `plan.stem_stride` on), each [N, H', W', C].

        H' is H / stride, rounded up. Each map is the output of the last block at its stride (`plan.map_blocks`),
        before `last_conv`: in V1 of a separable block; in V2 and V3 of a projection, hence without activation; in V4
        and V5 of a UIB or attention block.

        Args:
          images: float [N, H, W, 3], normalised, any size from 32.
          train: whether norms use the batch's statistics, and blocks are dropped.
          last_conv: whether the last map is that after `last_conv`, where the network has one: what timm's V3 and V4
            give.
        """
        found, x = self._run_blocks(images, train=train)
        maps = {stride: found[name] for stride, name in self.plan.map_blocks}
        if last_conv and self.plan.last_conv is not None:
            maps[self.plan.map_blocks[-1][0]] = self.last_conv(x, train=train)
        return maps

    def embed(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns one vector an image, float32 [N, `plan.embedding_features`].

        The last map's mean over its positions, in V5 that of the fused maps; where the architecture has a layer after
        that ("head": V3 and V4), what comes out of it.

        Args:
          images: as those of `maps`.
          train: the same.
        """
        found, x = self._run_blocks(images, train=train)
        if self.plan.fusion is not None:
            x = self.fusion([found[name] for name in self.plan.fusion.blocks], train=train)
        if self.plan.last_conv is not None:
            x = self.last_conv(x, train=train)
        x = x.mean((1, 2), dtype=jnp.float32)
        if self.plan.quantization is not None:
            x = round_in(self, self.pool_range, x, self.plan.quantization, train=train)
        if self.plan.head is not None:
            x = self.head(x, train=train)
        return x.astype(jnp.float32)

    def taps(self, images: jax.Array, paths: Sequence[str], *, train: bool = False) -> dict[str, jax.Array]:
        """Returns what single blocks and layers give, [N, H', W', C] each, by their path (`heads/taps.py`).

        Args:
          images: as those of `maps`.
          paths: "block_11", a layer inside a block, "block_12/expand", "last_conv", or V5's "fusion".
          train: as that of `maps`.
        """
        found: dict[str, jax.Array] = {}

        def take(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
            result = call(*args, **kwargs)
            path = "/".join(context.module.path[len(self.path) :])
            if context.method_name == "__call__" and path in paths:
                found[path] = result
            return result

        with nn.intercept_methods(take):
            blocks, x = self._run_blocks(images, train=train)
            if "fusion" in paths:
                self.fusion([blocks[name] for name in self.plan.fusion.blocks], train=train)
            if "last_conv" in paths:
                self.last_conv(x, train=train)
        return found

    def list_variables(self) -> list[plans.Variable]:
        """Returns all variables of the network, so that it can start without being traced."""
        return list_variables(self.plan)

    def head_layers(self, image_size: plans.Size) -> list[tuple[plans.LayerPlan, plans.Size]]:
        """Returns the layers that the task has on maps, with the size of the map that each is given; for counting."""
        del image_size
        return []

    def shared(self, *, dtype: str | None = None) -> Shared:
        """Returns what the layers of this network are told; `dtype`: of layers that compute in another one."""
        compute = self.compute if dtype is None else dataclasses.replace(self.compute, dtype=dtype)
        return Shared.of(self.plan, compute)

    def _run_blocks(self, images: jax.Array, *, train: bool) -> tuple[dict[str, jax.Array], jax.Array]:
        """Returns (the maps by the names of their blocks, what the last block gives)."""
        plan = self.plan
        if images.ndim != 4 or images.shape[-1] != 3 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images must be floating point [N, height, width, 3], normalised; got {images.dtype} {images.shape}"
            )
        names = {name for _, name in plan.map_blocks}
        maps = {}
        x = self.stem(images, train=train)
        for block in plan.blocks:
            x = getattr(self, block.name)(x, train=train)
            if block.name in names:
                maps[block.name] = x
        return maps, x
