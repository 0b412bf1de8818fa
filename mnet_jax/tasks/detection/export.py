"""Detection in an exported file: the head's nodes, suppression, and what they give."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mnet_jax.errors import check_choice
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
    for layers in plan.extras:
        maps.append(_run(graph, layers, maps[-1]))
    codes = _rows(graph, "head/codes", plan.boxes, maps, 4)
    logits = _rows(graph, "head/logits", plan.classes, maps, plan.num_slots)
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


def _run(graph: Any, layers: tuple, x: str) -> str:
    for layer in layers:
        x = graph.conv(layer, x)
    return x


def _rows(graph: Any, name: str, branches: tuple, maps: list[str], numbers: int) -> str:
    """Adds one kind of prediction, [A, numbers]."""
    rows = []
    for index, (layers, x) in enumerate(zip(branches, maps, strict=True)):
        rows.append(graph.rows(f"{name}/{index}", _run(graph, layers, x), numbers))
    return graph.concat(name, rows)
