"""A graph as an ONNX model, node by node with onnx's own helpers, and how onnxruntime runs one.

Inside, maps are [N, C, H, W], the layout that onnxruntime's convolutions want; images come as [N, H, W, 3] like
everywhere in this project, and one transposition of three channels is all that this costs.
"""

import os
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mnet_jax.deploy import graph as g
from mnet_jax.deploy import sums
from mnet_jax.deploy.detections.in_onnx import detect
from mnet_jax.deploy.metadata import About, from_properties
from mnet_jax.files import placed

# HardSwish came with 14, ReduceMean and Gelu changed after 17: readable by onnxruntime from 1.11 on.
OPSET = 17
_IR_VERSION = 8  # of onnx 1.12, which brought opset 17
_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
_BATCH = "batch"


def write(graph: g.Graph, about: About, path: str | os.PathLike) -> None:
    """Writes the model file; the batch is free."""
    model = build(graph, about)
    with placed(path) as part:
        # What follows a message is merged into it: one property more.
        last = onnx.StringStringEntryProto(key=sums.NAME, value=sums.EMPTY)
        contents = model.SerializeToString(deterministic=True)
        part.write_bytes(sums.seal(contents + onnx.ModelProto(metadata_props=[last]).SerializeToString()))


def build(graph: g.Graph, about: About) -> onnx.ModelProto:
    """Returns the model: `g.INPUT` [batch, H, W, 3] -> the graph's results by name, [batch, ...]."""
    writer = _Writer()
    names = {g.INPUT: writer.add("Transpose", (g.INPUT,), "channels_first", perm=(0, 3, 1, 2))}
    shapes = {g.INPUT: graph.input_shape}
    nodes = {node.name: node for node in graph.nodes}
    maps = {name: node for name, node in graph.outputs.items() if len(nodes[node].shape) == 3}
    given = {node: name for name, node in graph.outputs.items() if name not in maps}
    for node in graph.nodes:
        output = given.get(node.name, node.name)
        if output in maps:  # the name of a result, which is this map or another with its channels last
            output = f"{output}/channels_first"
        names[node.name] = writer.node(node, tuple(names[name] for name in node.inputs), output, shapes)
        shapes[node.name] = node.shape
    images = helper.make_tensor_value_info(g.INPUT, _TYPES[graph.input_dtype], (_BATCH, *graph.input_shape))
    for name, node in maps.items():
        writer.add("Transpose", (names[node],), name, perm=(0, 2, 3, 1))
    results = [
        helper.make_tensor_value_info(
            name,
            TensorProto.INT32 if isinstance(nodes[node], g.Largest) else TensorProto.FLOAT,
            (_BATCH, *shapes[node]),
        )
        for name, node in graph.outputs.items()
    ]
    model = helper.make_model(
        helper.make_graph(writer.nodes, about.model, (images,), results, writer.constants),
        opset_imports=(helper.make_opsetid("", OPSET),),
        ir_version=_IR_VERSION,
        producer_name="mnet_jax",
        producer_version=about.version,
        doc_string=about.description,
    )
    helper.set_model_props(model, about.to_properties())
    onnx.checker.check_model(model, full_check=True)
    return model


class _Writer:
    """Collects ONNX nodes and constants; every method returns the name of the value that it adds last."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: Sequence[str], output: str, *more: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, (output, *more), name=output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        if all(known.name != name for known in self.constants):
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, node: g.Node, inputs: tuple[str, ...], output: str, shapes: dict[str, tuple[int, ...]]) -> str:
        match node:
            case g.Pixels():
                pixels = self.add("Cast", inputs, f"{output}/float", to=TensorProto.FLOAT)
                mean = self.constant(f"{output}/mean", node.mean.reshape(1, 3, 1, 1))
                return self.add("Sub", (pixels, mean), output)
            case g.Conv():
                return self._conv(node, inputs[0], output)
            case g.Mean():
                return self.add("GlobalAveragePool", inputs, output)
            case g.Multiply():
                return self.add("Mul", inputs, output)
            case g.Add():
                return self.add("Add", inputs, output)
            case g.WindowMean():
                return self.add("AveragePool", inputs, output, kernel_shape=node.window, strides=node.strides)
            case g.Channels():
                return self.add("Concat", inputs, output, axis=1)
            case g.Resize():
                return self._resize(node, inputs[0], output, shapes[node.inputs[0]])
            case g.Largest():
                places = self.add("ArgMax", inputs, f"{output}/int64", axis=1, keepdims=0)
                return self.add("Cast", (places,), output, to=TensorProto.INT32)
            case g.Twice():
                scales = self.constant("twice", np.array([1, 1, 2, 2], np.float32))
                modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
                whole = self.add("Resize", (*inputs, "", scales), f"{output}/whole", **modes)
                start, axes = (
                    self.constant(f"twice/{name}", np.array(v)) for name, v in (("0", (0, 0)), ("2", (2, 3)))
                )
                ends = self.constant(f"{output}/size", np.array(node.shape[:2]))
                return self.add("Slice", (whole, start, ends, axes), output)
            case g.RmsNorm():
                return self._rms_norm(node, inputs[0], output)
            case g.Attention():
                return self._attention(node, inputs, output, shapes)
            case g.Reshape():
                return self._reshape(node, inputs[0], output, shapes[node.inputs[0]])
            case g.Concat():
                return self.add("Concat", inputs, output, axis=1)
            case g.Softmax():
                return self.add("Softmax", inputs, output, axis=-1)
            case g.Sigmoid():
                return self.add("Sigmoid", inputs, output)
            case g.Detections():
                return detect(self, node, *inputs, output)
            case g.Part():
                return self.add("Identity", (f"{inputs[0]}/{node.part}",), output)
        raise g.no_form(node, "ONNX")

    def _resize(self, node: g.Resize, x: str, output: str, shape: tuple[int, ...]) -> str:
        # By factors, so that the batch may be any; rounded up, or the size would come out one short.
        factors = [np.nextafter(np.float32(node.shape[axis] / shape[axis]), np.float32(np.inf)) for axis in (0, 1)]
        scales = self.constant(f"{output}/scales", np.array([1, 1, *factors], np.float32))
        rule = "align_corners" if node.align_corners else "half_pixel"
        modes = {"mode": "linear", "coordinate_transformation_mode": rule}
        return self.add("Resize", (x, "", scales), output, **modes)

    def _reshape(self, node: g.Reshape, x: str, output: str, shape: tuple[int, ...]) -> str:
        """Adds rows of a map, whose channels come first here and last there."""
        if shape[:2] == (1, 1) and len(node.shape) == 1:
            return self.add("Flatten", (x,), output)
        if shape[:2] != (1, 1):
            x = self.add("Transpose", (x,), f"{output}/channels_last", perm=(0, 2, 3, 1))
        return self.add("Reshape", (x, self.constant(f"{output}/to", np.array([0, *node.shape]))), output)

    def _conv(self, node: g.Conv, x: str, output: str) -> str:
        (top, bottom), (left, right) = node.padding
        kernel = self.constant(f"{node.name}/kernel", node.kernel.transpose(3, 2, 0, 1))
        bias = self.constant(f"{node.name}/bias", node.bias)
        linear = output if node.activation is None else f"{output}/linear"
        self.add(
            "Conv",
            (x, kernel, bias),
            linear,
            kernel_shape=node.kernel.shape[:2],
            strides=(node.stride, node.stride),
            dilations=(node.dilation, node.dilation),
            pads=(top, left, bottom, right),
            group=node.shape[-1] if node.depthwise else node.groups,
        )
        return self._activation(node.activation, linear, output)

    def _activation(self, activation: str | None, linear: str, output: str) -> str:
        """Adds an activation from the value `linear`, which is `output` itself where there is none."""
        match activation:
            case None:
                return output
            case "relu":
                return self.add("Relu", (linear,), output)
            case "relu6":
                limits = (self.constant(f"limit_{value}", np.float32(value)) for value in (0, 6))
                return self.add("Clip", (linear, *limits), output)
            case "hard_swish":
                return self.add("HardSwish", (linear,), output)
            case "gelu":  # the form that onnxruntime fuses into one kernel
                scaled = self.add("Div", (linear, self.constant("root_2", np.float32(np.sqrt(2)))), f"{output}/scaled")
                erf = self.add("Erf", (scaled,), f"{output}/erf")
                plus = self.add("Add", (erf, self.constant("one", np.float32(1))), f"{output}/plus")
                product = self.add("Mul", (linear, plus), f"{output}/product")
                return self.add("Mul", (product, self.constant("half", np.float32(0.5))), output)
            case "gelu_tanh":  # x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
                square = self.add("Mul", (linear, linear), f"{output}/square")
                bent = self.add("Mul", (square, self.constant("bend", np.float32(0.044715))), f"{output}/bent")
                plus = self.add("Add", (bent, self.constant("one", np.float32(1))), f"{output}/plus")
                slope = self.add("Mul", (linear, self.constant("slope", np.float32(np.sqrt(2 / np.pi)))), f"{output}/s")
                tanh = self.add("Tanh", (self.add("Mul", (slope, plus), f"{output}/inside"),), f"{output}/tanh")
                double = self.add("Mul", (linear, self.add("Add", (tanh, "one"), f"{output}/up")), f"{output}/double")
                return self.add("Mul", (double, self.constant("half", np.float32(0.5))), output)
        raise AssertionError(activation)

    def _rms_norm(self, node: g.RmsNorm, x: str, output: str) -> str:
        linear = output if node.activation is None else f"{output}/linear"
        square = self.add("Mul", (x, x), f"{linear}/square")
        mean = self.add("ReduceMean", (square,), f"{linear}/mean", axes=(1,), keepdims=1)
        epsilon = self.constant(f"epsilon_{node.epsilon:g}", np.float32(node.epsilon))
        root = self.add("Sqrt", (self.add("Add", (mean, epsilon), f"{linear}/above_0"),), f"{linear}/root")
        scale = self.constant(f"{node.name}/scale", node.scale.reshape(1, -1, 1, 1))
        self.add("Mul", (self.add("Div", (x, root), f"{linear}/normal"), scale), linear)
        return self._activation(node.activation, linear, output)

    def _attention(
        self, node: g.Attention, inputs: tuple[str, ...], output: str, shapes: dict[str, tuple[int, ...]]
    ) -> str:
        """Scores are [N, heads, keys, queries], so that only the (small) key is transposed."""
        height, width, features = node.shape
        size = shapes[node.inputs[1]][-1]

        def reshape(name: str, x: str, *shape: int) -> str:
            target = self.constant(f"{name}/shape", np.asarray(shape, np.int64))
            return self.add("Reshape", (x, target), name)

        query = reshape(f"{output}/query", inputs[0], 0, node.heads, size, height * width)
        key = reshape(f"{output}/key", inputs[1], 0, 1, size, -1)
        value = reshape(f"{output}/value", inputs[2], 0, 1, size, -1)
        key = self.add("Transpose", (key,), f"{output}/key_transposed", perm=(0, 1, 3, 2))
        scores = self.add("MatMul", (key, query), f"{output}/scores")
        weights = self.add("Softmax", (scores,), f"{output}/weights", axis=2)
        mixed = self.add("MatMul", (value, weights), f"{output}/mixed")
        return reshape(output, mixed, 0, features, height, width)


class Runner:
    """An ONNX file in onnxruntime on CPU: images [N, H, W, 3] -> its results."""

    def __init__(self, path: str | os.PathLike, threads: int | None = None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=("CPUExecutionProvider",))
        self.about = from_properties(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, images: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        names = [output.name for output in self._session.get_outputs()]
        return g.results(dict(zip(names, self._session.run(names, {g.INPUT: images}), strict=True)))
