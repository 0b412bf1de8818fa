"""Detection in an exported file: the head's nodes, suppression, and what they give."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mnet_jax.errors import check_choice
from mnet_jax.models.heads.neck import NeckPlan
from mnet_jax.tasks.detection.agreement import BoxComparison
from mnet_jax.tasks.detection.network import Detector
from mnet_jax.tasks.detection.task import Detection
from mnet_jax.tasks.output import Output

OUTPUTS = ("detections",)  # what a file can give
# Fields of the section `task` that files have where a config leaves them to the head. TFLite's operation looks at all
# scores of a class above the threshold, and at 1e-8, good for average precision, it takes five times as long as the
# network (V1 0.75 with 90 classes, one thread: 92 ms beside 17; at .05 half of one).
UNSET = {"score_threshold": 0.05}
_GROUP = "detection result"


def head(graph: Any, network: Detector, task: Detection, output: str) -> dict[str, str]:
    """Adds the head and the suppression to a graph, and returns the nodes of its results by name.

    In the order of TFLite_Detection_PostProcess: "boxes" [N, D, 4] (y1, x1, y2, x2 as shares of the image's sides),
    "classes" [N, D], "scores" [N, D], "count" [N], float32.

    Args:
      graph: a `deploy.fold.Backbone`.
      network: whose layers are added.
      task: its anchors and its suppression; for images of the graph's size.
      output: "detections".

    Raises:
      ValueError: if it is something else.
    """
    check_choice("output", output, OUTPUTS)
    plan, maps = network.head_plan, [graph.tap(tap.path) for tap in network.head_plan.taps]
    if plan.neck is not None:
        maps = _pyramid(graph, plan.neck, maps)
    for layers in plan.extras:
        maps.append(graph.in_order(layers, maps[-1]))
    parts: dict[str, list[str]] = {"codes": [], "logits": []}
    for level, (classes, boxes, x) in enumerate(zip(plan.classes, plan.boxes, maps, strict=True)):
        shared = 0  # layers of a tower that both look at
        while classes[shared].name == boxes[shared].name:
            shared += 1
        x = graph.in_order(classes[:shared], x, f"{level}")
        for name, layers, numbers in (("codes", boxes, 4), ("logits", classes, plan.num_slots)):
            last = graph.in_order(layers[shared:], x, f"{level}")
            parts[name].append(graph.rows(f"head/{name}/{level}", last, numbers))
    codes, logits = (graph.concat(f"head/{name}", rows) for name, rows in parts.items())
    scores = graph.softmax("head/scores", logits) if plan.scores == "softmax" else graph.sigmoid("head/scores", logits)
    rule, coding = task.suppression, task.coding
    return graph.detections(
        codes,
        scores,
        anchors=task.anchors,
        image_size=task.image_size,
        num_classes=task.num_classes,
        centre_scale=coding.centre_scale,
        size_scale=coding.size_scale,
        largest=coding.largest,
        clip_first=plan.scores == "softmax",
        score_threshold=rule.score_threshold,
        iou_threshold=rule.iou_threshold,
        per_class=rule.per_class,
        candidates=rule.candidates,
        max_detections=min(rule.max_detections, len(task.anchors) * (task.num_classes if rule.per_class else 1)),
    )


def results(task: Detection, outputs: dict[str, jax.Array], output: str) -> dict[str, jax.Array]:
    """Returns what a file gives for the network's outputs, by the names and in the units of `head`."""
    del output
    found = task.detect(outputs)
    sides = jnp.array((*task.image_size, *task.image_size), jnp.float32).reshape(1, 1, 4)
    return {
        "boxes": found["boxes"] / sides,
        "classes": found["classes"].astype(jnp.float32),
        "scores": found["scores"],
        "count": found["count"].astype(jnp.float32),
    }


def compare(task: Detection, output: str) -> BoxComparison:
    """Returns an empty comparison of a file's detections with the network's."""
    del output
    return BoxComparison(task.image_size)


def describe(output: str, class_names: Sequence[str]) -> dict[str, Output]:
    """Returns what is to be said of each of the results of `head`, by name; titles are those that task libraries want.

    Args:
      output: "detections".
      class_names: of the classes.
    """
    del output
    number = f"its class, a number from 0 to {len(class_names) - 1}"
    return {
        "boxes": Output(
            title="location", text="a box: top, left, bottom, right, in 0..1 of the image", boxes=True, group=_GROUP
        ),
        "classes": Output(title="category", text=number, labels="values", group=_GROUP),
        "scores": Output(title="score", text="how sure it is, falling", range=(0.0, 1.0), group=_GROUP),
        "count": Output(title="number of detections", text="how many of the rows are detections"),
    }


def _pyramid(graph: Any, neck: NeckPlan, taps: list[str]) -> list[str]:
    """Adds the maps of a feature pyramid, and returns their nodes from the finest."""
    above, maps = None, []
    for x, lateral, smoothing in reversed(list(zip(taps, neck.laterals, neck.smoothing, strict=True))):
        x = graph.in_order(lateral, x)
        if above is not None:
            x = graph.add_twice(f"{lateral[-1].name}/sum", x, above)
        smooth = graph.in_order(smoothing, x)
        above = smooth if neck.smoothed_goes_down else x
        maps.insert(0, smooth)
    for index, layers in enumerate(neck.coarser):
        x = maps[-1]
        if index and neck.between is not None:
            x = graph.activation(f"{layers[-1].name}/before", x, neck.between)
        maps.append(graph.in_order(layers, x))
    return [graph.in_order(layers, x) for layers, x in zip(neck.final, maps, strict=True)]
