"""What a plan's variables are, and the kinds of norms that a network can have. Pure Python, no jax."""

import abc
import dataclasses
import math


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variable:
    """One array, float32; starts as `mean` plus a normal distribution of `deviation`."""

    collection: str  # "params" or "batch_stats"
    path: tuple[str, ...]  # scopes and leaf, such as ("block_03", "depthwise", "norm", "scale")
    shape: tuple[int, ...]
    mean: float = 0.0
    deviation: float = 0.0

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


class Norm(abc.ABC):
    """What normalises the layers of a network; one kind in each network.

    A kind is a record of its settings, here, with its module (`layers.NORMS`), its form in an exported graph
    (`deploy/norms.py`) and its leaves' names in published files (`pretrained/layouts.py`).
    """

    @abc.abstractmethod
    def variables(self, features: int, scope: tuple[str, ...]) -> list[Variable]:
        """Returns the variables that normalise `features` channels, in `scope`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchNorm(Norm):
    """Batch normalisation: running averages keep `decay` of themselves a step, `epsilon` is added to the variance."""

    decay: float
    epsilon: float

    def variables(self, features: int, scope: tuple[str, ...]) -> list[Variable]:
        """Returns scale and bias, which are learned, and the running mean and variance."""
        leaves = (
            ("params", "scale", 1.0),
            ("params", "bias", 0.0),
            ("batch_stats", "mean", 0.0),
            ("batch_stats", "var", 1.0),
        )
        return [
            Variable(collection=collection, path=(*scope, leaf), shape=(features,), mean=mean)
            for collection, leaf, mean in leaves
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RmsNorm(Norm):
    """Over the channels of each position, divided by the root of their mean square, to which `epsilon` is added."""

    epsilon: float

    def variables(self, features: int, scope: tuple[str, ...]) -> list[Variable]:
        """Returns the scale, which is learned; there are no statistics."""
        return [Variable(collection="params", path=(*scope, "scale"), shape=(features,), mean=1.0)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantization:
    """Training with int8 rounding: observed ranges keep `range_decay` of themselves a step (fake_quantization.py)."""

    range_decay: float
