"""Detections in TFLite: the operation TFLite_Detection_PostProcess, put behind a model that gives codes and scores.

Its rules (tensorflow/lite/kernels/detection_postprocess.cc): it decodes, keeps scores of at least the threshold, and
suppresses a box that overlaps a kept one by more than the limit, within its class (`use_regular_nms`) or, of each
anchor's best class alone, among all. It does not cut boxes off at the image, before or after.
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
    anchors = schema.BufferT()
    anchors.data = np.frombuffer(centred_anchors(node).tobytes(), np.uint8)
    inputs = [given[CODES], given[SCORES], _add_tensor(graph, "anchors", node.anchors.shape, len(tree.buffers))]
    tree.buffers.append(anchors)
    most = node.max_detections
    shapes = {"boxes": (1, most, 4), "classes": (1, most), "scores": (1, most), "count": (1,)}
    # Task libraries that find no names in the metadata go by the order; their writer of metadata goes by the numbers.
    graph.outputs = [_add_tensor(graph, name, shapes[part], 0) for name, part in parts.items()]

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = OPERATION, 1
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = len(tree.operatorCodes), inputs, graph.outputs
    operator.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(options(node))), np.uint8)
    operator.customOptionsFormat = schema.CustomOptionsFormat.FLEXBUFFERS
    tree.operatorCodes.append(code)
    graph.operators.append(operator)
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
        "nms_score_threshold": node.score_threshold,
        "nms_iou_threshold": node.iou_threshold,
        "num_classes": node.num_classes,
        "y_scale": node.centre_scale,
        "x_scale": node.centre_scale,
        "h_scale": node.size_scale,
        "w_scale": node.size_scale,
    }


def _add_tensor(graph: schema.SubGraphT, name: str, shape: tuple[int, ...], buffer: int) -> int:
    """Returns the number of a new float32 tensor."""
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name, np.array(shape, np.int32), schema.TensorType.FLOAT32
    tensor.buffer = buffer
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
