"""What becomes of each kind of norm in a graph: numbers that a convolution takes in, or nodes of its own."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from mnet_jax.deploy import graph as g
from mnet_jax.models import plans


class Values(Protocol):
    """What a builder of graphs gives a norm: the network's variables."""

    shapes: dict[str, tuple[int, ...]]

    def value(self, collection: str, scope: tuple[str, ...], leaf: str) -> np.ndarray:
        """Returns one array as float64."""

    def add(self, kind: type[g.Node], name: str, inputs: tuple[str, ...], shape: tuple[int, ...], **fields) -> str:
        """Adds a node."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoldedNorm:
    """One of the two.

    Attributes:
      affine: (builder, norm, scope) -> (scale, shift), float64 [C], of a norm that is x * scale + shift at inference.
      nodes: (builder, norm, x, scope, name, activation=, after=) -> `name`, the last of the nodes that it adds: x
        normalised, times `after`, then the activation.
    """

    affine: Callable[..., tuple[np.ndarray, np.ndarray]] | None = None
    nodes: Callable[..., str] | None = None


def _batch_norm(builder: Values, norm: plans.BatchNorm, scope: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    scale = builder.value("params", scope, "scale") / np.sqrt(builder.value("batch_stats", scope, "var") + norm.epsilon)
    return scale, builder.value("params", scope, "bias") - builder.value("batch_stats", scope, "mean") * scale


def _rms_norm(
    builder: Values,
    norm: plans.RmsNorm,
    x: str,
    scope: tuple[str, ...],
    name: str,
    *,
    activation: str | None,
    after: np.ndarray | float,
) -> str:
    scale = (builder.value("params", scope, "scale") * after).astype(np.float32)
    fields = {"scale": scale, "epsilon": norm.epsilon, "activation": activation}
    return builder.add(g.RmsNorm, name, (x,), builder.shapes[x], **fields)


NORMS: dict[type[plans.Norm], FoldedNorm] = {
    plans.BatchNorm: FoldedNorm(affine=_batch_norm),
    plans.RmsNorm: FoldedNorm(nodes=_rms_norm),
}
