"""The classifier's nodes in an exported file, with a sigmoid for each class, and what they give."""

from collections.abc import Sequence
from typing import Any

import jax

from mnet_jax.errors import check_choice
from mnet_jax.tasks.classification.network import Classifier
from mnet_jax.tasks.multilabel.agreement import LabelComparison
from mnet_jax.tasks.multilabel.task import MultiLabel
from mnet_jax.tasks.output import Output

OUTPUTS = ("probabilities", "logits")  # what a file can give; the first, unless it is asked for another
UNSET: dict[str, object] = {}  # fields of the section `task` that files have where a config leaves them open


def head(graph: Any, network: Classifier, task: MultiLabel, output: str) -> dict[str, str]:
    """Adds the classifier to a graph, and returns the node of its result by name.

    Args:
      graph: a `deploy.fold.Backbone`.
      network: whose layers are added.
      task: not needed here: the thresholds are in the file's metadata.
      output: "probabilities", of each class by itself, or "logits", float32 [N, C].

    Raises:
      ValueError: if it is neither.
    """
    del task
    check_choice("output", output, OUTPUTS)
    x = graph.flatten("logits", graph.conv(network.plan.classifier, graph.embedding()))
    return {output: x if output == "logits" else graph.sigmoid("probabilities", x)}


def results(task: MultiLabel, outputs: jax.Array, output: str) -> jax.Array:
    """Returns what a file gives for the network's outputs, logits float32 [N, C]."""
    del task
    return jax.nn.sigmoid(outputs) if output == "probabilities" else outputs


def compare(task: MultiLabel, output: str) -> LabelComparison:
    """Returns an empty comparison of a file's scores with the network's."""
    return LabelComparison(output, task.class_thresholds)


def describe(output: str, class_names: Sequence[str]) -> dict[str, Output]:
    """Returns what is to be said of the result that `head` names `output`."""
    text = f"{output} of the {len(class_names)} classes, each by itself"
    if output == "logits":
        return {output: Output(title="logits", text=text, labels="axis")}
    return {output: Output(title="probability", text=text, range=(0.0, 1.0), labels="axis", thresholds=True)}
