"""Detections in ONNX, for any batch: NonMaxSuppression, and the best of what it keeps.

NonMaxSuppression gives a list of (image, class, box), as long as it happens to be. Its scores are put back into an
array of all classes and boxes, whose largest are the detections: as many of each image, in falling order.
"""

from typing import Protocol

import numpy as np

from mnet_jax.deploy.detections.anchors import centred_anchors
from mnet_jax.deploy.graph import Detections


class Writer(Protocol):
    """What adds operations and constants to a model; both return the name of what they add."""

    def add(self, kind: str, inputs: tuple[str, ...], output: str, *more: str, **attributes) -> str:
        """Adds an operation with one result or more; returns the name of the first."""

    def constant(self, name: str, value: np.ndarray) -> str:
        """Adds a constant, unless one of this name is there."""


def detect(writer: Writer, node: Detections, codes: str, scores: str, name: str) -> str:
    """Adds the node's results as "NAME/boxes", "NAME/classes", "NAME/scores" and "NAME/count"; returns NAME.

    Args:
      writer: of the model.
      node: the detections.
      codes: the value [N, A, 4].
      scores: the value [N, A, slots].
      name: what the names of all that is added begin with.
    """

    def add(kind: str, inputs: tuple[str, ...], output: str, **attributes) -> str:
        return writer.add(kind, inputs, f"{name}/{output}", **attributes)

    def ints(label: str, *values: int) -> str:
        return writer.constant(f"{name}/{label}", np.array(values, np.int64))

    def number(label: str, value: float) -> str:
        return writer.constant(f"{name}/{label}", np.float32(value))

    limits = number("low", 0.0), number("high", 1.0)
    boxes = _decode(writer, node, codes, name)
    if node.clip_first:
        boxes = add("Clip", (boxes, *limits), "clipped")
    first = -node.num_classes
    scores = add("Slice", (scores, ints("first", first), ints("end", 2**31 - 1), ints("last_axis", -1)), "of_classes")
    columns = node.num_classes
    classes_of_anchors = None
    if not node.per_class:
        classes_of_anchors = add("ArgMax", (scores,), "best_class", axis=-1, keepdims=0)
        scores, columns = add("ReduceMax", (scores,), "best_score", axes=(-1,), keepdims=1), 1
    by_class = add("Transpose", (scores,), "by_class", perm=(0, 2, 1))  # [N, columns, A]
    kept = add(
        "NonMaxSuppression",
        (
            boxes,
            by_class,
            ints("most", node.max_detections),
            number("overlap", node.iou_threshold),
            number("threshold", node.score_threshold),
        ),
        "kept",
    )
    zeros = add("ConstantOfShape", (add("Shape", (by_class,), "shape"),), "zeros")  # float32
    alive = add("ScatterND", (zeros, kept, add("GatherND", (by_class, kept), "kept_scores")), "alive")
    num_anchors = len(node.anchors)
    flat = add("Reshape", (alive, ints("flat_shape", 0, columns * num_anchors)), "flat")
    places = f"{name}/places"
    values = writer.add("TopK", (flat, ints("wanted", node.max_detections)), f"{name}/values", places)
    anchors_axis = ints("num_anchors", num_anchors)
    anchor = add("Mod", (places, anchors_axis), "anchor")
    if classes_of_anchors is None:
        found = add("Div", (places, anchors_axis), "class")
    else:
        found = add("GatherElements", (classes_of_anchors, anchor), "class", axis=1)
    taken = add("GatherND", (boxes, add("Unsqueeze", (anchor, ints("last", -1)), "box_places")), "taken", batch_dims=1)
    there = add("Cast", (add("Greater", (values, limits[0]), "there"),), "mask", to=1)
    cut = add("Clip", (taken, *limits), "cut")
    add("Mul", (cut, add("Unsqueeze", (there, ints("last", -1)), "column")), "boxes")
    add("Mul", (add("Cast", (found,), "class_number", to=1), there), "classes")
    add("Identity", (values,), "scores")
    add("ReduceSum", (there, ints("axis_1", 1)), "count", keepdims=0)
    return name


def _decode(writer: Writer, node: Detections, codes: str, name: str) -> str:
    """Adds boxes [N, A, 4] in shares of the sides."""
    anchors = centred_anchors(node)

    def add(kind: str, inputs: tuple[str, ...], output: str, **attributes) -> str:
        return writer.add(kind, inputs, f"{name}/{output}", **attributes)

    def constant(label: str, value: np.ndarray) -> str:
        return writer.constant(f"{name}/{label}", np.asarray(value, np.float32))

    def part(label: str, start: int, stop: int) -> str:
        bounds = (
            writer.constant(f"{name}/{label}_{end}", np.array([at])) for end, at in (("from", start), ("to", stop))
        )
        return add("Slice", (codes, *bounds, writer.constant(f"{name}/last_axis", np.array([-1]))), label)

    moved = add("Mul", (part("moved", 0, 2), constant("step", anchors[:, 2:] / node.centre_scale)), "offset")
    centres = add("Add", (moved, constant("centres", anchors[:, :2])), "centre")
    logs = add("Mul", (part("grown", 2, 4), constant("size_step", 1 / node.size_scale)), "log_size")
    logs = add("Min", (logs, constant("largest", node.largest)), "log_size_cut")
    halves = add("Mul", (add("Exp", (logs,), "factor"), constant("half_sizes", anchors[:, 2:] / 2)), "half_size")
    low, high = (add(kind, (centres, halves), kind.lower()) for kind in ("Sub", "Add"))
    return add("Concat", (low, high), "decoded", axis=-1)
