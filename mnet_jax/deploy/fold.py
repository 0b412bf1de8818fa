"""A plan and its variables -> the graph for inference: nothing is left of training, and nothing can be folded further.

  batch norm               into the kernel and bias of its convolution
  batch norm of attention  into the projections after it; a 1x1 depthwise convolution where padding comes first
  layer scale              into the convolution before it
  attention's d^-1/2       into the query
  hard sigmoid of a gate   relu6(x + 3) / 6: the 3 into the bias before it, the 1/6 into the projection after it
  deviation of the pixels  into the stem (the mean is subtracted: zero padding means "the mean", not "black")
  dropout, drop path       gone

Products are formed in float64 and rounded once.
"""

from collections.abc import Mapping

import numpy as np

from mnet_jax.deploy import graph as g
from mnet_jax.models import blocks, plans

MIN_SIZE = 32  # pixels of a side: the smallest images that the family is defined for
INPUTS = ("uint8", "float")
OUTPUTS = ("probabilities", "logits")


def fold(
    plan: plans.ModelPlan,
    variables: Mapping[str, Mapping],
    *,
    image_size: int | tuple[int, int] | None = None,
    input: str = "float",
    output: str = "logits",
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    std: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> g.Graph:
    """Folds a network for images of one size.

    Args:
      plan: the network.
      variables: {"params": ..., "batch_stats": ...} of its model.
      image_size: pixels, one number or (height, width); None: the plan's own.
      input: "uint8": pixels, which the graph normalises; "float": images normalised before, float32.
      output: "logits" or "probabilities", [N, num_classes].
      mean: of the pixels (0..255), per channel; used by input "uint8".
      std: their standard deviation.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    height, width = check_size(plan.image_size if image_size is None else image_size)
    for what, given, allowed in (("input", input, INPUTS), ("output", output, OUTPUTS)):
        if given not in allowed:
            raise ValueError(f"{what} must be {' or '.join(allowed)}, got {given!r}")
    builder = _Builder(plan, variables, (height, width, 3))
    stem_scale = None
    x = g.INPUT
    if input == "uint8":
        x = builder.add(g.Pixels, "normalize", (x,), (height, width, 3), mean=np.asarray(mean, np.float32))
        stem_scale = 1 / np.asarray(std, np.float64)
    x = builder.conv(plan.stem, x, before=stem_scale)
    for block in plan.blocks:
        x = builder.block(block, x)
    if plan.last_conv is not None:
        x = builder.conv(plan.last_conv, x)
    x = builder.mean("pool", x)
    for layer in (plan.head, plan.classifier):
        if layer is not None:
            x = builder.conv(layer, x)
    x = builder.add(g.Flatten, "logits", (x,), (plan.num_classes,))
    if output == "probabilities":
        builder.add(g.Softmax, "probabilities", (x,), (plan.num_classes,))
    dtype = "uint8" if input == "uint8" else "float32"
    return g.Graph(input_shape=(height, width, 3), input_dtype=dtype, nodes=tuple(builder.nodes))


def check_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image size; ValueError unless both are whole numbers of at least 32."""
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= MIN_SIZE for side in sides):
        raise ValueError(f"image_size must be a number of at least {MIN_SIZE} pixels, or two, got {size!r}")
    return sides


class _Builder:
    """Collects nodes; every method returns the name of the node that it adds last."""

    def __init__(self, plan: plans.ModelPlan, variables: Mapping[str, Mapping], input_shape: tuple[int, ...]):
        self._plan, self._variables = plan, variables
        self._shapes: dict[str, tuple[int, ...]] = {g.INPUT: input_shape}
        self.nodes: list[g.Node] = []

    def add(self, kind: type[g.Node], name: str, inputs: tuple[str, ...], shape: tuple[int, ...], **fields) -> str:
        self.nodes.append(kind(name=name, inputs=inputs, shape=shape, **fields))
        self._shapes[name] = shape
        return name

    def mean(self, name: str, x: str) -> str:
        return self.add(g.Mean, name, (x,), (1, 1, self._shapes[x][-1]))

    def conv(
        self,
        layer: plans.ConvPlan,
        x: str,
        scope: tuple[str, ...] = (),
        *,
        before: np.ndarray | None = None,
        before_bias: np.ndarray | None = None,
        after: np.ndarray | float = 1.0,
    ) -> str:
        """A convolution of x * before + before_bias, its result (before the activation) multiplied by `after`."""
        scope = (*scope, layer.name)
        kernel = self._value("params", scope, layer.kernel_name)
        if layer.kernel == 1 and not layer.depthwise:
            kernel = kernel[None, None]
        bias = np.zeros(layer.features)
        if layer.bias:
            bias = self._value("params", scope, "bias")
        if before is not None:
            kernel = kernel * np.reshape(before, (-1, 1))
        if before_bias is not None:  # only a pointwise layer, which has no padding
            bias = bias + before_bias @ self._value("params", scope, layer.kernel_name)
        if layer.norm:
            scale, shift = self._affine((*scope, "norm"))
            kernel, bias = kernel * scale, bias * scale + shift
        kernel, bias = kernel * after, bias * after
        activation = layer.activation
        if activation == "hard_sigmoid":
            activation, bias = "relu6", bias + 3.0  # whoever reads it divides by 6
        height, width, _ = self._shapes[x]
        padding = tuple(self._padding(size, layer) for size in (height, width))
        shape = (*(plans.output_size(size, layer.stride) for size in (height, width)), layer.features)
        return self.add(
            g.Conv,
            "/".join(scope),
            (x,),
            shape,
            kernel=kernel.astype(np.float32),
            bias=bias.astype(np.float32),
            stride=layer.stride,
            padding=padding,
            activation=activation,
            depthwise=layer.depthwise,
        )

    def block(self, block: plans.BlockPlan, x: str) -> str:
        scope = (block.name,)
        y = x
        match block:
            case blocks.ConvBlockPlan():
                y = self.conv(block.conv, y, scope)
            case blocks.SeparablePlan():
                y = self.conv(block.depthwise, y, scope)
                y = self.conv(block.pointwise, y, scope)
            case blocks.InvertedResidualPlan():
                if block.expand is not None:
                    y = self.conv(block.expand, y, scope)
                y = self.conv(block.depthwise, y, scope)
                gate, sixth = block.squeeze_excite, None
                if gate is not None:
                    y = self._gate(gate, y, (*scope, gate.name))
                    sixth = np.full(block.project.in_features, 1 / 6)
                y = self.conv(block.project, y, scope, before=sixth)
            case blocks.FusedInvertedBottleneckPlan():
                y = self.conv(block.expand, y, scope)
                y = self.conv(block.project, y, scope)
            case blocks.UniversalInvertedBottleneckPlan():
                for layer in (block.start_depthwise, block.expand, block.middle_depthwise):
                    if layer is not None:
                        y = self.conv(layer, y, scope)
                y = self.conv(block.project, y, scope, after=self._layer_scale(block))
            case blocks.MultiQueryAttentionPlan():
                y = self._attention(block, y, scope)
        if block.residual:
            y = self.add(g.Add, f"{block.name}/add", (x, y), self._shapes[x])
        return y

    def _gate(self, gate: plans.SqueezeExcitePlan, x: str, scope: tuple[str, ...]) -> str:
        y = self.mean("/".join((*scope, "pool")), x)
        y = self.conv(gate.reduce, y, scope)
        y = self.conv(gate.expand, y, scope)
        return self.add(g.Multiply, "/".join((*scope, "multiply")), (x, y), self._shapes[x])

    def _attention(self, block: blocks.MultiQueryAttentionPlan, x: str, scope: tuple[str, ...]) -> str:
        scale, shift = self._affine((*scope, block.norm.name))
        query = self.conv(block.query, x, scope, before=scale, before_bias=shift, after=block.key_features**-0.5)
        sources = []
        normalized = None
        for depthwise, pointwise in ((block.key_depthwise, block.key), (block.value_depthwise, block.value)):
            if depthwise is None:
                sources.append(self.conv(pointwise, x, scope, before=scale, before_bias=shift))
                continue
            if normalized is None:  # zeros are padded after the norm: its shift cannot go into the depthwise kernel
                normalized = self.add(
                    g.Conv,
                    "/".join((*scope, block.norm.name)),
                    (x,),
                    self._shapes[x],
                    kernel=scale.astype(np.float32)[None, None, None],
                    bias=shift.astype(np.float32),
                    depthwise=True,
                )
            sources.append(self.conv(pointwise, self.conv(depthwise, normalized, scope), scope))
        shape = (*self._shapes[x][:2], block.heads * block.key_features)
        y = self.add(g.Attention, f"{block.name}/attention", (query, *sources), shape, heads=block.heads)
        return self.conv(block.output, y, scope, after=self._layer_scale(block))

    def _padding(self, size: int, layer: plans.ConvPlan) -> tuple[int, int]:
        """Zeros that a window really covers: PyTorch's symmetric ones reach beyond the last window at stride 2."""
        low, high = plans.explicit_padding(self._plan.padding, size, layer.kernel, layer.stride)
        used = (plans.output_size(size, layer.stride) - 1) * layer.stride + layer.kernel
        return low, min(high, max(used - low - size, 0))

    def _layer_scale(
        self, block: blocks.UniversalInvertedBottleneckPlan | blocks.MultiQueryAttentionPlan
    ) -> np.ndarray:
        return np.float64(1.0) if block.layer_scale is None else self._value("params", (block.name,), "layer_scale")

    def _affine(self, scope: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """A batch norm at inference: (scale, shift), float64 [C]."""
        variance = self._value("batch_stats", scope, "var")
        scale = self._value("params", scope, "scale") / np.sqrt(variance + self._plan.norm.epsilon)
        return scale, self._value("params", scope, "bias") - self._value("batch_stats", scope, "mean") * scale

    def _value(self, collection: str, scope: tuple[str, ...], leaf: str) -> np.ndarray:
        value = self._variables[collection]
        for name in (*scope, leaf):
            value = value[name]
        return np.asarray(value, np.float64)
