"""The kinds of blocks. Each has a file here with its record, as the papers print it, and with its plan.

A new kind is a file like the others, a line in `KINDS`, a module in `modules.py`, a folded form in `deploy/blocks.py`
and, where a library publishes weights with such blocks, their names in `pretrained/`. A test lists what a kind lacks.
Pure Python but for `modules.py`, which is imported when a network runs.
"""

from mnet_jax.models.blocks.block import BlockSpec, Place
from mnet_jax.models.blocks.conv import Conv, ConvBlockPlan
from mnet_jax.models.blocks.fused_inverted_bottleneck import FusedInvertedBottleneck, FusedInvertedBottleneckPlan
from mnet_jax.models.blocks.inverted_residual import InvertedResidual, InvertedResidualPlan
from mnet_jax.models.blocks.multi_query_attention import MultiQueryAttention, MultiQueryAttentionPlan
from mnet_jax.models.blocks.separable import Separable, SeparablePlan
from mnet_jax.models.blocks.universal_inverted_bottleneck import (
    UniversalInvertedBottleneck,
    UniversalInvertedBottleneckPlan,
)
from mnet_jax.models.plans import BlockPlan

KINDS: dict[type[BlockSpec], type[BlockPlan]] = {
    Conv: ConvBlockPlan,
    Separable: SeparablePlan,
    InvertedResidual: InvertedResidualPlan,
    FusedInvertedBottleneck: FusedInvertedBottleneckPlan,
    UniversalInvertedBottleneck: UniversalInvertedBottleneckPlan,
    MultiQueryAttention: MultiQueryAttentionPlan,
}

__all__ = ["KINDS", "BlockSpec", "Place", *(kind.__name__ for pair in KINDS.items() for kind in pair)]
