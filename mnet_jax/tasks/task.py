"""What a task is: the interface by which the loop, the step, evaluation, checkpoints and commands know it.

They see a pytree of outputs, a loss an example, sums and rows, and (name, value) pairs; what those mean is the task's.
Nothing here knows files or devices.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models.compute import Compute
from mnet_jax.models.plans import ModelPlan

Tree = Any  # a pytree of arrays
Batch = Mapping[str, jax.Array]  # image uint8 [B, H, W, 3], mask float32 [B], index int32 [B], and the annotations


@dataclasses.dataclass(frozen=True)
class Metric:
    """How one number of an evaluation is shown and compared."""

    name: str  # in metrics.jsonl and in `checkpoint.best_metric`: "top1"
    label: str  # for people: "top-1"
    percent: bool = True  # a share in 0..1, shown as per cent
    higher_is_better: bool = True
    is_count: bool = False  # so many of the images: another as many would give another share

    def interval(self, value: float, num_images: int) -> tuple[float, float] | None:
        """Returns between which shares of all such images the value is with 95 % (Wilson's interval).

        None where the metric is no share of the images, or they are so many that its decimals stand (1,000).
        """
        if not self.is_count or not 0 < num_images < 1000:
            return None
        squared = 1.959964**2 / num_images  # the normal distribution's 97.5 %
        middle = (value + squared / 2) / (1 + squared)
        half = math.sqrt(squared * (value * (1 - value) + squared / 4)) / (1 + squared)
        return max(middle - half, 0.0), min(middle + half, 1.0)

    def show(self, value: float) -> str:
        """Returns the value as people read it: "97.50 %" or "0.1234"."""
        return f"{100 * value:.2f} %" if self.percent else f"{value:.4f}"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a step says about a batch: sums over its real examples, and one row an example.

    `sums` always holds "count", the number of real examples. Sums are added over the devices; rows, [B, ...] each, are
    collected from all of them for metrics that are no means (average precision).
    """

    sums: dict[str, jax.Array]
    rows: dict[str, jax.Array] = dataclasses.field(default_factory=dict)


class Meter(abc.ABC):
    """Adds up an evaluation on the host, in float64."""

    @abc.abstractmethod
    def add(self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """Takes what a step measured over all devices; rows are of real examples only, padding never comes here."""

    @abc.abstractmethod
    def result(self) -> dict[str, float]:
        """Returns all metrics by name, with "num_images"."""


class MeanMeter(Meter):
    """Means of the sums over all examples; what most metrics are."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = {}

    def add(self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """Adds the sums."""
        del rows
        for name, value in sums.items():
            self._totals[name] = self._totals.get(name, 0.0) + float(np.asarray(value))

    def result(self) -> dict[str, float]:
        """Returns each sum over the count of examples, and "num_images"."""
        count = self._totals.get("count", 0.0)
        means = {name: total / count for name, total in self._totals.items() if name != "count"} if count else {}
        return {**means, "num_images": round(count)}


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Returns (images - mean) / std by channel, float32, of pixels uint8 [B, H, W, 3]."""
    mean, std = (jnp.asarray(values, jnp.float32)[None, None, None] for values in (mean, std))
    return (images.astype(jnp.float32) - mean) / std


class Task(abc.ABC):
    """What is learned. Pure functions of their arguments: they run inside a pmapped step.

    A task's module `task` has `annotations(config) -> {field: Annotation}` and `build(config, info) -> Task`. The other
    modules of its folder are imported when they are used: `report` (what a run shows at its end), `predict` (outputs ->
    what people read, and pictures) and `export` (its head in an exported graph).
    """

    name: str
    annotations: Mapping[str, Any]  # field of a batch -> the kind of annotation (mnet_jax/data/annotations.py)
    metrics: tuple[Metric, ...]  # the first is the headline; `checkpoint.best_metric` names one
    more_metrics: tuple[Metric, ...] = ()  # others, shown by `mnet evaluate` and in metrics.jsonl, not line by line
    train_metrics: tuple[str, ...] = ()  # sums whose means are shown while training
    own_scopes: tuple[str, ...]  # the layers of the head: fresh on another task's weights, and all that learns on a
    # frozen backbone
    finetune: str | None = None  # the file of configs/ that goes on from a run with one's own photos

    class_thresholds: tuple[float, ...] | None = None  # the score from which each class is there, where several can be

    @property
    def class_scopes(self) -> tuple[str, ...]:
        """Of its own layers those that start fresh for other classes; all, unless a task says better."""
        return self.own_scopes

    @abc.abstractmethod
    def network(self, plan: ModelPlan, compute: Compute) -> nn.Module:
        """Returns the module: a backbone and the task's head. It has `plan` and `list_variables()`, as MobileNet has.

        Applied to inputs [B, ...] it returns any pytree of [B, ...] arrays.
        """

    def fitted(self, read: Callable[[str], np.ndarray]) -> "Task":
        """Returns the task with what it takes from the annotations of the training split, such as class weights.

        `read(field)` gives one annotation of all images, in the order of the split.
        """
        del read
        return self

    def advice(self, read: Callable[[str], np.ndarray], info: DatasetInfo) -> list[str]:
        """Returns lines of advice about the annotations of a folder of photos, such as that classes are unequal."""
        del read, info
        return []

    def evaluated(self, metrics: Mapping[str, float] | None) -> "Task":
        """Returns the task with what the evaluation of its checkpoint chose, such as thresholds.

        Args:
          metrics: of that evaluation; None: there was none.
        """
        del metrics
        return self

    @abc.abstractmethod
    def train_inputs(
        self, key: jax.Array, batch: Batch, positions: jax.Array, total: Callable[[jax.Array], jax.Array]
    ) -> tuple[jax.Array, Tree]:
        """Returns (inputs of the network, targets), both pytrees of [B, ...].

        Args:
          key: of the step; what is drawn depends on (key, position) only.
          batch: uint8 pixels and annotations.
          positions: int32 [B], the examples' numbers in the step over all devices.
          total: sums a scalar over the devices of the step, for what a loss is divided by (positive anchors, pixels
            that are not void): put into the targets, it makes the gradient the same for any number of parts and
            devices.
        """

    @abc.abstractmethod
    def eval_inputs(self, batch: Batch) -> jax.Array:
        """Returns the inputs of the network in evaluation, [B, ...]."""

    @abc.abstractmethod
    def loss(self, outputs: Tree, targets: Tree) -> jax.Array:
        """Returns the loss of each example, float32 [B]; its mean is minimised."""

    @abc.abstractmethod
    def measure(self, outputs: Tree, batch: Batch) -> Measured:
        """Returns what the outputs come to against the annotations of the batch."""

    def meter(self) -> Meter:
        """Returns a meter for one evaluation."""
        return MeanMeter()

    def metric(self, name: str | None) -> Metric:
        """Returns the metric of this name, or the headline for None.

        Raises:
          ValueError: if the task has no such metric.
        """
        if name is None:
            return self.metrics[0]
        for metric in self.metrics:
            if metric.name == name:
                return metric
        from mnet_jax.errors import did_you_mean

        names = [metric.name for metric in self.metrics]
        raise ValueError(
            f"checkpoint.best_metric={name!r}: the task {self.name} has {', '.join(names)}.{did_you_mean(name, names)}"
        )
