"""A plan and its variables -> the graph for inference: nothing is left of training, and nothing can be folded further.

batch norm               into the kernel and bias of its convolution
batch norm of attention  into the projections after it; a 1x1 depthwise convolution where padding comes first
layer scale              into the convolution before it
attention's d^-1/2       into the query
hard sigmoid of a gate   relu6(x + 3) / 6: the 3 into the bias before it, the 1/6 into the projection after it
deviation of the pixels  into the stem (the mean is subtracted: zero padding means "the mean", not "black")
dropout, drop path       gone
"""

from collections.abc import Callable, Mapping

import numpy as np

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.blocks import FOLDED
from mnet_jax.deploy.builder import Builder
from mnet_jax.errors import check_choice
from mnet_jax.models import plans

MIN_SIZE = 32  # pixels of a side: the smallest images that the family is defined for
INPUTS = ("uint8", "float")


class Backbone(Builder):
    """The graph of a network up to its maps or its embedding, for its task's head to go on from."""

    def __init__(self, plan: plans.ModelPlan, variables: Mapping[str, Mapping], input_shape: tuple[int, ...]):
        super().__init__(plan, variables, input_shape)
        self._maps: dict[int, str] = {}
        self._blocks: dict[str, str] = {}  # name of a block -> the node of what it gives
        self._last = g.INPUT  # what the last block gives
        self._last_conv: str | None = None
        self._fusion: str | None = None
        self._embedding: str | None = None

    def maps(self) -> dict[int, str]:
        """Returns the node of each map by its stride, as `MobileNet.maps` has them."""
        return self._maps

    def embedding(self) -> str:
        """Returns the node of the embedding, [1, 1, F]; its layers are added when it is first asked for."""
        if self._embedding is None:
            plan = self.plan
            top = next((layer.name for layer in (plan.last_conv, plan.fusion) if layer is not None), None)
            x = self.mean("pool", self._last if top is None else self.tap(top))
            self._embedding = x if plan.head is None else self.conv(plan.head, x)
        return self._embedding

    def tap(self, path: str) -> str:
        """Returns the node of what a block or a layer gives, by its path, as `MobileNet.taps` has them."""
        if self.plan.last_conv is not None and path == self.plan.last_conv.name:
            if self._last_conv is None:
                self._last_conv = self.conv(self.plan.last_conv, self._last)
            return self._last_conv
        if self.plan.fusion is not None and path == self.plan.fusion.name:
            if self._fusion is None:
                self._fusion = self._fused(self.plan.fusion)
            return self._fusion
        node = self._blocks.get(path, path)
        if node not in self.shapes:
            raise ValueError(f"{self.plan.name} has no block or layer {path!r}")
        return node

    def add_maps(self, mean: np.ndarray | None, std: np.ndarray) -> None:
        """Adds everything up to the maps; `mean`: of pixels that the graph normalises, None: they come normalised."""
        x, before = g.INPUT, None
        if mean is not None:
            x = self.add(g.Pixels, "normalize", (x,), self.shapes[x], mean=np.asarray(mean, np.float32))
            before = 1 / np.asarray(std, np.float64)
        x = self.conv(self.plan.stem, x, before=before)
        strides = {name: stride for stride, name in self.plan.map_blocks}
        for block in self.plan.blocks:
            y = FOLDED[type(block)](self, block, x)
            x = self.add(g.Add, f"{block.name}/add", (x, y), self.shapes[x]) if block.residual else y
            self._blocks[block.name] = x
            if block.name in strides:
                self._maps[strides[block.name]] = x
        self._last = x

    def _fused(self, fusion: plans.FusionPlan) -> str:
        """Adds the layers of a fusion, as `models/fusion.py` has them."""
        finest, *coarser = (self._blocks[name] for name in fusion.blocks)
        scope, maps = (fusion.name,), [finest]
        for number, x in enumerate(coarser, 1):
            height, width, _ = self.shapes[finest]
            while self.shapes[x][:2] != (height, width):  # twice as large each time
                size = (min(2 * self.shapes[x][0], height), min(2 * self.shapes[x][1], width))
                shape = (*size, self.shapes[x][2])
                x = self.add(g.Twice, f"{fusion.name}/map_{number}/{size[0]}x{size[1]}", (x,), shape)
            maps.append(x)
        x = self.channels(f"{fusion.name}/maps", maps)
        for layer in (fusion.expand, fusion.project):
            x = self.conv(layer, x, scope)
        sides = self.shapes[x][:2]
        if sides != fusion.size and not any(side % wanted for side, wanted in zip(sides, fusion.size, strict=True)):
            window = (sides[0] // fusion.size[0], sides[1] // fusion.size[1])
            x = self.window_mean(f"{fusion.name}/windows", x, window, window)
        else:
            x = self.resize(f"{fusion.name}/resized", x, fusion.size, align_corners=False)
        return self.norm(fusion.norm, x, scope)


def fold(
    plan: plans.ModelPlan,
    variables: Mapping[str, Mapping],
    head: Callable[[Backbone], dict[str, str]],
    *,
    image_size: int | tuple[int, int] | None = None,
    input: str = "float",
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    std: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> g.Graph:
    """Returns the graph of a network for images of one size.

    Args:
      plan: the network.
      variables: {"params": ..., "batch_stats": ...} of its model.
      head: adds the task's layers to the backbone, and returns the nodes of the network's results by name
        (`tasks/<task>/export.py`).
      image_size: pixels, one number or (height, width); None: the plan's own.
      input: "uint8": pixels, which the graph normalises; "float": images normalised before, float32.
      mean: of the pixels (0..255), per channel; used by input "uint8".
      std: their standard deviation.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    height, width = check_size(plan.image_size if image_size is None else image_size)
    check_choice("input", input, INPUTS)
    backbone = Backbone(plan, variables, (height, width, 3))
    backbone.add_maps(mean if input == "uint8" else None, std)
    outputs = head(backbone)
    dtype = "uint8" if input == "uint8" else "float32"
    return g.Graph(input_shape=(height, width, 3), input_dtype=dtype, nodes=tuple(backbone.nodes), outputs=outputs)


def check_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns (height, width) of an image size.

    Raises:
      ValueError: unless both are whole numbers of at least 32.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= MIN_SIZE for side in sides):
        raise ValueError(f"image_size must be a number of at least {MIN_SIZE} pixels, or two, got {size!r}")
    return sides
