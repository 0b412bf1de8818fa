"""A graph as a TFLite (LiteRT) model: converted, then edited where the converter leaves something to be wished for."""

import contextlib
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mnet_jax.deploy import graph as g
from mnet_jax.deploy import tflite_metadata
from mnet_jax.deploy.detections import in_tflite
from mnet_jax.deploy.metadata import JSON_FILE, About, from_json
from mnet_jax.files import placed

_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # of constants, as the schema asks (force_align); microcontrollers read them in place


def write(graph: g.Graph, about: About, path: str | os.PathLike) -> None:
    """Writes the model file, quantised as `about.quantize` says."""
    model = convert(graph, about, quantize=about.quantize)
    with placed(path) as part:
        part.write_bytes(model)


def convert(graph: g.Graph, about: About, *, quantize: str = "none") -> bytes:
    """Returns the graph as a model for one image, [1, H, W, 3], with metadata.

    Args:
      graph: what `fold.fold` made.
      about: for the metadata.
      quantize: "none"; "float16": weights, computed in float32 (or float16 by a GPU); "dynamic": int8 weights per
        channel, activations quantised as they come.
    """
    body, _ = in_tflite.without(graph)
    model = run_converter(body, _float16 if quantize == "float16" else lambda converter: None)
    return finish(_dynamic(model) if quantize == "dynamic" else model, about, graph)


def _float16(converter: Any) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(model: bytes) -> bytes:
    """Returns the model with int8 weights for all but depthwise convolutions.

    Those hold little, and XNNPACK has no kernel for them in this form: with them (as TensorFlow's converter has it)
    every one of v3_large's fifteen would fall back to TFLite's own.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe

    (settings,) = recipe.dynamic_wi8c_afp32()
    work = quantizer.Quantizer(bytearray(model))
    work.load_quantization_recipe([{**settings, "operation": qtyping.TFLOperationName.CONV_2D}])
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        return bytes(work.quantize().quantized_model)


def run_converter(graph: g.Graph, configure: Callable[[Any], None]) -> bytes:
    """Runs TensorFlow's converter on the graph for one image; `configure` sets the `tf.lite.TFLiteConverter` up."""
    import tensorflow as tf

    from mnet_jax.deploy.tensorflow_module import make_function

    module = tf.Module()
    module.run = make_function(graph, 1)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.run], module)
    configure(converter)
    return converter.convert()


def finish(model: bytes, about: About, source: g.Graph) -> bytes:
    """Returns a model with readable names, metadata, the label file, and nothing that a delegate refuses.

    A converted model says the names of its results in its signature; one without a signature has them already.

    Args:
      model: made of `source`, up to its detections where it has some: they are added here.
      about: for the metadata.
      source: the whole graph.
    """
    tree = unpack(model)
    graph = tree.subgraphs[0]
    graph.tensors[graph.inputs[0]].name = g.INPUT
    for signature in tree.signatureDefs or ():
        for result in signature.outputs:
            graph.tensors[result.tensorIndex].name = result.name
    _, detections = in_tflite.without(source)
    if detections is not None:
        nodes = {node.name: node for node in source.nodes}
        in_tflite.append(tree, detections, {name: nodes[part].part for name, part in source.outputs.items()})
    names = [_text(graph.tensors[place].name) for place in graph.outputs]
    tree.description = about.description
    _dequantize_pixels(tree)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(tflite_metadata.build(about, names), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = tflite_metadata.BUFFER_NAME, len(tree.buffers)
    tree.buffers.append(buffer)
    tree.metadata = [*(tree.metadata or ()), entry]
    return tflite_metadata.append_files(pack(tree), about)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _dequantize_pixels(tree: schema.ModelT) -> None:
    """uint8 pixels become float by DEQUANTIZE with scale 1: the same numbers as CAST, which XNNPACK does not run."""
    graph = tree.subgraphs[0]
    first = next(operator for operator in graph.operators if graph.inputs[0] in operator.inputs)
    if tree.operatorCodes[first.opcodeIndex].builtinCode != schema.BuiltinOperator.CAST:
        return
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2
    first.opcodeIndex = len(tree.operatorCodes)
    tree.operatorCodes.append(code)
    first.builtinOptionsType, first.builtinOptions = (
        schema.BuiltinOptions.DequantizeOptions,
        schema.DequantizeOptionsT(),
    )
    exact = schema.QuantizationParametersT()
    exact.scale, exact.zeroPoint = np.ones(1, np.float32), np.zeros(1, np.int64)
    graph.tensors[first.inputs[0]].quantization = exact


class _AlignedBuffer(schema.BufferT):
    """A buffer whose data start at a multiple of 16 bytes; the generated class aligns them to 4."""

    def Pack(self, builder: Any) -> int:
        if self.data is None:
            return super().Pack(builder)
        data = np.ascontiguousarray(self.data, np.uint8).tobytes()
        builder.StartVector(1, len(data), _ALIGNMENT)
        builder.head = builder.head - len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def unpack(model: bytes) -> schema.ModelT:
    """Returns a model as a tree of objects; constants behind the flatbuffer (ai-edge-quantizer's) come into it."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    for buffer in tree.buffers:
        if buffer.offset > 1:  # 0 and 1 mean that there is nothing outside
            buffer.data = np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return tree


class _SharingBuilder(flatbuffers.Builder):
    """Writes equal vectors once: most layers have as many zero points, all 0, as others."""

    def __init__(self, size: int):
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        key = x.dtype.str, x.tobytes()
        if x.dtype == np.uint8 or key not in self._written:  # not the buffers, which are aligned
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


def pack(tree: schema.ModelT) -> bytes:
    """Returns a model's bytes from its object tree."""
    for buffer in tree.buffers:
        buffer.__class__ = _AlignedBuffer
    builder = _SharingBuilder(sum(len(buffer.data) for buffer in tree.buffers if buffer.data is not None) + 65536)
    builder.Finish(tree.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


class Runner:
    """A TFLite file in LiteRT's interpreter: images [N, H, W, 3] -> its results, one image at a time.

    Those of a quantised model come as the real numbers that they stand for, and float images are quantised here.
    """

    def __init__(self, path: str | os.PathLike, threads: int | None = None):
        from ai_edge_litert.interpreter import Interpreter

        self._model = pathlib.Path(path).read_bytes()  # mapped from the file, it would be locked on some systems
        self._interpreter = Interpreter(model_content=self._model, num_threads=threads)
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        with zipfile.ZipFile(path) as archive:
            self.about = from_json(archive.read(JSON_FILE))

    def __call__(self, images: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        rows = [self._run(image[None]) for image in images]
        return g.results({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})

    def _run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        dtype = self._input["dtype"]
        if image.dtype != dtype:
            scale, zero = self._input["quantization"]
            limits = np.iinfo(dtype)
            image = np.clip(np.rint(image / scale) + zero, limits.min, limits.max).astype(dtype)
        self._interpreter.set_tensor(self._input["index"], image)
        self._interpreter.invoke()
        return {detail["name"]: self._result(detail) for detail in self._outputs}

    def _result(self, detail: dict[str, Any]) -> np.ndarray:
        values = self._interpreter.get_tensor(detail["index"])
        if values.dtype in (np.float32, np.int32):  # as they are: of int32, numbers of classes
            return values
        scale, zero = detail["quantization"]
        return (values.astype(np.float32) - zero) * np.float32(scale)


def operations(model: bytes) -> list[str]:
    """Returns the names of a model's operations, in the order in which they run: "CONV_2D", ..., and custom ones."""
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    tree = unpack(model)
    kinds = [
        _text(code.customCode) if code.customCode else names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in tree.operatorCodes
    ]
    return [kinds[operator.opcodeIndex] for operator in tree.subgraphs[0].operators]


def left_out(model: bytes) -> list[str]:
    """Returns the operations that XNNPACK does not take in the interpreter: [] if it runs the whole model.

    Walks back from the output: what made a tensor is either a delegate's node or an operation that was left to TFLite's
    own kernels.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    makers = {}
    for operation in interpreter._get_ops_details():  # delegates come last and replace the operations they took
        makers.update(dict.fromkeys(map(int, operation["outputs"]), operation))
    wanted = [detail["index"] for detail in interpreter.get_output_details()]
    found: dict[int, str] = {}
    while wanted:
        maker = makers.get(wanted.pop())
        if maker is not None and maker["index"] not in found:
            found[maker["index"]] = maker["op_name"]
            wanted += map(int, maker["inputs"])
    return [name for _, name in sorted(found.items()) if name != "DELEGATE"]
