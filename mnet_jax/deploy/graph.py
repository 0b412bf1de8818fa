"""A network for inference as data: a list of nodes, in the order in which they run, with float32 NumPy constants.

`fold.fold` makes graphs; every export format, the interpreter in JAX and the quantiser read or rewrite them. Maps are
[N, H, W, C]. A node's `inputs` are names of nodes before it, or `INPUT`; `outputs` names those that are the
result.
"""

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from mnet_jax.models.sizes import explicit_padding

INPUT = "images"
Padding = tuple[tuple[int, int], tuple[int, int]]  # zeros (before, after) along height and width
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One operation; `shape` is that of its result without the batch."""

    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pixels(Node):
    """uint8 pixels -> float32, minus `mean` per channel (their deviation is folded into the stem)."""

    mean: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Conv(Node):
    """A convolution (cross-correlation) with bias, then `activation`: None, "relu", "relu6", "hard_swish", "gelu" or
    "gelu_tanh".

    kernel: [k, k, in / groups, out], or [k, k, 1, C] where `depthwise`; bias: [out].
    """

    kernel: np.ndarray
    bias: np.ndarray
    stride: int = 1
    dilation: int = 1  # rows, and columns, from one tap of the kernel to the next
    padding: Padding = ((0, 0), (0, 0))
    activation: str | None = None
    depthwise: bool = False
    groups: int = 1  # the first out / groups features come from the first in / groups channels, and so on


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Mean(Node):
    """Average over all positions, [N, H, W, C] -> [N, 1, 1, C]."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Multiply(Node):
    """A map times a gate [N, 1, 1, C], or times a map of its own shape."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Add(Node):
    """The sum of two maps of one shape."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class WindowMean(Node):
    """Averages of windows of a map, all inside it."""

    window: tuple[int, int]  # rows and columns
    strides: tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Channels(Node):
    """The channels of several maps of one size, one after the other."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Resize(Node):
    """A map resized bilinearly to the size of `shape`, as `models/ops/bilinear.py` has it."""

    align_corners: bool


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Largest(Node):
    """The channel with the largest value, int32 [N, H, W] of a map."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Twice(Node):
    """A map of twice the size, each position four times; cut off at the far ends where `shape` is one less."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RmsNorm(Node):
    """A map over the root of its channels' mean square, position by position, times `scale`; then `activation`."""

    scale: np.ndarray  # [C]
    epsilon: float  # added to the mean square
    activation: str | None = None  # of those of `Conv`


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Gate(Node):
    """relu6(x + 3), the second factor of a hard swish; only in graphs for int8 (`int8_graph.py`)."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Attention(Node):
    """softmax(query key^T) value; query [N, H, W, heads * d], key and value [N, h, w, d], shared by all heads.

    The factor d^-1/2 is in the query's kernel already.
    """

    heads: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reshape(Node):
    """The same numbers in another shape, in the order of their axes: [N, 1, 1, C] -> [N, C], [N, H, W, C] -> rows."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Node):
    """Rows [N, R, C] of several, one after the other."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Softmax(Node):
    """Probabilities from logits [N, ..., C]."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sigmoid(Node):
    """1 / (1 + exp(-x)) of rows or of a map."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detections(Node):
    """Boxes with a class each, from codes [N, A, 4] and scores [N, A, slots], by suppression of what overlaps.

    Its results are "boxes" [N, D, 4] (y1, x1, y2, x2 as shares of the image's sides), "classes" [N, D], from 0 without
    the background, "scores" [N, D], falling, and "count" [N], how many of the D are detections; all float32. `Part`
    nodes name them. `shape` is that of the boxes. Fields as in `tasks/detection/coding.py` and `suppression.py`.
    """

    anchors: np.ndarray  # float32 [A, 4]: y1, x1, y2, x2 in pixels
    image_size: tuple[int, int]  # height and width in pixels
    num_classes: int  # without the background, which is the first slot where there is one more
    centre_scale: float
    size_scale: float
    largest: float
    clip_first: bool  # boxes are cut off at the image before suppression too
    score_threshold: float
    iou_threshold: float
    per_class: bool
    candidates: int | None
    max_detections: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Part(Node):
    """One result of a node that has several."""

    part: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A network: images [N, *input_shape] of `input_dtype` ("uint8" pixels or normalised "float32") -> its results."""

    input_shape: tuple[int, int, int]
    input_dtype: str
    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]  # name of a result -> the node that gives it, each another

    def readers(self, name: str) -> tuple[Node, ...]:
        """Returns the nodes that have the result of `name` among their inputs."""
        return tuple(node for node in self.nodes if name in node.inputs)

    def input_size(self, conv: Conv) -> tuple[int, int]:
        """Returns (height, width) of a node's (first) input."""
        shapes = {node.name: node.shape for node in self.nodes} | {INPUT: self.input_shape}
        return shapes[conv.inputs[0]][:2]


def results(named: Mapping[str, T]) -> T | dict[str, T]:
    """Returns what a network gives: one result as it is, several by name."""
    return next(iter(named.values())) if len(named) == 1 else dict(named)


def no_form(node: Node, what: str) -> ValueError:
    """Returns the error of a format, or another reader of graphs, that does not know a kind of node."""
    return ValueError(
        f"{what} has no form of the operation {type(node).__name__} ({node.name!r}): choose another format"
    )


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Returns the zeros (before, after) that TensorFlow and TFLite pad along a side of `size` for "SAME"."""
    return explicit_padding("same", size, kernel, stride, dilation)
