"""Semantic segmentation: a class for every pixel; what a batch turns into, the loss, and the metrics."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from mnet_jax.augment import randaugment
from mnet_jax.augment.apply import augment_images, check_effects
from mnet_jax.augment.settings import Augmentation, Effect
from mnet_jax.config import image_size
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.crop import Crop
from mnet_jax.data.pixel_map import PixelMap
from mnet_jax.models.compute import Compute
from mnet_jax.models.heads.mask_tables import find_mask_head
from mnet_jax.models.heads.masks import MaskHeadSpec, resolve_mask_head
from mnet_jax.models.plans import ModelPlan
from mnet_jax.models.resolve import resolve_section
from mnet_jax.tasks.segmentation import losses
from mnet_jax.tasks.segmentation.confusion import confusion
from mnet_jax.tasks.segmentation.meter import SegmentationMeter
from mnet_jax.tasks.segmentation.network import Segmenter
from mnet_jax.tasks.segmentation.views import ManyViews
from mnet_jax.tasks.task import Batch, Measured, Meter, Metric, Task, Tree, normalise

_RECOLOURS = frozenset({Effect.RECOLOURS})
_OPERATIONS = randaugment.operations_with(_RECOLOURS)
DEFAULT_HEAD = "lraspp_torchvision"  # the one of which weights are published
_LEAST_SCALE, _MOST_SCALE = 0.25, 4.0  # of an evaluation in several sizes


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation(Task):
    """A class for every pixel.

    Outputs of the network: classes float32 [B, h, w, C], logits on a grid over the image, and in training, where there
    is an auxiliary head, auxiliary float32 [B, h', w', C].
    """

    name: ClassVar[str] = "segmentation"
    finetune: ClassVar[str] = "finetune_masks.py"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("miou", "mIoU"),
        Metric("pixel_accuracy", "pixels"),
        Metric("class_accuracy", "classes"),
        Metric("loss", "loss", percent=False, higher_is_better=False),
    )
    train_metrics: ClassVar[tuple[str, ...]] = ("pixel_accuracy",)

    head: MaskHeadSpec
    output_stride: int | None = None  # None: the head's own
    own_scopes: tuple[str, ...]
    logit_scopes: tuple[str, ...]  # of these the layers that give logits
    class_names: tuple[str, ...]
    image_size: tuple[int, int]  # height and width of the input
    mean: tuple[float, float, float]  # per channel, of pixels in 0..255
    std: tuple[float, float, float]
    augment: Augmentation = Augmentation()
    balanced: bool = False  # whether `fitted` gives the classes weights
    class_weights: tuple[float, ...] | None = None  # None: 1 each
    auxiliary_weight: float = 0.0
    eval_scales: tuple[float, ...] = (1.0,)
    eval_flip: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.augment, Augmentation):
            object.__setattr__(self, "augment", Augmentation(**self.augment))
        check_effects(self.augment, self.name, follows=_RECOLOURS, operations=_OPERATIONS)

    @property
    def annotations(self) -> dict[str, PixelMap]:
        """The field "map"."""
        return {"map": PixelMap()}

    @property
    def class_scopes(self) -> tuple[str, ...]:
        """The layers that give logits; what lies below them holds for other classes too."""
        return self.logit_scopes

    @property
    def num_classes(self) -> int:
        """How many classes there are, with the background if there is one."""
        return len(self.class_names)

    @property
    def more_metrics(self) -> tuple[Metric, ...]:
        """The IoU of each class."""
        return tuple(Metric(f"iou_{name}", name) for name in self.class_names)

    def network(self, plan: ModelPlan, compute: Compute) -> nn.Module:
        """Returns the backbone with the head; one of several views, where evaluation has those."""
        head = resolve_mask_head(
            self.head,
            plan,
            self.num_classes,
            output_stride=self.output_stride,
            auxiliary=self.auxiliary_weight > 0,
        )
        if self.eval_scales == (1.0,) and not self.eval_flip:
            return Segmenter.for_plan(plan, compute, head)
        return ManyViews.of(plan, compute, head, self.eval_scales, self.eval_flip)

    def fitted(self, read: Callable[[str], np.ndarray]) -> "Segmentation":
        """Returns the task with the weights of its classes, where `task.class_weights` is "balanced".

        The median of the classes' shares of all pixels over a class's own (median frequency balancing, arXiv
        1411.4734, as SegNet takes it for CamVid); 1 for a class without pixels.
        """
        if not self.balanced:
            return self
        counts = read("map")[:, : self.num_classes].sum(0)
        median = np.median(counts[counts > 0]) if counts.any() else 1.0
        weights = np.where(counts > 0, median / np.maximum(counts, 1), 1.0)
        return dataclasses.replace(self, class_weights=tuple(weights.tolist()))

    def train_inputs(
        self, key: jax.Array, batch: Batch, positions: jax.Array, total: Callable[[jax.Array], jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns normalised inputs float32 [B, H, W, 3] in other colours, and targets.

        These are map uint8 [B, H, W], weights float32 [B, H, W], 0 where the map is void, and scale float32 [B]: what
        makes the mean of the losses their sum over the weights of all pixels of the step.
        """
        fill = tuple(min(255, max(0, round(value))) for value in self.mean)
        images = augment_images(key, batch["image"], positions, self.augment, fill=fill, operations=_OPERATIONS)
        weights = self._weights(batch)
        num_images = total(jnp.array(len(images), jnp.float32))
        pixels = total(jnp.sum(weights))
        # Of a step of void alone all losses are 0, whatever they are multiplied with.
        scale = jnp.broadcast_to(num_images / jnp.where(pixels > 0, pixels, 1.0), (len(images),))
        return normalise(images, self.mean, self.std), {"map": batch["map"], "weights": weights, "scale": scale}

    def eval_inputs(self, batch: Batch) -> jax.Array:
        """Returns normalised inputs float32 [B, H, W, 3]."""
        return normalise(batch["image"], self.mean, self.std)

    def loss(self, outputs: Tree, targets: Tree) -> jax.Array:
        """Returns the loss float32 [B]: each image's pixels, times its scale."""
        found = self._map_loss(outputs["classes"], targets)
        if self.auxiliary_weight:
            found += self.auxiliary_weight * self._map_loss(outputs["auxiliary"], targets)
        return found * targets["scale"]

    def measure(self, outputs: Tree, batch: Batch) -> Measured:
        """Returns sums over the real examples, and in evaluation rows: the confusion matrix of each picture.

        Sums: count; in training pixel_accuracy, each image's share of places of the logits' grid whose class is that
        of the map there (1 where all are void); in evaluation pixel_loss and pixels, whose quotient is the loss.
        Rows: index int32, confusion int32 [C, C] in pixels of the picture (`confusion.py`).
        """
        real = batch["mask"] > 0 if "mask" in batch else jnp.ones(batch["map"].shape[:1], bool)

        def total(values: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(real, values.astype(jnp.float32), 0))

        logits = outputs["classes"]
        count = total(jnp.ones_like(real))
        if "crop" not in batch:  # in training
            rows, columns = (
                ((2 * np.arange(few) + 1) * many) // (2 * few)
                for few, many in zip(logits.shape[1:3], batch["map"].shape[1:3], strict=True)
            )
            true = batch["map"][:, rows][:, :, columns]
            known = true < self.num_classes
            right = jnp.sum(known & (logits.argmax(-1) == true), (1, 2))
            known = jnp.sum(known, (1, 2))
            return Measured(
                {"pixel_accuracy": total(jnp.where(known > 0, right / jnp.maximum(known, 1), 1.0)), "count": count}
            )
        weights = losses.pixel_weights(batch["map"], np.ones(self.num_classes, np.float32))
        lost = self._map_loss(logits, {"map": batch["map"], "weights": weights})
        sums = {"count": count, "pixel_loss": total(lost), "pixels": total(jnp.sum(weights, (1, 2)))}
        crop = Crop.from_rows(batch["crop"], self.image_size)
        found = confusion(logits, batch["map_whole"], crop, align_corners=self.head.align_corners)
        return Measured(sums, {"index": batch["index"], "confusion": found})

    def meter(self) -> Meter:
        """Returns one that adds confusion matrices."""
        return SegmentationMeter(self.class_names)

    def _weights(self, batch: Batch) -> jax.Array:
        """Returns how much each pixel counts, float32 [B, H, W]; those of images that only fill the batch do not."""
        weights = np.array(self.class_weights or [1.0] * self.num_classes, np.float32)
        found = losses.pixel_weights(batch["map"], weights)
        return found * (batch["mask"] > 0)[:, None, None] if "mask" in batch else found

    def _map_loss(self, logits: jax.Array, targets: Tree) -> jax.Array:
        return losses.map_loss(logits, targets["map"], targets["weights"], align_corners=self.head.align_corners)


def annotations(config: ml_collections.ConfigDict) -> dict[str, PixelMap]:
    """Returns the field "map"."""
    del config
    return {"map": PixelMap()}


def build(config: ml_collections.ConfigDict, info: DatasetInfo) -> Segmentation:
    """Returns the task of a config, for the classes of a data set.

    Raises:
      ValueError: if the evaluation would not see all of a picture, or the head does not go with the backbone.
    """
    data, section = config.data, config.task
    if data.eval_crop != 1.0:
        raise ValueError(
            f"data.eval_crop={data.eval_crop!r}: pixels outside of the crop would not be judged; "
            "set --config.data.eval_crop=1.0"
        )
    scales = tuple(section.eval_scales)
    fits = [isinstance(scale, int | float) and _LEAST_SCALE <= scale <= _MOST_SCALE for scale in scales]
    if not scales or not all(fits):
        raise ValueError(
            f"task.eval_scales={scales!r}: give one number or more from {_LEAST_SCALE:g} to {_MOST_SCALE:g}, such as "
            "(0.75, 1.0, 1.25)"
        )
    spec = find_mask_head(section.head or DEFAULT_HEAD)
    head = resolve_mask_head(
        spec,
        resolve_section(config.model),
        info.num_classes,
        output_stride=section.output_stride,
        auxiliary=section.auxiliary_weight > 0,
    )
    return Segmentation(
        head=spec,
        output_stride=section.output_stride,
        own_scopes=head.scopes,
        logit_scopes=head.class_scopes,
        class_names=tuple(info.class_names),
        image_size=image_size(data),
        mean=info.mean if data.mean is None else tuple(data.mean),
        std=info.std if data.std is None else tuple(data.std),
        augment=config.augment,
        balanced=section.class_weights == "balanced",
        auxiliary_weight=section.auxiliary_weight,
        eval_scales=tuple(float(scale) for scale in scales),
        eval_flip=section.eval_flip,
    )
