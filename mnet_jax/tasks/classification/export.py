"""Classification in an exported file: the classifier's nodes, and what they give."""

from collections.abc import Sequence
from typing import Any

from mnet_jax.errors import check_choice
from mnet_jax.tasks.classification.network import Classifier
from mnet_jax.tasks.output import Output

OUTPUTS = ("probabilities", "logits")  # what a file can give; the first, unless it is asked for another


def head(graph: Any, network: Classifier, output: str) -> dict[str, str]:
    """Adds the classifier to a graph, and returns the node of its result by name.

    Args:
      graph: a `deploy.fold.Backbone`.
      network: whose layers are added.
      output: "probabilities" or "logits", float32 [N, num_classes].

    Raises:
      ValueError: if it is neither.
    """
    check_choice("output", output, OUTPUTS)
    x = graph.conv(network.plan.classifier, graph.embedding())
    x = graph.flatten("logits", x)
    return {output: x if output == "logits" else graph.softmax("probabilities", x)}


def describe(output: str, class_names: Sequence[str]) -> dict[str, Output]:
    """Returns what is to be said of the result that `head` names `output`."""
    text = f"{output} of the {len(class_names)} classes"
    if output == "logits":
        return {output: Output(title="logits", text=text, per_class=True)}
    return {output: Output(title="probability", text=text, range=(0.0, 1.0), per_class=True)}
