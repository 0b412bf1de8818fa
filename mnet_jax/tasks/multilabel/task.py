"""Any number of labels an image: what a batch turns into, the loss, the metrics, and the thresholds of the classes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mnet_jax.augment.apply import augment_images
from mnet_jax.augment.mixing import mix
from mnet_jax.augment.settings import Augmentation
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.label_set import LabelSet
from mnet_jax.models.compute import Compute
from mnet_jax.models.mobilenet import SCOPE
from mnet_jax.models.plans import ModelPlan, with_classifier
from mnet_jax.tasks.classification.network import Classifier
from mnet_jax.tasks.multilabel.meter import MultiLabelMeter
from mnet_jax.tasks.task import Batch, Measured, Meter, Metric, Task, Tree, normalise

_HALF = 0.5  # from which score a class is there that nobody has said anything of


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(Task):
    """Any number of labels an image, by a sigmoid for each class.

    Batches hold labels uint8 [B, C]. In place of image they may have embedding float32 [B, F], as in classification.
    """

    name: ClassVar[str] = "multilabel"
    finetune: ClassVar[str] = "finetune_multilabel.py"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("map", "mAP"),
        Metric("f1_macro", "macro F1"),
        Metric("f1_micro", "micro F1"),
        Metric("loss", "loss", percent=False, higher_is_better=False),
    )
    own_scopes: ClassVar[tuple[str, ...]] = ("classifier",)

    class_names: tuple[str, ...]
    mean: tuple[float, float, float]  # per channel, of pixels in 0..255
    std: tuple[float, float, float]
    label_smoothing: float = 0.0
    augment: Augmentation = Augmentation()
    positive_weights: tuple[float, ...] | None = None  # what it counts in training that a class is there; None: 1
    balanced: bool = False  # take them from the training split
    threshold: float | None = None  # of all classes; None: each class has its own
    thresholds: tuple[float, ...] | None = None  # that an evaluation chose

    def __post_init__(self) -> None:
        if not isinstance(self.augment, Augmentation):
            object.__setattr__(self, "augment", Augmentation(**self.augment))
        if self.positive_weights is not None and len(self.positive_weights) != len(self.class_names):
            raise ValueError(f"{len(self.positive_weights)} positive weights for {len(self.class_names)} classes")

    @property
    def annotations(self) -> dict[str, LabelSet]:
        """The field "labels"."""
        return {"labels": LabelSet(num_classes=len(self.class_names))}

    @property
    def more_metrics(self) -> tuple[Metric, ...]:
        """The average precision of each class."""
        return tuple(Metric(f"ap_{name}", name) for name in self.class_names)

    @property
    def class_thresholds(self) -> tuple[float, ...]:
        """The score from which each class is there: what the config says, or an evaluation chose, or one half."""
        if self.threshold is not None:
            return (self.threshold,) * len(self.class_names)
        return self.thresholds or (_HALF,) * len(self.class_names)

    def network(self, plan: ModelPlan, compute: Compute) -> nn.Module:
        """Returns the backbone with one logit a class; outputs float32 [B, C]."""
        return Classifier(with_classifier(plan, len(self.class_names)), compute, name=SCOPE)

    def fitted(self, read: Callable[[str], np.ndarray]) -> "MultiLabel":
        """Returns the task with positive weights from the labels of the training split, where the config asks."""
        return dataclasses.replace(self, positive_weights=balanced_weights(read("labels"))) if self.balanced else self

    def evaluated(self, metrics: Mapping[str, float] | None) -> "MultiLabel":
        """Returns the task with the thresholds that the evaluation of a checkpoint chose."""
        names = [f"threshold_{name}" for name in self.class_names]
        if metrics is None or not all(name in metrics for name in names):
            return self
        return dataclasses.replace(self, thresholds=tuple(float(metrics[name]) for name in names))

    def advice(self, read: Callable[[str], np.ndarray], info: DatasetInfo) -> list[str]:
        """Returns a line where a class has no photo to learn from, or all have it."""
        counts, whole = read("labels").sum(0, dtype=np.int64), info.num_train
        lines = []
        for what, hit in (
            ("No photo to learn from has", counts == 0),
            ("Every photo to learn from has", counts == whole),
        ):
            names = [name for name, is_hit in zip(info.class_names, hit, strict=True) if is_hit]
            if names:
                lines.append(f"{what} {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}")
        return lines

    def train_inputs(
        self, key: jax.Array, batch: Batch, positions: jax.Array, total: Callable[[jax.Array], jax.Array] | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns augmented inputs float32 [B, H, W, 3], and targets.

        These are labels float32 [B, C], smoothed, mixed as the images are, and real float32 [B], 0 for padding. Of a
        mixture of two images both have their classes, by their shares of the pixels.
        """
        del total  # each example's loss stands by itself
        labels = batch["labels"].astype(jnp.float32) * (1 - self.label_smoothing) + self.label_smoothing / 2
        real = _real(batch).astype(jnp.float32)
        if "embedding" in batch:
            return batch["embedding"], {"labels": labels, "real": real}
        image_key, mix_key = jax.random.split(key)
        fill = tuple(min(255, max(0, round(value))) for value in self.mean)
        images = augment_images(image_key, batch["image"], positions, self.augment, fill=fill)
        inputs, labels = mix(mix_key, normalise(images, self.mean, self.std), labels, self.augment)
        return inputs, {"labels": labels, "real": real}

    def eval_inputs(self, batch: Batch) -> jax.Array:
        """Returns normalised inputs float32 [B, H, W, 3], or the embeddings."""
        if "embedding" in batch:
            return batch["embedding"]
        return normalise(batch["image"], self.mean, self.std)

    def loss(self, outputs: jax.Array, targets: Tree) -> jax.Array:
        """Returns the binary cross entropy float32 [B], summed over the classes: each learns as if it were alone.

        That a class is there counts times its positive weight, as `pos_weight` of PyTorch's BCEWithLogitsLoss.
        """
        logits, labels = outputs.astype(jnp.float32), targets["labels"]
        weights = jnp.asarray(self.positive_weights or (1.0,) * len(self.class_names), jnp.float32)[None]
        losses = weights * labels * jax.nn.softplus(-logits) + (1 - labels) * jax.nn.softplus(logits)
        return jnp.sum(losses, -1) * targets["real"]

    def measure(self, outputs: jax.Array, batch: Batch) -> Measured:
        """Returns the sum count, and in evaluation the rows index int32, logits float32 [C] and labels uint8 [C]."""
        sums = {"count": jnp.sum(_real(batch).astype(jnp.float32))}
        if "index" not in batch:  # in training on embeddings
            return Measured(sums)
        rows = {"index": batch["index"], "logits": outputs.astype(jnp.float32), "labels": batch["labels"]}
        return Measured(sums, rows)

    def meter(self) -> Meter:
        """Returns one whose thresholds are those that are known; in a run it chooses them anew each time."""
        known = self.threshold is not None or self.thresholds is not None
        return MultiLabelMeter(self.class_names, self.class_thresholds if known else None)


def annotations(config: ml_collections.ConfigDict) -> dict[str, LabelSet]:
    """Returns the field "labels"; the data set says how many classes there are."""
    del config
    return {"labels": LabelSet()}


def build(config: ml_collections.ConfigDict, info: DatasetInfo) -> MultiLabel:
    """Returns the task of a config, for the classes of a data set, without thresholds of its own."""
    data, section = config.data, config.task
    return MultiLabel(
        class_names=tuple(info.class_names),
        mean=info.mean if data.mean is None else tuple(data.mean),
        std=info.std if data.std is None else tuple(data.std),
        label_smoothing=section.label_smoothing,
        augment=config.augment,
        balanced=section.class_weights == "balanced",
        threshold=section.score_threshold,
    )


def balanced_weights(labels: np.ndarray) -> tuple[float, ...]:
    """Returns images without over images with each class of labels uint8 [N, C]; 1 where one of the two has none.

    Then it counts in all as much that a class is there as that it is not.
    """
    there = labels.sum(0, dtype=np.int64)
    absent = len(labels) - there
    return tuple(float(no / yes) if yes and no else 1.0 for yes, no in zip(there, absent, strict=True))


def _real(batch: Batch) -> jax.Array:
    """Bool [B]: which examples are not padding."""
    return batch["mask"] > 0 if "mask" in batch else jnp.ones(batch["labels"].shape[:1], bool)
