"""A backbone with a smaller output stride: its last blocks stride no more, and dilate. Pure Python, no jax.

Dilation changes no variable: a backbone takes the weights of a classifier as they are.
"""

import dataclasses

from mnet_jax.errors import check_choice
from mnet_jax.models.plans import BlockPlan, ConvPlan, ModelPlan

# Of a block whose stride is taken away: "new": it has the new rate itself (torchvision's `dilated`); "previous": it
# keeps the one of the blocks before it, and those after it have the new one (TensorFlow's slim and DeepLab).
RULES = ("new", "previous")
OUTPUT_STRIDES = (8, 16, 32)


def dilated(plan: ModelPlan, output_stride: int, rule: str) -> ModelPlan:
    """Returns the backbone with maps of no larger stride than `output_stride`; unchanged where it has none such.

    Convolutions of several positions are dilated by the product of the strides that were taken away before them.
    What makes keys and values of an attention smaller stays as it is: it changes no map.

    Args:
      plan: the backbone.
      output_stride: 8, 16 or 32.
      rule: of `RULES`.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    check_choice("output_stride", output_stride, OUTPUT_STRIDES)
    check_choice("dilation rule", rule, RULES)
    reduction, rate = plan.stem.stride, 1
    blocks: list[BlockPlan] = []
    map_blocks: dict[int, str] = {}
    for block in plan.blocks:
        own = rate
        if block.stride > 1 and reduction * block.stride > output_stride:
            rate *= block.stride
            own = rate if rule == "new" else own
            block = _without_stride(block)
        blocks.append(_with_rate(block, own) if own > 1 else block)
        reduction *= block.stride
        if reduction >= plan.stem_stride:
            map_blocks[reduction] = block.name
    if rate == 1:
        return plan
    return dataclasses.replace(plan, blocks=tuple(blocks), map_blocks=tuple(map_blocks.items()))


def _without_stride(block: BlockPlan) -> BlockPlan:
    """Returns the block at stride 1; it adds its input no more than before."""
    changed = {
        name: dataclasses.replace(layer, stride=1) for name, layer in _spatial(block).items() if layer.stride > 1
    }
    return dataclasses.replace(block, stride=1, **changed)


def _with_rate(block: BlockPlan, rate: int) -> BlockPlan:
    changed = {
        name: dataclasses.replace(layer, dilation=rate) for name, layer in _spatial(block).items() if layer.stride == 1
    }
    return dataclasses.replace(block, **changed)


def _spatial(block: BlockPlan) -> dict[str, ConvPlan]:
    """Returns the convolutions of more than one position by the block's fields."""
    layers = {field.name: getattr(block, field.name) for field in dataclasses.fields(block)}
    return {name: layer for name, layer in layers.items() if isinstance(layer, ConvPlan) and layer.kernel > 1}
