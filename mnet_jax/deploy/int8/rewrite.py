"""A folded graph in operations that have int8 kernels in XNNPACK and on the Edge TPU, with the same results.

hard swish  x relu6(x + 3) / 6 is a sum with a clamp and a product; HARD_SWISH itself runs in neither. The 1/6 costs
            nothing: all that comes after a hard swish is linear up to the next convolution, whose kernel takes it.
groups      of a convolution become one, with zeros in its kernel.
pixels      minus one whole number for all channels, the zero point of the input; what is missing to each channel's
            mean goes into the stem's bias. (So the zeros around the image are that grey instead of each channel's
            mean, a difference of a few levels in one row and column.)
detections  are made of real numbers: each predictor's results, with a scale of their own, become real before they are
            joined, and so scores have more than 256 levels.
"""

import dataclasses

import numpy as np

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.detections import in_tflite


@dataclasses.dataclass(frozen=True)
class Int8Graph:
    """A graph without hard swish, and by how much a node's result is larger than that of its namesake."""

    graph: g.Graph  # what is computed in whole numbers
    factors: dict[str, float]
    grey: int  # of the input's pixels, what counts as 0
    tail: g.Graph  # what follows, in real numbers, with the whole graph's results; most often nothing
    source: g.Graph  # the graph that it was made of


def rewrite(source: g.Graph) -> Int8Graph:
    """Returns the graph for int8.

    Raises:
      ValueError: if it has attention or GELU, or takes normalised floats.
    """
    if source.input_dtype != "uint8":
        raise ValueError("int8 takes pixels as they are: use --input uint8")
    gelu = ("gelu", "gelu_tanh")
    exact = (g.Attention, g.RmsNorm)
    if any(isinstance(node, exact) or getattr(node, "activation", None) in gelu for node in source.nodes):
        raise ValueError("int8 is for networks without attention and GELU: use --quantize dynamic or float16")
    whole, source = source, in_tflite.without(source)[0]
    tail = _in_real_numbers(source) if source is not whole else ()
    nodes: list[g.Node] = []
    factors = {g.INPUT: 1.0}
    grey, pixel_rest = 128, np.zeros(3)
    for node in source.nodes:
        if node in tail:
            continue
        first = factors[node.inputs[0]]
        match node:
            case g.Pixels():
                grey = round(float(node.mean.mean()))
                pixel_rest = grey - node.mean.astype(np.float64)
                nodes.append(dataclasses.replace(node, mean=np.full(3, grey, np.float32)))
                factors[node.name] = 1.0
            case g.Conv():
                bias, node = node.bias, _one_group(node)
                if isinstance(nodes[-1], g.Pixels) and not node.depthwise:
                    bias = bias + np.einsum("hwio,i->o", node.kernel.astype(np.float64), pixel_rest)
                conv = dataclasses.replace(
                    node, kernel=(node.kernel / first).astype(np.float32), bias=bias.astype(np.float32)
                )
                if node.activation != "hard_swish":
                    nodes.append(conv)
                    factors[node.name] = 1.0
                    continue
                linear, gate = f"{node.name}:linear", f"{node.name}:gate"
                nodes.append(dataclasses.replace(conv, name=linear, activation=None))
                nodes.append(g.Gate(name=gate, inputs=(linear,), shape=node.shape))
                nodes.append(g.Multiply(name=node.name, inputs=(linear, gate), shape=node.shape))
                factors |= {linear: 1.0, gate: 1.0, node.name: 6.0}
            case g.Add():
                left, right = node.inputs
                if factors[right] != factors[left]:
                    _scale(nodes, source, factors, right, factors[left])
                nodes.append(node)
                factors[node.name] = factors[left]
            case g.Multiply():
                nodes.append(node)
                factors[node.name] = first * factors[node.inputs[1]]
            case _:  # Mean, Reshape, Softmax
                nodes.append(node)
                factors[node.name] = first
    outputs = {name: name for node in tail for name in node.inputs if name in factors} or source.outputs
    if scaled := [name for name, node in outputs.items() if factors[node] != 1.0]:
        raise ValueError(f"int8 gives results of linear layers only, not {', '.join(scaled)}, which a hard swish makes")
    body = dataclasses.replace(source, nodes=tuple(nodes), outputs=outputs)
    return Int8Graph(body, factors, grey, dataclasses.replace(source, nodes=tail), whole)


def _in_real_numbers(graph: g.Graph) -> tuple[g.Node, ...]:
    """Returns the nodes at the end that only rearrange results or make scores of them, and what they lead to."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        kind = isinstance(node, g.Reshape | g.Concat | g.Sigmoid | g.Softmax)
        if kind and all(reader.name in found for reader in graph.readers(node.name)):
            found.add(node.name)
    return tuple(node for node in graph.nodes if node.name in found)


def _one_group(conv: g.Conv) -> g.Conv:
    """Returns a convolution in groups as one of all channels, whose kernel is 0 from one group to another."""
    if conv.groups == 1:
        return conv
    height, width, inputs, features = conv.kernel.shape
    each = features // conv.groups
    kernel = np.zeros((height, width, inputs * conv.groups, features), np.float32)
    for number in range(conv.groups):
        mine = slice(number * each, (number + 1) * each)
        kernel[:, :, number * inputs : (number + 1) * inputs, mine] = conv.kernel[..., mine]
    return dataclasses.replace(conv, kernel=kernel, groups=1)


def _scale(nodes: list[g.Node], source: g.Graph, factors: dict[str, float], name: str, factor: float) -> None:
    """Makes a branch's last convolution that much larger, which only the sum reads."""
    place = next(index for index, node in enumerate(nodes) if node.name == name)
    conv = nodes[place]
    assert isinstance(conv, g.Conv)
    assert conv.activation is None
    assert len(source.readers(name)) == 1
    assert name not in source.outputs.values()
    ratio = factor / factors[name]
    nodes[place] = dataclasses.replace(
        conv, kernel=(conv.kernel * ratio).astype(np.float32), bias=(conv.bias * ratio).astype(np.float32)
    )
    factors[name] = factor
