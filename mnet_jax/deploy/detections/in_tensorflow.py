"""Detections in TensorFlow, for a SavedModel of any batch: one operation where classes do not suppress each other."""

import numpy as np
import tensorflow as tf

from mnet_jax.deploy.detections.anchors import centred_anchors
from mnet_jax.deploy.graph import Detections


def detect(node: Detections, codes: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the results of the node by name, float32, for codes [N, A, 4] and scores [N, A, slots]."""
    boxes, scores = _decode(node, codes), scores[..., scores.shape[-1] - node.num_classes :]
    if node.clip_first:
        boxes = tf.clip_by_value(boxes, 0.0, 1.0)
    if node.per_class:
        found = tf.image.combined_non_max_suppression(
            boxes[:, :, None],
            scores,
            max_output_size_per_class=node.max_detections,
            max_total_size=node.max_detections,
            iou_threshold=node.iou_threshold,
            score_threshold=node.score_threshold,
        )
        parts = (found.nmsed_boxes, found.nmsed_classes, found.nmsed_scores, tf.cast(found.valid_detections, "float32"))
    else:
        row = tf.TensorSpec((node.max_detections,), "float32")
        shapes = (tf.TensorSpec((node.max_detections, 4), "float32"), row, row, tf.TensorSpec((), "float32"))
        parts = tf.map_fn(lambda image: _best_classes(node, *image), (boxes, scores), fn_output_signature=shapes)
    boxes, *others = parts
    return dict(zip(("boxes", "classes", "scores", "count"), (tf.clip_by_value(boxes, 0.0, 1.0), *others), strict=True))


def _decode(node: Detections, codes: tf.Tensor) -> tf.Tensor:
    """Returns boxes [N, A, 4] in shares of the sides."""
    anchors = centred_anchors(node)
    centres = codes[..., :2] * (anchors[:, 2:] / np.float32(node.centre_scale)) + anchors[:, :2]
    sizes = tf.exp(tf.minimum(codes[..., 2:] * np.float32(1 / node.size_scale), node.largest)) * anchors[:, 2:]
    return tf.concat([centres - sizes / 2, centres + sizes / 2], -1)


def _best_classes(node: Detections, boxes: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns one image's boxes [D, 4], classes [D], scores [D] and count, each anchor with its best class."""
    best = tf.reduce_max(scores, -1)
    kept = tf.image.non_max_suppression(
        boxes, best, node.max_detections, iou_threshold=node.iou_threshold, score_threshold=node.score_threshold
    )
    classes = tf.cast(tf.argmax(tf.gather(scores, kept), -1), "float32")
    free = node.max_detections - tf.size(kept)
    rows = [tf.pad(values, ((0, free),)) for values in (classes, tf.gather(best, kept))]
    boxes = tf.pad(tf.gather(boxes, kept), ((0, free), (0, 0)))
    return (
        tf.ensure_shape(boxes, (node.max_detections, 4)),
        *(tf.ensure_shape(row, (node.max_detections,)) for row in rows),
        tf.cast(tf.size(kept), "float32"),
    )
