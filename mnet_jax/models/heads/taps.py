"""Where heads take their maps from a backbone: the layers of a plan, by level of resolution. Pure Python, no jax."""

import dataclasses

from mnet_jax.errors import check_choice
from mnet_jax.models.plans import BlockPlan, ConvPlan, ModelPlan, Size

KINDS = ("expansion", "output", "last")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tap:
    """One map of a backbone: what a block gives ("block_11"), or a layer ("block_12/expand", "last_conv")."""

    path: str  # of the module, from the network
    features: int
    before: tuple[ConvPlan | BlockPlan, ...]  # the stem and the blocks that stride before it, in their order

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides of what is before it."""
        return tuple(part.stride for part in self.before)

    def size(self, image_size: Size) -> Size:
        """Returns height and width for images of `image_size`."""
        for part in self.before:
            image_size = part.output_size(image_size)
        return image_size


def find_tap(plan: ModelPlan, kind: str, level: int) -> Tap:
    """Returns one map of a backbone.

    Args:
      plan: the backbone.
      kind: "output": what the last block of the level gives. "expansion": the wide map inside the block after that,
        before its stride (V2 paper, section 6.3: "the expansion layer of layer 15"; V3 paper, 6.3: "C4"); of a
        backbone whose blocks do not expand (V1), "output". "last": what comes out of the network before it is pooled
        (C5): of `last_conv`, or of the last block where there is none.
      level: 0 for the coarsest resolution, 1 for the one before it, ...

    Raises:
      ValueError: if there is no such kind or level.
    """
    check_choice("map", kind, KINDS)
    if not 0 <= level < len(plan.map_blocks):
        raise ValueError(f"{plan.name} has maps of {len(plan.map_blocks)} resolutions, none of level {level}")
    if kind == "last":
        layer = plan.last_conv
        if layer is not None:
            return Tap(path=layer.name, features=layer.features, before=_strided(plan, len(plan.blocks)))
        level = 0
    name = plan.map_blocks[len(plan.map_blocks) - 1 - level][1]
    index = next(index for index, block in enumerate(plan.blocks) if block.name == name)
    if kind == "expansion" and index + 1 < len(plan.blocks):
        block = plan.blocks[index + 1]
        layer = _expansion(block)
        if layer is not None:
            path = f"{block.name}/{layer.name}"
            return Tap(path=path, features=layer.features, before=_strided(plan, index + 1))
    return Tap(path=name, features=plan.blocks[index].features, before=_strided(plan, index + 1))


def find_first(plan: ModelPlan, stride: int) -> Tap:
    """Returns the map of the first block that stands at a stride: of the one that strides to it.

    Raises:
      ValueError: if no block does.
    """
    reduction = plan.stem.stride
    for index, block in enumerate(plan.blocks):
        reduction *= block.stride
        if reduction == stride:
            return Tap(path=block.name, features=block.features, before=_strided(plan, index + 1))
    raise ValueError(f"{plan.name} with stem_stride {plan.stem_stride} has no map of stride {stride}")


def _expansion(block: BlockPlan) -> ConvPlan | None:
    """Returns the 1x1 layer that widens the map before the block's stride; None: it has none."""
    for layer in block.layers:
        if getattr(layer, "stride", 1) > 1:
            return None
        if isinstance(layer, ConvPlan) and layer.name == "expand":
            return layer
    return None


def _strided(plan: ModelPlan, blocks: int) -> tuple[ConvPlan | BlockPlan, ...]:
    """The stem and the first `blocks` blocks, without those of stride 1."""
    return tuple(part for part in (plan.stem, *plan.blocks[:blocks]) if part.stride > 1)


def trimmed(plan: ModelPlan, taps: tuple[Tap, ...]) -> ModelPlan:
    """Returns the backbone without what is above the maps that are taken: head, classifier, an unused last layer."""
    used = any(plan.last_conv is not None and tap.path == plan.last_conv.name for tap in taps)
    last_conv = plan.last_conv if used else None
    return dataclasses.replace(plan, fusion=None, last_conv=last_conv, head=None, classifier=None)
