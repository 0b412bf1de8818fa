"""Detections in JAX: the rules by which the model itself is evaluated, whole."""

import jax
import jax.numpy as jnp

from mnet_jax.deploy.graph import Detections
from mnet_jax.tasks.detection import coding
from mnet_jax.tasks.detection.suppression import Suppression


def detect(node: Detections, codes: jax.Array, scores: jax.Array) -> dict[str, jax.Array]:
    """Returns the results of the node by name, float32, for codes [N, A, 4] and scores [N, A, slots]."""
    rule = coding.Coding(centre_scale=node.centre_scale, size_scale=node.size_scale, largest=node.largest)
    suppression = Suppression(
        score_threshold=node.score_threshold,
        iou_threshold=node.iou_threshold,
        per_class=node.per_class,
        candidates=node.candidates,
        max_detections=node.max_detections,
    )
    boxes = rule.decode(codes, jnp.asarray(node.anchors))
    if node.clip_first:
        boxes = coding.clip(boxes, node.image_size)
    found = suppression(boxes, scores[..., scores.shape[-1] - node.num_classes :])
    sides = jnp.array((*node.image_size, *node.image_size), jnp.float32).reshape(1, 1, 4)
    return {
        "boxes": coding.clip(found["boxes"], node.image_size) / sides,
        "classes": found["classes"].astype(jnp.float32),
        "scores": found["scores"],
        "count": found["count"].astype(jnp.float32),
    }
