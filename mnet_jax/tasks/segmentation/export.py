"""Segmentation in an exported file: the head's nodes, and what they give."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mnet_jax.errors import check_choice
from mnet_jax.models.heads.masks import DeeplabPlan, LrasppPlan
from mnet_jax.models.ops.bilinear import upsample
from mnet_jax.tasks.output import Output
from mnet_jax.tasks.segmentation.agreement import MaskComparison
from mnet_jax.tasks.segmentation.network import Segmenter
from mnet_jax.tasks.segmentation.task import Segmentation
from mnet_jax.tasks.segmentation.views import ManyViews

# What a file can give: logits on the head's own grid, which MediaPipe and the Task Library enlarge themselves; the same
# at the input's size; or the number of each pixel's class, which these two refuse.
OUTPUTS = ("logits", "full_logits", "classes")
UNSET: dict[str, object] = {}  # fields of the section `task` that files have where a config leaves them open


def head(graph: Any, network: Segmenter, task: Segmentation, output: str) -> dict[str, str]:
    """Adds the head to a graph, and returns the node of its result by name.

    Args:
      graph: a `deploy.fold.Backbone`.
      network: whose layers are added, without its auxiliary head.
      task: not needed here.
      output: "logits", float32 [N, h, w, classes]; "full_logits", the same at the input's size; "classes", int32
        [N, H, W].

    Raises:
      ValueError: if it is none of these, or the network looks at an image several times.
    """
    del task
    check_choice("output", output, OUTPUTS)
    if isinstance(network, ManyViews):
        raise ValueError(
            "task.eval_scales and task.eval_flip look at an image several times, a file does once: "
            "give --task eval_scales=[1.0] --task eval_flip=false"
        )
    plan = network.head_plan
    x = (_lraspp if isinstance(plan, LrasppPlan) else _deeplab)(graph, plan)
    if output != "logits":
        x = graph.resize("full_logits", x, graph.image_size, align_corners=plan.align_corners)
    return {output: graph.largest("classes", x) if output == "classes" else x}


def results(task: Segmentation, outputs: dict[str, jax.Array], output: str) -> jax.Array:
    """Returns what a file gives for the network's outputs, in the shape that `head` says."""
    logits = outputs["classes"]
    if output != "logits":
        logits = upsample(logits, task.image_size, align_corners=task.head.align_corners)
    return jnp.argmax(logits, -1).astype(jnp.int32) if output == "classes" else logits


def compare(task: Segmentation, output: str) -> MaskComparison:
    """Returns an empty comparison of a file's result with the network's."""
    del task
    return MaskComparison(output)


def describe(output: str, class_names: Sequence[str]) -> dict[str, Output]:
    """Returns what is to be said of the result that `head` names `output`."""
    if output == "classes":
        return {output: Output(title="category", text="each pixel's class, a number from 0", labels="values")}
    text = f"logits of the {len(class_names)} classes at each position"
    return {output: Output(title="segmentation_masks", text=text, labels="axis", softmax=len(class_names) > 1)}


def _lraspp(graph: Any, plan: LrasppPlan) -> str:
    high, low = graph.tap(plan.high.path), graph.tap(plan.low.path)
    sides = graph.shapes[high][:2]
    if plan.pool is None or all(window >= side for window, side in zip(plan.pool[0], sides, strict=True)):
        pooled = graph.mean("mask_pool", high)
    else:
        window = tuple(min(window, side) for window, side in zip(plan.pool[0], sides, strict=True))
        pooled = graph.window_mean("mask_pool", high, window, plan.pool[1])
    linear = dataclasses.replace(plan.gate, activation=None)
    gate = graph.sigmoid("mask_gate/sigmoid", graph.conv(linear, pooled))
    if graph.shapes[gate][:2] != (1, 1):
        gate = graph.resize("mask_gate/resized", gate, sides, align_corners=plan.align_corners)
    x = graph.multiply("mask_gated", graph.conv(plan.project, high, norm=plan.norm), gate)
    x = graph.conv(plan.classes, x)
    x = graph.resize("mask_resized", x, graph.shapes[low][:2], align_corners=plan.align_corners)
    return graph.sum("mask_logits", x, graph.conv(plan.low_classes, low))


def _deeplab(graph: Any, plan: DeeplabPlan) -> str:
    high = graph.tap(plan.high.path)
    pooled = graph.conv(plan.pooled, graph.mean("mask_pool", high), norm=plan.norm)
    pooled = graph.resize("mask_pooled/spread", pooled, graph.shapes[high][:2], align_corners=plan.align_corners)
    branches = [graph.conv(layer, high, norm=plan.norm) for layer in (plan.local, *plan.wider)]
    x = graph.channels("mask_branches", [pooled, *branches] if plan.pooled_first else [*branches, pooled])
    x = graph.conv(plan.merge, x, norm=plan.norm)
    if plan.refine is not None:
        x = graph.conv(plan.refine, x, norm=plan.norm)
    return graph.conv(plan.classes, x)
