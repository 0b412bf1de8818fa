"""A trained model as every other part is handed it, and from a config to its network and its task."""

import dataclasses
from typing import Any

import flax.linen as nn
import ml_collections

from mnet_jax import tasks
from mnet_jax.data.annotations import Annotation
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models.compute import Compute
from mnet_jax.models.resolve import resolve_section
from mnet_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedAccuracy:
    """The accuracy that somebody published for weights, in percent of ImageNet's validation images, single crop."""

    top1: float
    top5: float | None
    image_size: int  # pixels of a side
    source: str  # where it is published


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model, with all that is needed to use it alone.

    Weights without a classifier ("no top") have `info.num_classes == 0` and no class names; their `variables` lack
    the scope "classifier", and "head" where the file lacks that too.
    """

    variables: dict[str, Any]  # {"params", "batch_stats"} of NumPy float32 arrays
    config: ml_collections.ConfigDict  # `model`, `data` and `task` say how to build it and how to prepare its images
    info: DatasetInfo
    step: int  # completed updates; 0 for published weights
    metrics: dict[str, float] | None  # of the run's own evaluation then
    path: str  # where it was read from
    published: bool = False  # somebody else's weights, from `mnet_jax.pretrained`
    accuracy: PublishedAccuracy | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name for each class that the model knows."""
        return self.info.class_names

    @property
    def has_head(self) -> bool:
        """Whether there is a classifier, or whatever the task's head is; "no top" weights have none."""
        return bool(self.info.class_names)

    def same_classes(self, info: DatasetInfo) -> bool:
        """Returns whether a data set has the same classes in the same order."""
        return self.info.class_names == info.class_names


def build_model(
    config: ml_collections.ConfigDict, info: DatasetInfo, *, task: Task | None = None, axis_name: str | None = None
) -> nn.Module:
    """Returns the network of a config: a backbone with the head of its task for the classes of `info`.

    Args:
      config: its section `model` names the architecture.
      info: of the data set.
      task: from `build_task`; None: it is built here.
      axis_name: that of the devices, used where `model.norm_sync` is on.
    """
    section = config.model
    plan = resolve_section(section, quantize_range_decay=config.quantize.range_decay if config.quantize.train else None)
    compute = Compute(section.dtype, axis_name if section.norm_sync else None, section.norm_frozen)
    return (task or build_task(config, info)).network(plan, compute)


def annotations(config: ml_collections.ConfigDict) -> dict[str, Annotation]:
    """Returns the kinds of annotation that the config's task learns from, by their field in a batch."""
    return tasks.face(config.task.name, "task").annotations(config)


def task_of(trained: Trained, config: ml_collections.ConfigDict | None = None) -> Task:
    """Returns the task of a trained model, with what its evaluation chose; `config`: in place of its own."""
    return build_task(trained.config if config is None else config, trained.info).evaluated(trained.metrics)


def build_task(config: ml_collections.ConfigDict, info: DatasetInfo) -> Task:
    """Returns the task that `config.task` names, for the classes and the pixel statistics of `info`.

    Raises:
      ValueError: if there is no such task, or it cannot follow what the config asks for.
    """
    return tasks.face(config.task.name, "task").build(config, info)
