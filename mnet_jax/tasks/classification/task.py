"""Image classification: what a batch turns into, the loss, and the metrics."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mnet_jax.augment.apply import augment_images
from mnet_jax.augment.mixing import mix
from mnet_jax.augment.settings import Augmentation
from mnet_jax.data.annotations import Label
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models.compute import Compute
from mnet_jax.models.mobilenet import SCOPE
from mnet_jax.models.plans import ModelPlan, with_classifier
from mnet_jax.tasks.classification.network import Classifier
from mnet_jax.tasks.task import Batch, Measured, Metric, Task, normalise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """One label an image.

    Batches hold label int32 [B]. In place of image they may have embedding float32 [B, F], what an earlier run of the
    network made of it: these are inputs as they are, without augmentation.
    """

    name: ClassVar[str] = "classification"
    finetune: ClassVar[str] = "finetune.py"
    annotations: ClassVar[dict[str, Label]] = {"label": Label()}
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("top1", "top-1", is_count=True),
        Metric("top5", "top-5"),
        Metric("loss", "loss", percent=False, higher_is_better=False),
    )
    train_metrics: ClassVar[tuple[str, ...]] = ("top1",)
    own_scopes: ClassVar[tuple[str, ...]] = ("classifier",)

    num_classes: int
    mean: tuple[float, float, float]  # per channel, of pixels in 0..255
    std: tuple[float, float, float]
    label_smoothing: float = 0.0
    augment: Augmentation = Augmentation()
    class_weights: tuple[float, ...] | None = None  # what each class counts for in the loss of training; None: 1
    balanced: bool = False  # take the class weights from the training split

    def __post_init__(self) -> None:
        if not isinstance(self.augment, Augmentation):
            object.__setattr__(self, "augment", Augmentation(**self.augment))
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != 3 or not np.all(np.isfinite(values)) or (name == "std" and min(values) <= 0):
                raise ValueError(f"data.{name} is {values}; it must be three numbers{' above 0' * (name == 'std')}")
            object.__setattr__(self, name, values)
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}; it must be at least 1")
        if self.class_weights is not None and len(self.class_weights) != self.num_classes:
            raise ValueError(f"{len(self.class_weights)} class weights for {self.num_classes} classes")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"task.label_smoothing is {self.label_smoothing}; it must be from 0 to below 1")

    def network(self, plan: ModelPlan, compute: Compute) -> nn.Module:
        """Returns the backbone with one logit a class; outputs float32 [B, num_classes]."""
        return Classifier(with_classifier(plan, self.num_classes), compute, name=SCOPE)

    def fitted(self, read: Callable[[str], np.ndarray]) -> "Classification":
        """Returns the task with class weights from the labels of the training split, where the config asks for them."""
        if not self.balanced:
            return self
        return dataclasses.replace(self, class_weights=balanced_weights(read("label"), self.num_classes))

    def advice(self, read: Callable[[str], np.ndarray], info: DatasetInfo) -> list[str]:
        """Returns a line where a class has three times as many photos to learn from as another."""
        if self.balanced:
            return []
        counts = np.bincount(read("label"), minlength=self.num_classes)
        most, fewest = int(counts.argmax()), int(np.where(counts, counts, counts.max() + 1).argmin())
        if counts[most] < 3 * counts[fewest]:
            return []
        return [
            f"{info.class_names[most]} has {counts[most]:,} photos to learn from, {info.class_names[fewest]} "
            f"{counts[fewest]:,}: with --config.task.class_weights=balanced each class counts the same"
        ]

    def train_inputs(
        self, key: jax.Array, batch: Batch, positions: jax.Array, total: Callable[[jax.Array], jax.Array] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns augmented inputs float32 [B, H, W, 3] and soft targets float32 [B, num_classes] with the smoothing.

        Mixing draws its weight from the key and pairs examples within this batch. Targets are multiplied with the
        weight of their class, and so is the loss.
        """
        del total  # each example's loss stands by itself
        if "embedding" in batch:
            return batch["embedding"], self._targets(batch)
        image_key, mix_key = jax.random.split(key)
        fill = tuple(min(255, max(0, round(value))) for value in self.mean)
        images = augment_images(image_key, batch["image"], positions, self.augment, fill=fill)
        return mix(mix_key, normalise(images, self.mean, self.std), self._targets(batch), self.augment)

    def eval_inputs(self, batch: Batch) -> jax.Array:
        """Returns normalised inputs float32 [B, H, W, 3], or the embeddings."""
        if "embedding" in batch:
            return batch["embedding"]
        return normalise(batch["image"], self.mean, self.std)

    def loss(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Returns the cross entropy float32 [B] between logits and soft targets, both [B, num_classes]."""
        return -jnp.sum(targets * jax.nn.log_softmax(outputs.astype(jnp.float32)), axis=-1)

    def measure(self, outputs: jax.Array, batch: Batch) -> Measured:
        """Returns sums over the real examples: loss (cross entropy without smoothing), top1, top5, count.

        An example counts as right only if its label's logit is greater than all others (top 5: than all but four), so a
        tie counts as wrong; so does a row that holds a NaN, and it makes the loss NaN. With fewer than five classes
        top5 means all of them.
        """
        logits = outputs.astype(jnp.float32)
        label = batch["label"][:, None] == jnp.arange(self.num_classes)[None, :]
        label_logit = jnp.sum(jnp.where(label, logits, 0), axis=-1, keepdims=True)
        rank = jnp.sum(~label & ~(label_logit > logits), axis=-1)
        valid = jnp.any(label, axis=-1) & ~jnp.any(jnp.isnan(logits), axis=-1)
        loss = -jnp.sum(jnp.where(label, jax.nn.log_softmax(logits), 0), axis=-1)
        loss = jnp.where(jnp.any(label, axis=-1), loss, jnp.nan)
        real = _real(batch)

        def total(values: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(real, values.astype(jnp.float32), 0))

        return Measured(
            {
                "loss": total(loss),
                "top1": total(valid & (rank < 1)),
                "top5": total(valid & (rank < 5)),
                "count": total(jnp.ones_like(loss)),
            }
        )

    def _targets(self, batch: Batch) -> jax.Array:
        """Smoothed one-hot rows; a padded example gets zeros (no loss, no gradient), an impossible label NaN."""
        one_hot = (batch["label"][:, None] == jnp.arange(self.num_classes)[None, :]).astype(jnp.float32)
        targets = one_hot * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes
        if self.class_weights is not None:
            weights = jnp.asarray(self.class_weights, jnp.float32)[None]
            targets *= jnp.sum(one_hot * weights, axis=-1, keepdims=True)
        targets = jnp.where(jnp.any(one_hot > 0, axis=-1, keepdims=True), targets, jnp.nan)
        return jnp.where(_real(batch)[:, None], targets, 0)


def annotations(config: ml_collections.ConfigDict) -> dict[str, Label]:
    """Returns the field "label"."""
    del config
    return dict(Classification.annotations)


def build(config: ml_collections.ConfigDict, info: DatasetInfo) -> Classification:
    """Returns the task with the config's augmentation and smoothing, and its pixel statistics or the data set's."""
    return Classification(
        num_classes=info.num_classes,
        label_smoothing=config.task.label_smoothing,
        balanced=config.task.class_weights == "balanced",
        mean=info.mean if config.data.mean is None else tuple(config.data.mean),
        std=info.std if config.data.std is None else tuple(config.data.std),
        augment=config.augment,
    )


def balanced_weights(labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
    """Returns weights N / (classes * n of the class), with which each class counts the same; their mean an image is 1.

    A class without images has 0.
    """
    counts = np.bincount(labels, minlength=num_classes)
    return tuple(float(len(labels) / (num_classes * count)) if count else 0.0 for count in counts)


def _real(batch: Batch) -> jax.Array:
    """Bool [B]: which examples are not padding."""
    return batch["mask"] > 0 if "mask" in batch else jnp.ones(batch["label"].shape, bool)
