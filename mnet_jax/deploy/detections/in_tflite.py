"""Detections in TFLite: the operation TFLite_Detection_PostProcess, put behind a model that gives codes and scores.

Its rules (tensorflow/lite/kernels/detection_postprocess.cc): it decodes, keeps scores of at least the threshold, and
suppresses a box that overlaps a kept one by more than the limit, within its class (`use_regular_nms`) or, of each
anchor's best class alone, among all. It does not cut boxes off at the image, before or after.

Within classes it has a fault, which the file makes up for: run by n > 1 threads, its loop passes over class n (the
counter of the next class starts at n and is raised before it is read; tensorflow/tensorflow issue 56058, and LiteRT
2.3). So classes are counted from `_SPARE` on there, behind as many that nothing is ever of, and moved back afterwards.
"""

import dataclasses
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.detections.anchors import centred_anchors

OPERATION = "TFLite_Detection_PostProcess"
CODES, SCORES = "codes", "scores"
_SPARE = 17  # classes: for up to 16 threads
_LEAST = 1e-9  # of the score threshold, for these classes' scores of 0 to be below


def without(graph: g.Graph) -> tuple[g.Graph, g.Detections | None]:
    """Returns the graph up to what its detections are made of, by the names "codes" and "scores", and their node.

    A graph without detections comes back as it is, with None.
    """
    found = next((node for node in graph.nodes if isinstance(node, g.Detections)), None)
    if found is None:
        return graph, None
    nodes = tuple(node for node in graph.nodes if not isinstance(node, g.Detections | g.Part))
    outputs = dict(zip((CODES, SCORES), found.inputs, strict=True))
    return dataclasses.replace(graph, nodes=nodes, outputs=outputs), found


def append(tree: schema.ModelT, node: g.Detections, parts: dict[str, str]) -> None:
    """Adds the operation to a model with the results "codes" and "scores", in place of these.

    Args:
      tree: the model.
      node: the detections.
      parts: the name of a result -> which of the operation's it is, in the operation's order.
    """
    graph = tree.subgraphs[0]
    given = {_text(graph.tensors[place].name): place for place in graph.outputs}
    writer, most, scores, spare = _Writer(tree), node.max_detections, given[SCORES], _spare(node)
    if spare:
        shape = (1, len(node.anchors), node.num_classes)
        columns = int(graph.tensors[scores].shape[-1])
        if columns > node.num_classes:  # without the background
            bounds = [np.array(values, np.int32) for values in ((0, 0, 1), shape)]
            scores = writer.operator("SLICE", schema.SliceOptionsT(), scores, bounds, "classes_only", shape)
        wider = (*shape[:2], spare + node.num_classes)
        sides = [np.array(((0, 0), (0, 0), (spare, 0)), np.int32)]
        scores = writer.operator("PAD", schema.PadOptionsT(), scores, sides, "spare_and_classes", wider)
    inputs = [given[CODES], scores, writer.constant("anchors", centred_anchors(node))]
    shapes = {"boxes": (1, most, 4), "classes": (1, most), "scores": (1, most), "count": (1,)}
    counted = writer.tensor("spare_and_class", shapes["classes"]) if spare else None
    # Task libraries that find no names in the metadata go by the order; their writer of metadata goes by the numbers.
    graph.outputs = [writer.tensor(name, shapes[part]) for name, part in parts.items()]
    results = [place if counted is None or part != "classes" else counted
               for place, part in zip(graph.outputs, parts.values(), strict=True)]  # fmt: skip
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = writer.code(OPERATION), inputs, results
    operator.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(options(node))), np.uint8)
    operator.customOptionsFormat = schema.CustomOptionsFormat.FLEXBUFFERS
    graph.operators.append(operator)
    if counted is not None:
        back = schema.AddOptionsT()
        back.fusedActivationFunction = schema.ActivationFunctionType.RELU  # rows behind the last hold 0
        classes = graph.outputs[list(parts.values()).index("classes")]
        writer.operator("ADD", back, counted, [np.full((1, 1), -spare, np.float32)], classes, shapes["classes"])
    for signature in tree.signatureDefs or ():
        signature.outputs = []
        for name, place in zip(parts, graph.outputs, strict=True):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, place
            signature.outputs.append(entry)


def options(node: g.Detections) -> dict[str, Any]:
    """Returns the operation's options, by the names that it reads."""
    return {
        "max_detections": node.max_detections,
        "max_classes_per_detection": 1,
        "detections_per_class": node.max_detections,
        "use_regular_nms": node.per_class,
        "nms_score_threshold": max(node.score_threshold, _LEAST),
        "nms_iou_threshold": node.iou_threshold,
        "num_classes": _spare(node) + node.num_classes,
        "y_scale": node.centre_scale,
        "x_scale": node.centre_scale,
        "h_scale": node.size_scale,
        "w_scale": node.size_scale,
    }


def _spare(node: g.Detections) -> int:
    """Returns how many classes nothing is of: none where there is no class that threads could pass over."""
    return _SPARE if node.per_class and node.num_classes > 2 else 0


class _Writer:
    """Adds tensors and operators to a model."""

    def __init__(self, tree: schema.ModelT):
        self._tree, self._graph = tree, tree.subgraphs[0]

    def tensor(self, name: str, shape: tuple[int, ...], kind: int = schema.TensorType.FLOAT32, buffer: int = 0) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, np.array(shape, np.int32), kind, buffer
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def constant(self, name: str, value: np.ndarray) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        self._tree.buffers.append(buffer)
        kind = schema.TensorType.INT32 if value.dtype == np.int32 else schema.TensorType.FLOAT32
        return self.tensor(name, value.shape, kind, len(self._tree.buffers) - 1)

    def code(self, name: str) -> int:
        code = schema.OperatorCodeT()
        builtin = getattr(schema.BuiltinOperator, name, schema.BuiltinOperator.CUSTOM)
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.customCode, code.version = name if builtin == schema.BuiltinOperator.CUSTOM else None, 1
        self._tree.operatorCodes.append(code)
        return len(self._tree.operatorCodes) - 1

    def operator(
        self, kind: str, options: Any, x: int, constants: list[np.ndarray], to: str | int, shape: tuple[int, ...]
    ) -> int:
        """Adds an operation of a tensor and constants; returns its result, `to` or a new one of that name."""
        result = self.tensor(to, shape) if isinstance(to, str) else to
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.outputs = self.code(kind), [result]
        operator.inputs = [x, *(self.constant(f"{kind}_{index}", value) for index, value in enumerate(constants))]
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        operator.builtinOptions = options
        self._graph.operators.append(operator)
        return result


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
