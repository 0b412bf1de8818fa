"""TFLite files of networks with folded norms, written by hand: a chain of convolutions, and the branches of an SSD."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mnet_jax.deploy.tflite import pack
from mnet_jax.pretrained.tflite import running_layers

RELU6 = schema.ActivationFunctionType.RELU6
_OP = schema.BuiltinOperator


class Writer:
    """Adds operators to a model of one image [1, size, size, 3], float32."""

    def __init__(self, size, seed=0):
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.operatorCodes, self.model.buffers = [], [schema.BufferT()]
        self.graph.tensors, self.graph.operators = [], []
        self.random = np.random.default_rng(seed)
        self.image = self.tensor("image", (1, size, size, 3))
        self.graph.inputs = [self.image]

    def tensor(self, name, shape, values=None, scale=None, zero=None):
        tensor, buffer = schema.TensorT(), schema.BufferT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type = schema.TensorType.FLOAT32
        if values is not None:
            kinds = {"f": schema.TensorType.FLOAT32, "i": schema.TensorType.INT32, "u": schema.TensorType.UINT8}
            tensor.type = kinds[values.dtype.kind]
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.float32([scale])
            tensor.quantization.zeroPoint = np.int64([zero])
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, code, inputs, shape, kind=None, options=None):
        codes = [entry.builtinCode for entry in self.model.operatorCodes]
        if code not in codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode = entry.deprecatedBuiltinCode = code
            self.model.operatorCodes.append(entry)
            codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs = codes.index(code), list(inputs)
        output = self.tensor(f"tensor_{len(self.graph.tensors)}", shape)
        operator.outputs = [output]
        if options is not None:
            operator.builtinOptionsType, operator.builtinOptions = kind, options
        self.graph.operators.append(operator)
        return output

    def conv(self, layer, x, *, quantized=False):
        """A layer of a plan with random values; `quantized`: its kernel is stored as uint8 (to be read, not run)."""
        _, height, width, into = self.graph.tensors[x].shape
        height, width = layer.output_size((height, width))
        k, out = layer.kernel, layer.features
        shape = (1, k, k, out) if layer.depthwise else (out, k, k, into)
        fan_in = k * k * (1 if layer.depthwise else into)
        kernel = self.random.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        bias = self.random.normal(0, 0.1, out).astype(np.float32)
        options = schema.DepthwiseConv2DOptionsT() if layer.depthwise else schema.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW = schema.Padding.SAME, layer.stride, layer.stride
        options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = RELU6 if layer.activation == "relu6" else 0
        if layer.depthwise:
            options.depthMultiplier = 1
        code = _OP.DEPTHWISE_CONV_2D if layer.depthwise else _OP.CONV_2D
        kind = schema.BuiltinOptions.DepthwiseConv2DOptions if layer.depthwise else schema.BuiltinOptions.Conv2DOptions
        scale, zero = (0.01, 100) if quantized else (None, None)
        if quantized:
            kernel = np.clip(np.rint(kernel / scale) + zero, 0, 255).astype(np.uint8)
        places = (x, self.tensor("kernel", shape, kernel, scale, zero), self.tensor("bias", (out,), bias))
        return self.operator(code, places, (1, height, width, out), kind, options)

    def reshape(self, x, shape):
        places = (x, self.tensor("shape", (len(shape),), np.int32(shape)))
        return self.operator(_OP.RESHAPE, places, shape)

    def concatenate(self, places):
        shapes = [self.graph.tensors[place].shape for place in places]
        options = schema.ConcatenationOptionsT()
        options.axis = 1
        total = (1, sum(shape[1] for shape in shapes), shapes[0][2])
        return self.operator(_OP.CONCATENATION, places, total, schema.BuiltinOptions.ConcatenationOptions, options)

    def write(self, path, outputs):
        self.graph.outputs = list(outputs)
        path.write_bytes(pack(self.model))
        return path


def write_detector(path, plan, head, size, *, quantized=False):
    """An SSD whose results are codes [1, A, 4] and scores [1, A, slots]."""
    writer = Writer(size)
    x, maps = writer.image, {}
    for scope, layer in running_layers(plan):
        x = writer.conv(layer, x, quantized=quantized)
        maps["/".join((*scope, layer.name))] = x
        if scope:
            maps[scope[0]] = x
    found = [maps[tap.path] for tap in head.taps]
    for extra in head.extras:
        for layer in extra:
            x = writer.conv(layer, x, quantized=quantized)
        found.append(x)
    rows = {"boxes": [], "classes": []}
    for place, boxes, classes in zip(found, head.boxes, head.classes, strict=True):
        for name, layers, numbers in (("boxes", boxes, 4), ("classes", classes, head.num_slots)):
            x = place
            for layer in layers:
                x = writer.conv(layer, x, quantized=quantized)
            rows[name].append(writer.reshape(x, (1, np.prod(writer.graph.tensors[x].shape) // numbers, numbers)))
    boxes, classes = (writer.concatenate(rows[name]) for name in ("boxes", "classes"))
    scores = writer.operator(_OP.LOGISTIC, (classes,), writer.graph.tensors[classes].shape)
    return writer.write(path, (boxes, scores))


def write_classifier(path, plan, size):
    """V1 whose result is logits [1, classes], the background first where there are 1001."""
    writer = Writer(size)
    x = writer.image
    *layers, (_, classifier) = running_layers(plan)
    for _, layer in layers:
        x = writer.conv(layer, x)
    options = schema.ReducerOptionsT()
    options.keepDims = True
    places = (x, writer.tensor("axes", (2,), np.int32((1, 2))))
    features = writer.graph.tensors[x].shape[-1]
    x = writer.operator(_OP.MEAN, places, (1, 1, 1, features), schema.BuiltinOptions.ReducerOptions, options)
    x = writer.conv(classifier, x)
    return writer.write(path, [writer.reshape(x, (1, plan.num_classes))])


def run(path, image):
    """What LiteRT says, in the order of the outputs."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
