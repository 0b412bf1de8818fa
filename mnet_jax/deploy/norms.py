"""What becomes of each kind of norm in a graph: numbers that a convolution takes in, or nodes of its own."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from mnet_jax.models import plans


class Values(Protocol):
    """What a builder of graphs gives a norm: the network's variables."""

    def value(self, collection: str, scope: tuple[str, ...], leaf: str) -> np.ndarray:
        """Returns one array as float64."""


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


NORMS: dict[type[plans.Norm], FoldedNorm] = {plans.BatchNorm: FoldedNorm(affine=_batch_norm)}
