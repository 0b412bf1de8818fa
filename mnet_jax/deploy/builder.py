"""Builds the nodes of a graph from plans and variables: what folding a block, a norm or a task's head is written with.

Products are formed in float64 and rounded once.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.norms import NORMS
from mnet_jax.models import plans, pools
from mnet_jax.models.sizes import explicit_padding, output_size

Scope = tuple[str, ...]


class Builder:
    """Collects nodes; every method that adds some returns the name of the one that it adds last."""

    def __init__(self, plan: plans.ModelPlan, variables: Mapping[str, Mapping], input_shape: tuple[int, ...]):
        self.plan = plan
        self.image_size = input_shape[:2]
        self.nodes: list[g.Node] = []
        self.shapes: dict[str, tuple[int, ...]] = {g.INPUT: input_shape}  # of nodes' results, without the batch
        self._variables = variables

    def value(self, collection: str, scope: Scope, leaf: str) -> np.ndarray:
        """Returns a variable, float64."""
        value = self._variables[collection]
        for name in (*scope, leaf):
            value = value[name]
        return np.asarray(value, np.float64)

    def add(self, kind: type[g.Node], name: str, inputs: tuple[str, ...], shape: tuple[int, ...], **fields) -> str:
        """Adds a node of any kind."""
        self.nodes.append(kind(name=name, inputs=inputs, shape=shape, **fields))
        self.shapes[name] = shape
        return name

    def mean(self, name: str, x: str) -> str:
        """Adds the average over all positions, [1, 1, C]."""
        return self.add(g.Mean, name, (x,), (1, 1, self.shapes[x][-1]))

    def flatten(self, name: str, x: str) -> str:
        """Adds [1, 1, C] -> [C]."""
        return self.add(g.Reshape, name, (x,), self.shapes[x][-1:])

    def rows(self, name: str, x: str, numbers: int) -> str:
        """Adds [H, W, k * numbers] -> [H * W * k, numbers]: position by position, in each the k of its channels."""
        return self.add(g.Reshape, name, (x,), (int(np.prod(self.shapes[x])) // numbers, numbers))

    def concat(self, name: str, parts: list[str]) -> str:
        """Adds rows [R, C] of several nodes, one after the other."""
        shapes = [self.shapes[part] for part in parts]
        return self.add(g.Concat, name, tuple(parts), (sum(rows for rows, _ in shapes), shapes[0][1]))

    def multiply(self, name: str, x: str, gate: str) -> str:
        """Adds the product of a map and a gate [1, 1, C], or of two maps."""
        return self.add(g.Multiply, name, (x, gate), self.shapes[x])

    def sum(self, name: str, x: str, y: str) -> str:
        """Adds the sum of two maps of one shape."""
        return self.add(g.Add, name, (x, y), self.shapes[x])

    def window_mean(self, name: str, x: str, window: tuple[int, int], strides: tuple[int, int]) -> str:
        """Adds averages of windows of a map, all inside it."""
        *sides, features = self.shapes[x]
        size = [(side - wide) // step + 1 for side, wide, step in zip(sides, window, strides, strict=True)]
        return self.add(g.WindowMean, name, (x,), (*size, features), window=window, strides=strides)

    def resize(self, name: str, x: str, size: tuple[int, int], *, align_corners: bool) -> str:
        """Adds a map resized bilinearly; one that has the size already is returned as it is."""
        if self.shapes[x][:2] == tuple(size):
            return x
        return self.add(g.Resize, name, (x,), (*size, self.shapes[x][2]), align_corners=align_corners)

    def channels(self, name: str, maps: list[str]) -> str:
        """Adds the channels of several maps, one after the other."""
        wide = sum(self.shapes[x][2] for x in maps)
        return self.add(g.Channels, name, tuple(maps), (*self.shapes[maps[0]][:2], wide))

    def largest(self, name: str, x: str) -> str:
        """Adds the channel with the largest value, [H, W]."""
        return self.add(g.Largest, name, (x,), self.shapes[x][:2])

    def sigmoid(self, name: str, x: str) -> str:
        """Adds the sigmoid of rows [R, C]."""
        return self.add(g.Sigmoid, name, (x,), self.shapes[x])

    def softmax(self, name: str, x: str) -> str:
        """Adds the probabilities of logits [..., C]."""
        return self.add(g.Softmax, name, (x,), self.shapes[x])

    def detections(self, codes: str, scores: str, *, max_detections: int, **fields: Any) -> dict[str, str]:
        """Adds detections of codes [A, 4] and scores [A, slots]; returns the node of each of their results by name.

        Fields are those of `graph.Detections`.
        """
        most = max_detections
        found = self.add(g.Detections, "detections", (codes, scores), (most, 4), max_detections=most, **fields)
        shapes = {"boxes": (most, 4), "classes": (most,), "scores": (most,), "count": ()}
        return {part: self.add(g.Part, f"found/{part}", (found,), shape, part=part) for part, shape in shapes.items()}

    def conv(
        self,
        layer: plans.ConvPlan,
        x: str,
        scope: Scope = (),
        *,
        name: str | None = None,
        norm: plans.Norm | None = None,
        then: plans.NormPlan | None = None,
        before: np.ndarray | None = None,
        before_bias: np.ndarray | None = None,
        after: np.ndarray | float = 1.0,
    ) -> str:
        """Adds a convolution of x * before + before_bias, whose result (before the activation) is times `after`.

        `name`: of its node, where that is not its path, as when it runs more than once; `norm`: the kind of its norm,
        where that is not the backbone's; `then`: a norm that follows a
        linear layer without one, and has a kind that is affine: both are one node.
        """
        scope = (*scope, layer.name)
        kernel = self.value("params", scope, layer.kernel_name)
        if layer.kernel == 1 and not layer.depthwise:
            kernel = kernel[None, None]
        bias = np.zeros(layer.features)
        if layer.bias:
            bias = self.value("params", scope, "bias")
        if before is not None:
            kernel = kernel * np.reshape(before, (-1, 1))
        if before_bias is not None:  # only a pointwise layer, which has no padding
            bias = bias + before_bias @ self.value("params", scope, layer.kernel_name)
        name, activation, kind = name or "/".join(scope), layer.activation, norm or self.plan.norm
        form = NORMS[type(kind)]
        if layer.norm and form.affine is None:
            x = self._conv(layer, f"{name}/product", x, kernel, bias, None)
            return form.nodes(self, kind, x, (*scope, "norm"), name, activation=activation, after=after)
        if layer.norm:
            scale, shift = form.affine(self, kind, (*scope, "norm"))
            kernel, bias = kernel * scale, bias * scale + shift
        if then is not None:
            scale, shift = self.affine(then, ())
            kernel, bias, activation = kernel * scale, bias * scale + shift, then.activation
        kernel, bias = kernel * after, bias * after
        if activation == "hard_sigmoid":
            activation, bias = "relu6", bias + 3.0  # whoever reads it divides by 6
        return self._conv(layer, name, x, kernel, bias, activation)

    def in_order(self, layers: Sequence[plans.LayerPlan], x: str, run: str = "") -> str:
        """Adds a head's layers, one after the other; `run` tells nodes apart of layers that run more than once."""
        layers, place = list(layers), 0
        while place < len(layers):
            layer, behind = layers[place], layers[place + 1 : place + 2]
            if isinstance(layer, plans.NormPlan):
                x = self.norm(layer, x, ())
                if layer.activation is not None:
                    x = self.activation(f"{layer.name}/{layer.activation}", x, layer.activation)
            elif behind and isinstance(behind[0], plans.NormPlan) and self.affine(behind[0], ()) is not None:
                x = self.conv(layer, x, name=behind[0].name, then=behind[0])
                place += 1
            else:
                x = self.conv(layer, x, name=f"{layer.name}/{run}" if layer.name in self.shapes else None)
            place += 1
        return x

    def activation(self, name: str, x: str, activation: str) -> str:
        """Adds an activation alone: as a depthwise 1x1 convolution that changes nothing."""
        features = self.shapes[x][-1]
        ones, zeros = np.ones((1, 1, 1, features), np.float32), np.zeros(features, np.float32)
        kind = {"activation": activation, "depthwise": True}
        return self.add(g.Conv, name, (x,), self.shapes[x], kernel=ones, bias=zeros, **kind)

    def add_twice(self, name: str, x: str, above: str) -> str:
        """Adds the sum of a map [H, W, C] and twice the map above it, cut to its size."""
        twice = self.add(g.Twice, f"{name}/above", (above,), self.shapes[x])
        return self.add(g.Add, name, (x, twice), self.shapes[x])

    def affine(self, layer: plans.NormPlan, scope: Scope) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the (scale, shift) that a norm alone comes to, float64 [C]; None where its kind has no such thing."""
        find = NORMS[type(self.plan.norm)].affine
        return None if find is None else find(self, self.plan.norm, (*scope, layer.name))

    def norm(self, layer: plans.NormPlan, x: str, scope: Scope) -> str:
        """Adds a norm alone: as a depthwise 1x1 convolution, or as the nodes of its kind."""
        scope, affine = (*scope, layer.name), self.affine(layer, scope)
        if affine is None:
            nodes = NORMS[type(self.plan.norm)].nodes
            return nodes(self, self.plan.norm, x, scope, "/".join(scope), activation=None, after=1.0)
        scale, shift = affine
        return self.add(
            g.Conv,
            "/".join(scope),
            (x,),
            self.shapes[x],
            kernel=scale.astype(np.float32)[None, None, None],
            bias=shift.astype(np.float32),
            depthwise=True,
        )

    def _conv(
        self, layer: plans.ConvPlan, name: str, x: str, kernel: np.ndarray, bias: np.ndarray, activation: str | None
    ) -> str:
        size, pooled = self.shapes[x][:2], layer.pool is not None and layer.stride > 1
        strided, layer = layer, dataclasses.replace(layer, stride=1) if pooled else layer
        node = self.add(
            g.Conv,
            name,
            (x,),
            (*layer.output_size(size), layer.features),
            kernel=kernel.astype(np.float32),
            bias=bias.astype(np.float32),
            stride=layer.stride,
            dilation=layer.dilation,
            padding=tuple(self._padding(side, layer) for side in size),
            activation=activation,
            depthwise=layer.depthwise,
            groups=layer.groups,
        )
        return self._pooled(strided, node) if pooled else node

    def _pooled(self, layer: plans.ConvPlan, x: str) -> str:
        """Adds the average that has a layer's stride: a depthwise convolution, which every format and int8 have."""
        size, sides = self.shapes[x][:2], np.asarray(pools.taps(layer.pool), np.float32)
        around = pools.padding(layer.pool)
        return self.add(
            g.Conv,
            f"{x}/pool",
            (x,),
            (*layer.output_size(size), layer.features),
            kernel=np.tile(np.outer(sides, sides)[:, :, None, None], (1, 1, 1, layer.features)),
            bias=np.zeros(layer.features, np.float32),
            stride=layer.stride,
            padding=tuple(
                (around, max((windows - 1) * layer.stride + len(sides) - around - side, 0))
                for side, windows in zip(size, layer.output_size(size), strict=True)
            ),
            depthwise=True,
        )

    def _padding(self, size: int, layer: plans.ConvPlan) -> tuple[int, int]:
        """Zeros that a window really covers: PyTorch's symmetric ones reach beyond the last window at stride 2."""
        low, high = explicit_padding(self.plan.padding, size, layer.kernel, layer.stride, layer.dilation)
        reach = (layer.kernel - 1) * layer.dilation + 1
        used = (output_size(size, layer.stride) - 1) * layer.stride + reach
        return low, min(high, max(used - low - size, 0))
