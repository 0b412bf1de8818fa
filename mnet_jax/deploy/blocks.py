"""The folded form of each kind of block: (builder, block's plan, name of its input) -> name of its branch's result.

The residual is added by who calls. A new kind is a function here and a line in `FOLDED`.
"""

from collections.abc import Callable

import numpy as np

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.builder import Builder
from mnet_jax.models import blocks, plans


def _in_order(builder: Builder, block: plans.BlockPlan, x: str) -> str:
    """Adds nothing but convolutions, one after the other."""
    for layer in block.layers:
        x = builder.conv(layer, x, (block.name,))
    return x


def _inverted_residual(builder: Builder, block: blocks.InvertedResidualPlan, x: str) -> str:
    scope, sixth = (block.name,), None
    if block.expand is not None:
        x = builder.conv(block.expand, x, scope)
    x = builder.conv(block.depthwise, x, scope)
    if block.squeeze_excite is not None:
        x = _gated(builder, block.squeeze_excite, x, (*scope, block.squeeze_excite.name))
        sixth = np.full(block.project.in_features, 1 / 6)
    return builder.conv(block.project, x, scope, before=sixth)


def _gated(builder: Builder, gate: plans.SqueezeExcitePlan, x: str, scope: tuple[str, ...]) -> str:
    """Adds x times relu6(gate + 3): 6 times what the model has."""
    y = builder.mean("/".join((*scope, "pool")), x)
    y = builder.conv(gate.reduce, y, scope)
    y = builder.conv(gate.expand, y, scope)
    return builder.add(g.Multiply, "/".join((*scope, "multiply")), (x, y), builder.shapes[x])


def _universal_inverted_bottleneck(builder: Builder, block: blocks.UniversalInvertedBottleneckPlan, x: str) -> str:
    for layer in (block.start_depthwise, block.expand, block.middle_depthwise):
        if layer is not None:
            x = builder.conv(layer, x, (block.name,))
    return builder.conv(block.project, x, (block.name,), after=_layer_scale(builder, block))


def _multi_query_attention(builder: Builder, block: blocks.MultiQueryAttentionPlan, x: str) -> str:
    scope, shape = (block.name,), builder.shapes[x]
    affine = builder.affine(block.norm, scope)
    source, normalized, folded = x, None, {}
    if affine is None:
        source = normalized = builder.norm(block.norm, x, scope)
    else:
        folded = {"before": affine[0], "before_bias": affine[1]}
    query = builder.conv(block.query, source, scope, **folded, after=block.key_features**-0.5)
    memory = []
    for depthwise, pointwise in ((block.key_depthwise, block.key), (block.value_depthwise, block.value)):
        if depthwise is None:
            memory.append(builder.conv(pointwise, source, scope, **folded))
            continue
        if normalized is None:  # zeros are padded after the norm: its shift cannot go into the depthwise kernel
            normalized = builder.norm(block.norm, x, scope)
        memory.append(builder.conv(pointwise, builder.conv(depthwise, normalized, scope), scope))
    attended = (*shape[:2], block.heads * block.key_features)
    y = builder.add(g.Attention, f"{block.name}/attention", (query, *memory), attended, heads=block.heads)
    return builder.conv(block.output, y, scope, after=_layer_scale(builder, block))


def _layer_scale(
    builder: Builder, block: blocks.UniversalInvertedBottleneckPlan | blocks.MultiQueryAttentionPlan
) -> np.ndarray:
    return np.float64(1.0) if block.layer_scale is None else builder.value("params", (block.name,), "layer_scale")


FOLDED: dict[type[plans.BlockPlan], Callable[[Builder, plans.BlockPlan, str], str]] = {
    blocks.ConvBlockPlan: _in_order,
    blocks.SeparablePlan: _in_order,
    blocks.InvertedResidualPlan: _inverted_residual,
    blocks.FusedInvertedBottleneckPlan: _in_order,
    blocks.UniversalInvertedBottleneckPlan: _universal_inverted_bottleneck,
    blocks.MultiQueryAttentionPlan: _multi_query_attention,
}
