"""Makes the channels of a map reach equally far, so that one scale for all of them fits each of them.

A factor per channel moves through ReLU (and through ReLU6 for a channel that stays below 6) from one convolution into
the next: Nagel et al., "Data-free quantization through weight equalization and bias correction", arXiv 1906.04721,
but by what the channels are observed to reach. For the convolution before it is free, because its weights have a scale
for each such channel anyway, and for a depthwise one after it as well; a pointwise one after it shares the factor
between map and weights.
"""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.int8_graph import Int8Graph
from mnet_jax.deploy.interpret import interpret

_LARGEST = 1024.0  # factor: beyond it a channel is as good as dead


def equalize(target: Int8Graph, batches: Iterable[np.ndarray]) -> Int8Graph:
    """The same network with other scales between its layers; `batches` are uint8 [n, H, W, 3]."""
    reader = {node.name: _only_reader(target.graph, node) for node in target.graph.convs()}
    pairs = {name: after for name, after in reader.items() if after is not None}
    if not pairs:
        return target

    @jax.jit
    def run(images: jax.Array) -> dict[str, jax.Array]:
        seen = {}

        def note(node: g.Node, value: jax.Array) -> jax.Array:
            if node.name in pairs:
                seen[node.name] = jnp.max(value, (0, 1, 2))
            return value

        interpret(target.graph, images, note)
        return seen

    reach: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, value in jax.device_get(run(batch)).items():
            reach[name] = np.maximum(reach.get(name, 0.0), value)
    before: dict[str, np.ndarray] = {}  # of a convolution's input
    after: dict[str, np.ndarray] = {}  # of its output
    for node in target.graph.convs():
        if node.name in pairs:
            factor = _factors(node, pairs[node.name], reach[node.name].astype(np.float64))
            after[node.name], before[pairs[node.name].name] = factor, factor
    nodes = tuple(_scaled(node, before.get(node.name), after.get(node.name)) for node in target.graph.nodes)
    return dataclasses.replace(target, graph=dataclasses.replace(target.graph, nodes=nodes))


def _only_reader(graph: g.Graph, node: g.Conv) -> g.Conv | None:
    readers = graph.readers(node.name)
    if node.activation in ("relu", "relu6") and len(readers) == 1 and isinstance(readers[0], g.Conv):
        return readers[0]
    return None


def _factors(node: g.Conv, reader: g.Conv, reach: np.ndarray) -> np.ndarray:
    """What to multiply each channel between two convolutions with, at least 1."""
    limit = 6.0 if node.activation == "relu6" else reach.max()
    room = np.where(reach > 0, limit / np.maximum(reach, 1e-12), 1.0)
    if not reader.depthwise:
        weights = np.abs(reader.kernel).max((0, 1, 3)).astype(np.float64)
        room = np.sqrt(room * weights / max(weights.max(), 1e-12)).clip(1.0, room)
    return room.clip(1.0, _LARGEST)


def _scaled(node: g.Node, before: np.ndarray | None, after: np.ndarray | None) -> g.Node:
    if not isinstance(node, g.Conv):
        return node
    kernel, bias = node.kernel.astype(np.float64), node.bias.astype(np.float64)
    if before is not None:
        kernel = kernel / (before if node.depthwise else before[:, None])
    if after is not None:
        kernel, bias = kernel * after, bias * after
    return dataclasses.replace(node, kernel=kernel.astype(np.float32), bias=bias.astype(np.float32))
