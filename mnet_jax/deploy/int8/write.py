"""An int8 graph and its ranges as a TFLite model, written operation by operation.

No converter in between: the ranges are ours (observed, or learnt in training), and what runs is what is written here.
Weights are symmetric with a scale per output channel, biases int32, activations asymmetric with a scale per tensor
(LiteRT's quantisation specification).
"""

from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.int8.ranges import Ranges
from mnet_jax.deploy.int8.rewrite import Int8Graph
from mnet_jax.deploy.int8.rounding import Moments, round_conv
from mnet_jax.deploy.metadata import About
from mnet_jax.deploy.tflite import finish, pack

_TYPES = {
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.uint8): schema.TensorType.UINT8,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.float32): schema.TensorType.FLOAT32,
}
_ACTIVATIONS = {
    None: schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
# Versions whose kernels take int8.
_VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "ADD": 2,
    "MUL": 2,
    "MEAN": 2,
    "SOFTMAX": 2,
    "PAD": 2,
    "DEQUANTIZE": 2,
    "SLICE": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "RESIZE_BILINEAR": 3,
    "LOGISTIC": 2,
    "ARG_MAX": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2,
}


def convert(target: Int8Graph, ranges: Ranges, about: About, moments: Mapping[str, Moments] | None = None) -> bytes:
    """Returns the model for one image: uint8 pixels [1, H, W, 3] in, int8 results [1, ...] out, with metadata.

    `moments` are those of the layers' inputs, for how their weights are rounded; None: to the nearest.
    """
    return finish(_Writer(target, ranges, moments or {}).model(), about, target.source)


def scale_and_zero(low: float, high: float) -> tuple[float, int]:
    """Returns scale and zero point of int8 for a range, which is widened to hold 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / 255, 1e-9)))
    return scale, int(np.clip(round(-128 - low / scale), -128, 127))


def least_scale(bias: np.ndarray, in_scale: float, out_scale: float) -> np.ndarray:
    """Returns the smallest scale that each output channel of a kernel may have, float64 [out].

    Weight decay leaves trained networks with channels whose weights are about 1e-12 while their bias is what they pass
    on. A bias counts in_scale * scale, in int32, so the scale is as large as the bias needs (with a bit left for the
    sum of the products), and a product is at least 2^-30 of a level of the result, a factor that XNNPACK takes.
    """
    return np.maximum(np.abs(bias.astype(np.float64)) / (2.0**30 * in_scale), 2.0**-30 * out_scale / in_scale)


class _Writer:
    def __init__(self, target: Int8Graph, ranges: Ranges, moments: Mapping[str, Moments]):
        self._graph, self._grey, self._tail = target.graph, target.grey, target.tail
        self._ranges, self._moments = ranges, moments
        self._tree = schema.ModelT()
        self._tree.version = 3
        self._tree.buffers = [schema.BufferT()]  # the first is empty, for tensors without constants
        self._tree.operatorCodes = []
        self._subgraph = schema.SubGraphT()
        self._subgraph.tensors, self._subgraph.operators = [], []
        self._codes: dict[str, int] = {}
        self._places: dict[str, int] = {}  # node -> its tensor
        self._params: dict[str, tuple[float, int]] = {}  # node -> scale, zero point

    def model(self) -> bytes:
        shape = (1, *self._graph.input_shape)
        # byte `grey` is 0: with zero point 0 the bytes above 127 would be out of int8's reach
        pixels = self._tensor(g.INPUT, shape, np.uint8, (1.0, self._grey))
        self._places[g.INPUT] = pixels
        for node in self._graph.nodes:
            self._add(node)
        if self._tail.nodes:
            for name in self._graph.outputs:
                self._dequantize(name)
            for node in self._tail.nodes:
                self._add_real(node)
        self._subgraph.inputs = [pixels]
        outputs = self._tail.outputs
        self._subgraph.outputs = [self._places[node] for node in outputs.values()]
        for place, name in zip(self._subgraph.outputs, outputs, strict=True):
            self._subgraph.tensors[place].name = name
        self._tree.subgraphs = [self._subgraph]
        return pack(self._tree)

    # --- Nodes ---

    def _add(self, node: g.Node) -> None:
        match node:
            case g.Pixels():
                self._result(node, (1.0, self._grey - 128))
                # The same bytes less 128, and zero points that far apart: no value changes.
                self._operator("QUANTIZE", schema.QuantizeOptionsT(), [self._places[g.INPUT]], node)
            case g.Conv():
                self._conv(node)
            case g.Gate():
                self._result(node, scale_and_zero(0.0, 6.0))
                three = self._constant(f"{node.name}/3", np.full((1, 1, 1, 1), 127, np.int8), (3 / 127, 0))
                options = schema.AddOptionsT()
                options.fusedActivationFunction = schema.ActivationFunctionType.RELU6
                self._operator("ADD", options, [self._places[node.inputs[0]], three], node)
            case g.Add():
                self._result(node, scale_and_zero(*self._ranges[node.name]))
                self._operator("ADD", schema.AddOptionsT(), self._inputs(node), node)
            case g.Multiply():
                self._result(node, scale_and_zero(*self._ranges[node.name]))
                self._operator("MUL", schema.MulOptionsT(), self._inputs(node), node)
            case g.WindowMean():
                self._result(node, scale_and_zero(*self._ranges[node.name]))
                options = schema.Pool2DOptionsT()
                options.padding = schema.Padding.VALID
                options.filterHeight, options.filterWidth = node.window
                options.strideH, options.strideW = node.strides
                self._operator("AVERAGE_POOL_2D", options, self._inputs(node), node)
            case g.Channels():
                self._channels(node)
            case g.Resize():
                self._result(node, self._params[node.inputs[0]])
                options = schema.ResizeBilinearOptionsT()
                options.alignCorners, options.halfPixelCenters = node.align_corners, not node.align_corners
                size = self._constant(f"{node.name}/size", np.array(node.shape[:2], np.int32))
                self._operator("RESIZE_BILINEAR", options, [*self._inputs(node), size], node)
            case g.Sigmoid():
                self._result(node, (1 / 256, -128))  # as the specification fixes it
                self._operator("LOGISTIC", None, self._inputs(node), node)
            case g.Largest():
                self._places[node.name] = self._tensor(node.name, (1, *node.shape), np.int32, None)
                options = schema.ArgMaxOptionsT()
                options.outputType = schema.TensorType.INT32
                axis = self._constant(f"{node.name}/axis", np.array([-1], np.int32))
                self._operator("ARG_MAX", options, [*self._inputs(node), axis], node)
            case g.Twice():
                self._twice(node)
            case g.Mean():
                self._result(node, scale_and_zero(*self._ranges[node.name]))
                options = schema.ReducerOptionsT()
                options.keepDims = True
                axes = self._constant(f"{node.name}/axes", np.array([1, 2], np.int32))
                self._operator("MEAN", options, [*self._inputs(node), axes], node)
            case g.Reshape():
                self._result(node, self._params[node.inputs[0]])
                shape = np.array([1, *node.shape], np.int32)
                options = schema.ReshapeOptionsT()
                options.newShape = shape
                self._operator(
                    "RESHAPE", options, [*self._inputs(node), self._constant(f"{node.name}/to", shape)], node
                )
            case g.Softmax():
                self._result(node, (1 / 256, -128))  # as the specification fixes it
                options = schema.SoftmaxOptionsT()
                options.beta = 1.0
                self._operator("SOFTMAX", options, self._inputs(node), node)
            case _:
                raise g.no_form(node, "TFLite in int8")

    def _channels(self, node: g.Channels) -> None:
        """Adds a concatenation, whose inputs must have its own scale: those that have not are rounded again."""
        params = scale_and_zero(*self._ranges[node.name])
        inputs = []
        for name in node.inputs:
            place = self._places[name]
            if self._params[name] != params:
                shape = self._subgraph.tensors[place].shape
                again = self._tensor(f"{node.name}/{name}", shape, np.int8, params)
                self._operator("QUANTIZE", schema.QuantizeOptionsT(), [place], again)
                place = again
            inputs.append(place)
        self._result(node, params)
        options = schema.ConcatenationOptionsT()
        options.axis = 3
        self._operator("CONCATENATION", options, inputs, node)

    def _twice(self, node: g.Twice) -> None:
        source, params = node.inputs[0], self._params[node.inputs[0]]
        height, width, features = self._subgraph.tensors[self._places[source]].shape[1:].tolist()
        whole = self._tensor(f"{node.name}/whole", (1, 2 * height, 2 * width, features), np.int8, params)
        size = self._constant(f"{node.name}/size", np.array([2 * height, 2 * width], np.int32))
        options = schema.ResizeNearestNeighborOptionsT()
        self._operator("RESIZE_NEAREST_NEIGHBOR", options, [self._places[source], size], whole)
        self._params[node.name], self._places[node.name] = params, whole
        if node.shape[:2] != (2 * height, 2 * width):
            self._result(node, params)
            bounds = [np.array(values, np.int32) for values in ((0, 0, 0, 0), (1, *node.shape))]
            inputs = [whole, *(self._constant(f"{node.name}/cut_{i}", value) for i, value in enumerate(bounds))]
            self._operator("SLICE", schema.SliceOptionsT(), inputs, node)

    def _dequantize(self, name: str) -> None:
        """Makes a node's result real, for those that read it from here on."""
        place = self._places[name]
        real = self._tensor(f"{name}/real", self._subgraph.tensors[place].shape, np.float32, None)
        self._operator("DEQUANTIZE", schema.DequantizeOptionsT(), [place], real)
        self._places[name] = real

    def _add_real(self, node: g.Node) -> None:
        """Adds a node of the tail, which computes in float32."""
        self._places[node.name] = self._tensor(node.name, (1, *node.shape), np.float32, None)
        match node:
            case g.Reshape():
                options = schema.ReshapeOptionsT()
                options.newShape = np.array([1, *node.shape], np.int32)
                to = self._constant(f"{node.name}/to", options.newShape)
                self._operator("RESHAPE", options, [*self._inputs(node), to], node)
            case g.Concat():
                options = schema.ConcatenationOptionsT()
                options.axis = 1
                self._operator("CONCATENATION", options, self._inputs(node), node)
            case g.Sigmoid():
                self._operator("LOGISTIC", None, self._inputs(node), node)
            case g.Softmax():
                options = schema.SoftmaxOptionsT()
                options.beta = 1.0
                self._operator("SOFTMAX", options, self._inputs(node), node)
            case _:
                raise g.no_form(node, "TFLite behind int8")

    def _conv(self, node: g.Conv) -> None:
        source, padding = node.inputs[0], node.padding
        height, width = self._graph.input_size(node)
        size, stride = node.kernel.shape[0], node.stride
        place = self._places[source]
        if padding == ((0, 0), (0, 0)):
            scheme = schema.Padding.VALID
        elif padding == tuple(g.same_padding(side, size, stride, node.dilation) for side in (height, width)):
            scheme = schema.Padding.SAME
        else:
            place, scheme = self._pad(node, place), schema.Padding.VALID
        in_scale = self._params[source][0]
        self._result(node, scale_and_zero(*self._ranges[node.name]))
        largest = np.abs(node.kernel).max((0, 1, 2)).astype(np.float64)
        least = least_scale(node.bias, in_scale, self._params[node.name][0])
        rounded = round_conv(node, largest / 127, least, self._moments.get(node.name))
        bias_scale = (rounded.scale.astype(np.float64) * in_scale).astype(np.float32)
        bias = np.round(rounded.bias / bias_scale.astype(np.float64)).astype(np.int32)
        if node.depthwise:
            kernel, axis = rounded.kernel[:, :, 0][None], 3
        else:
            kernel, axis = np.transpose(rounded.kernel, (3, 0, 1, 2)), 0
        inputs = [
            place,
            self._constant(f"{node.name}/kernel", kernel, (rounded.scale, 0), axis),
            self._constant(f"{node.name}/bias", bias, (bias_scale, 0)),
        ]
        options = schema.DepthwiseConv2DOptionsT() if node.depthwise else schema.Conv2DOptionsT()
        options.padding, options.strideW, options.strideH = scheme, stride, stride
        options.dilationWFactor = options.dilationHFactor = node.dilation
        options.fusedActivationFunction = _ACTIVATIONS[node.activation]
        if node.depthwise:
            options.depthMultiplier = 1
        self._operator("DEPTHWISE_CONV_2D" if node.depthwise else "CONV_2D", options, inputs, node)

    def _pad(self, node: g.Conv, place: int) -> int:
        """Adds zeros around a map, as PyTorch's weights want them; returns the padded tensor."""
        height, width = self._graph.input_size(node)
        (top, bottom), (left, right) = node.padding
        shape = (1, height + top + bottom, width + left + right, self._subgraph.tensors[place].shape[3])
        padded = self._tensor(f"{node.name}/padded", shape, np.int8, self._params[node.inputs[0]])
        amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        inputs = [place, self._constant(f"{node.name}/padding", amounts)]
        self._operator("PAD", schema.PadOptionsT(), inputs, padded)
        return padded

    # --- Tensors and operators ---

    def _inputs(self, node: g.Node) -> list[int]:
        return [self._places[name] for name in node.inputs]

    def _result(self, node: g.Node, params: tuple[float, int]) -> None:
        self._params[node.name] = params
        self._places[node.name] = self._tensor(node.name, (1, *node.shape), np.int8, params)

    def _tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: type,
        params: tuple[float | np.ndarray, int] | None,
        axis: int = 0,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, np.array(shape, np.int32), _TYPES[np.dtype(dtype)]
        tensor.buffer = 0
        if params is not None:
            quantization = schema.QuantizationParametersT()
            quantization.scale = np.atleast_1d(np.asarray(params[0], np.float32))
            quantization.zeroPoint = np.full(quantization.scale.shape, params[1], np.int64)
            quantization.quantizedDimension = axis
            tensor.quantization = quantization
        self._subgraph.tensors.append(tensor)
        return len(self._subgraph.tensors) - 1

    def _constant(
        self, name: str, value: np.ndarray, params: tuple[float | np.ndarray, int] | None = None, axis: int = 0
    ) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        place = self._tensor(name, value.shape, value.dtype.type, params, axis)
        self._subgraph.tensors[place].buffer = len(self._tree.buffers)
        self._tree.buffers.append(buffer)
        return place

    def _operator(self, name: str, options: object | None, inputs: list[int], result: g.Node | int) -> None:
        if name not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
            code.version = _VERSIONS.get(name, 1)
            self._codes[name] = len(self._tree.operatorCodes)
            self._tree.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes[name]
        operator.inputs = inputs
        operator.outputs = [result if isinstance(result, int) else self._places[result.name]]
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
            operator.builtinOptions = options
        self._subgraph.operators.append(operator)
