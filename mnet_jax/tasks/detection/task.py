"""Object detection with anchors: what a batch turns into, the loss, detections, and the metrics."""

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
from mnet_jax.data.annotations import Boxes
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.crop import Crop
from mnet_jax.models.compute import Compute
from mnet_jax.models.heads.boxes import HeadSpec, resolve_head
from mnet_jax.models.heads.tables import find_head, rescalable
from mnet_jax.models.plans import ModelPlan
from mnet_jax.models.resolve import resolve_section
from mnet_jax.tasks.detection import coding, losses, matching
from mnet_jax.tasks.detection.anchors import anchors, fits_some, shapes
from mnet_jax.tasks.detection.meter import COCO, VOC, DetectionMeter
from mnet_jax.tasks.detection.network import Detector
from mnet_jax.tasks.detection.suppression import Suppression
from mnet_jax.tasks.task import Batch, Measured, Meter, Metric, Task, Tree, normalise

# What a library takes for a detection, by how its heads score: torchvision's ssdlite320_mobilenet_v3_large, and the
# sample configs of TensorFlow's Object Detection API.
SUPPRESSIONS = {
    "softmax": Suppression(),
    "sigmoid": Suppression(score_threshold=1e-8, iou_threshold=0.6, candidates=None, max_detections=100),
}
CODINGS = {"softmax": coding.TORCHVISION, "sigmoid": coding.TENSORFLOW}
DEFAULT_HEAD = "ssdlite_tf"  # sigmoids learned small sets quicker here than torchvision's softmax (docs/detection.md)
MANY_LOST = 0.05  # share of objects that fit no anchor from which other anchors are advised
MIN_SCALES = (0.05, 0.07, 0.1, 0.15)  # that are tried for this advice
RIGHT_OVERLAP = 0.5  # of a predicted box with its object, to count in the metric "found"
_RECOLOURS = frozenset({Effect.RECOLOURS})
_OPERATIONS = randaugment.operations_with(_RECOLOURS)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detection(Task):
    """Objects with a box and a class each, found by anchors.

    Outputs of the network: boxes float32 [B, A, 4], codes against the anchors, and classes float32 [B, A, C], logits
    of which slot 0 is the background.
    """

    name: ClassVar[str] = "detection"
    finetune: ClassVar[str] = "finetune_boxes.py"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("ap", "AP"),
        Metric("ap50", "AP50"),
        Metric("ap75", "AP75"),
        Metric("found", "found"),
        Metric("loss", "loss", percent=False, higher_is_better=False),
    )
    more_metrics: ClassVar[tuple[Metric, ...]] = tuple(Metric(name, label) for name, label in (*COCO[3:], *VOC))
    train_metrics: ClassVar[tuple[str, ...]] = ("found",)

    head: HeadSpec
    head_scopes: tuple[str, ...]
    num_classes: int  # without the background
    anchors: np.ndarray  # float32 [A, 4]: y1, x1, y2, x2 in pixels of the input
    image_size: tuple[int, int]  # height and width of the input
    mean: tuple[float, float, float]  # per channel, of pixels in 0..255
    std: tuple[float, float, float]
    most: int = 100  # objects of an image in a batch
    augment: Augmentation = Augmentation()
    min_negatives: int = 0
    focal_alpha: float = 0.25
    box_weight: float = 1.0
    suppression: Suppression = Suppression()

    def __post_init__(self) -> None:
        if not isinstance(self.augment, Augmentation):
            object.__setattr__(self, "augment", Augmentation(**self.augment))
        check_effects(self.augment, self.name, follows=_RECOLOURS, operations=_OPERATIONS)

    @property
    def annotations(self) -> dict[str, Boxes]:
        """The field "boxes"."""
        return {"boxes": Boxes(most=self.most)}

    @property
    def own_scopes(self) -> tuple[str, ...]:
        """All layers of the head."""
        return self.head_scopes

    @property
    def class_scopes(self) -> tuple[str, ...]:
        """The layers that name a box; where it lies and how large it is holds for other classes too."""
        return tuple(scope for scope in self.head_scopes if scope.startswith("classes_"))

    @property
    def coding(self) -> coding.Coding:
        """How boxes are written against anchors."""
        centre, _, size, _ = self.head.code_scales
        return dataclasses.replace(CODINGS[self.head.scores], centre_scale=centre, size_scale=size)

    def network(self, plan: ModelPlan, compute: Compute) -> nn.Module:
        """Returns the backbone with the head."""
        return Detector.for_plan(plan, compute, resolve_head(self.head, plan, self.num_classes))

    def advice(self, read: Callable[[str], np.ndarray], info: DatasetInfo) -> list[str]:
        """Returns a line where classes have no object to learn from, and one where objects fit none of the anchors."""
        classes = read("boxes_class")
        counts = np.bincount(classes, minlength=self.num_classes)
        missing = [name for name, count in zip(info.class_names, counts, strict=True) if not count]
        lines = []
        if missing:
            shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            lines.append(f"No object to learn from: {shown}")
        boxes = read("boxes").reshape(-1, 4)  # shares of the picture's sides, which is squeezed to the input
        sides = (boxes[:, 2:] - boxes[:, :2]) * self.image_size

        def lost(spec: HeadSpec) -> np.ndarray:
            return ~fits_some(sides, shapes(spec, self.image_size))

        now = lost(self.head) if rescalable(self.head) else np.zeros(0, bool)
        if len(now) and now.mean() > MANY_LOST:
            left = {scale: lost(find_head(self.head.name, min_scale=scale)).sum() for scale in MIN_SCALES}
            scale = min(left, key=left.get)
            if left[scale] < now.sum() / 2:
                shares = {info.class_names[number]: now[classes == number].mean() for number in np.unique(classes)}
                worst = max(shares, key=shares.get)
                lines.append(
                    f"{100 * now.mean():.0f} % of the objects ({worst}: {100 * shares[worst]:.0f} %) are overlapped by "
                    f"no anchor by half, whatever their place; --config.task.min_scale={scale} leaves "
                    f"{100 * left[scale] / len(now):.0f} %"
                )
        return lines

    def train_inputs(
        self, key: jax.Array, batch: Batch, positions: jax.Array, total: Callable[[jax.Array], jax.Array]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns normalised inputs float32 [B, H, W, 3] in other colours, and the targets of `targets`.

        Beside these, scale float32 [B]: what makes the mean of the losses their sum over the positive anchors of the
        whole step (at least 1).
        """
        fill = tuple(min(255, max(0, round(value))) for value in self.mean)
        images = augment_images(key, batch["image"], positions, self.augment, fill=fill, operations=_OPERATIONS)
        targets = self.targets(batch)
        num_positive = total(jnp.sum(targets["classes"] > 0).astype(jnp.float32))
        num_images = total(jnp.array(len(images), jnp.float32))
        scale = jnp.broadcast_to(num_images / jnp.maximum(num_positive, 1.0), (len(images),))
        return normalise(images, self.mean, self.std), {**targets, "scale": scale}

    def targets(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns what each anchor is to say.

        classes int32 [B, A], 0 for the background; codes float32 [B, A, 4], 0 where there is no object; counted bool
        [B, A]: not those inside objects to be ignored, nor those of images that only fill the batch.
        """
        every = jnp.asarray(self.anchors)
        objects = batch["boxes_mask"] & ~batch["boxes_ignore"]
        ignored = batch["boxes_mask"] & batch["boxes_ignore"]

        def of_image(boxes: jax.Array, classes: jax.Array, objects: jax.Array, ignored: jax.Array) -> tuple:
            index = matching.match(boxes, objects, every, last_wins=self.head.scores == "softmax")
            positive, index = index >= 0, jnp.maximum(index, 0)
            chosen = jnp.where(positive[:, None], boxes[index], every)  # an anchor's own code is 0
            codes = jnp.where(positive[:, None], self.coding.encode(chosen, every), 0)
            counted = positive | ~matching.inside_ignored(boxes, ignored, every)
            return jnp.where(positive, classes[index] + 1, 0), codes, counted

        classes, codes, counted = jax.vmap(of_image)(batch["boxes"], batch["boxes_class"], objects, ignored)
        real = _real(batch)[:, None]
        return {"classes": jnp.where(real, classes, 0), "codes": codes, "counted": counted & real}

    def eval_inputs(self, batch: Batch) -> jax.Array:
        """Returns normalised inputs float32 [B, H, W, 3]."""
        return normalise(batch["image"], self.mean, self.std)

    def loss(self, outputs: Tree, targets: Tree) -> jax.Array:
        """Returns the loss float32 [B]: classes and boxes of each image's anchors, times its scale."""
        return self._anchor_loss(outputs, targets) * targets["scale"]

    def detect(self, outputs: Tree) -> dict[str, jax.Array]:
        """Returns the detections of images: boxes [B, D, 4] in pixels of the input, scores, classes and count.

        Boxes are cut off at the image: by torchvision's rules before suppression, by TensorFlow's afterwards.
        """
        boxes = self.coding.decode(outputs["boxes"], jnp.asarray(self.anchors))
        if self.head.scores == "softmax":
            boxes = coding.clip(boxes, self.image_size)
        found = self.suppression(boxes, self.scores(outputs))
        return {**found, "boxes": coding.clip(found["boxes"], self.image_size)}

    def scores(self, outputs: Tree) -> jax.Array:
        """Returns the scores of the classes without the background, float32 [B, A, num_classes], in 0..1."""
        logits = self._logits(outputs)
        return jax.nn.softmax(logits)[..., 1:] if self.head.scores == "softmax" else jax.nn.sigmoid(logits[..., 1:])

    def measure(self, outputs: Tree, batch: Batch) -> Measured:
        """Returns sums over the real examples, and in evaluation rows: detections and objects of each picture.

        Sums: found (share of an image's positive anchors whose class is the most probable and whose box overlaps its
        object by half; of an image without objects, whether no anchor claims one), count, and in evaluation
        anchor_loss and positive, whose quotient is the loss.
        Rows, of boxes in pixels of the picture: index; boxes, scores and classes of detections (score 0: none);
        true_boxes, true_classes, true_mask, true_ignore, true_area of its objects.
        """
        targets = self.targets(batch)
        real = _real(batch)

        def total(values: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(real, values.astype(jnp.float32), 0))

        positive = targets["classes"] > 0
        every = jnp.asarray(self.anchors)
        said, likely = outputs["boxes"], self._logits(outputs)
        if self.head.scores == "sigmoid":  # the slot of the background says nothing there: it stays low
            likely = likely.at[..., 0].set(0.0)
        chosen = likely.argmax(-1)
        overlap = coding.paired_iou(self.coding.decode(said, every), self.coding.decode(targets["codes"], every))
        right = positive & (chosen == targets["classes"]) & (overlap >= RIGHT_OVERLAP)
        num_positive = positive.sum(-1)
        silent = ~jnp.any((chosen > 0) & targets["counted"], -1)
        share = jnp.where(num_positive > 0, right.sum(-1) / jnp.maximum(num_positive, 1), silent)
        sums = {"found": total(share), "count": total(jnp.ones_like(share))}
        if "crop" not in batch:  # in training
            return Measured(sums)
        sums |= {"anchor_loss": total(self._anchor_loss(outputs, targets)), "positive": total(num_positive)}
        crop = Crop.from_rows(batch["crop"], self.image_size)
        found = self.detect(outputs)
        rows = {
            "index": batch["index"],
            "boxes": crop.boxes_to_picture(found["boxes"]),
            "scores": found["scores"],
            "classes": found["classes"],
            "true_boxes": crop.boxes_to_picture(batch["boxes"]),
            "true_classes": batch["boxes_class"],
            "true_mask": batch["boxes_mask"],
            "true_ignore": batch["boxes_ignore"],
            "true_area": batch["boxes_area"],
        }
        return Measured(sums, rows)

    def meter(self) -> Meter:
        """Returns one that gives COCO's and VOC's figures."""
        return DetectionMeter(self.num_classes)

    def _logits(self, outputs: Tree) -> jax.Array:
        """Returns float32 [B, A, 1 + num_classes]; the background's are far below 0 where the head has none."""
        logits = outputs["classes"].astype(jnp.float32)
        return logits if self.head.background else jnp.pad(logits, ((0, 0), (0, 0), (1, 0)), constant_values=-30.0)

    def _anchor_loss(self, outputs: Tree, targets: Tree) -> jax.Array:
        """Returns the loss of each image, float32 [B], not yet divided by anything."""
        classes, counted, logits = targets["classes"], targets["counted"], self._logits(outputs)
        if self.head.scores == "softmax":
            of_classes = losses.softmax_loss(logits, classes, counted, min_negatives=self.min_negatives)
        else:
            of_classes = losses.focal_loss(
                logits, classes, counted, alpha=self.focal_alpha, gamma=self.head.focal_gamma
            )
        of_boxes = losses.huber(outputs["boxes"], targets["codes"], delta=self.head.huber_delta)
        return of_classes + self.box_weight * jnp.sum(jnp.where(classes > 0, of_boxes, 0), -1)


def annotations(config: ml_collections.ConfigDict) -> dict[str, Boxes]:
    """Returns the field "boxes", with as many slots as `task.max_objects` says."""
    return {"boxes": Boxes(most=config.task.max_objects)}


def build(config: ml_collections.ConfigDict, info: DatasetInfo) -> Detection:
    """Returns the task of a config, for the classes of a data set.

    Raises:
      ValueError: if the evaluation would not see all of a picture, or the head does not go with the backbone.
    """
    data, section = config.data, config.task
    if data.eval_crop != 1.0:
        raise ValueError(
            f"data.eval_crop={data.eval_crop!r}: boxes outside of the crop would not be found; "
            "set --config.data.eval_crop=1.0"
        )
    spec = find_head(section.head or DEFAULT_HEAD, min_scale=section.min_scale)
    size = image_size(data)
    plan = resolve_section(config.model)
    head = resolve_head(spec, plan, info.num_classes)
    given = {
        "score_threshold": section.score_threshold,
        "iou_threshold": section.nms_iou,
        "max_detections": section.max_detections,
    }
    return Detection(
        head=spec,
        head_scopes=head.scopes,
        num_classes=info.num_classes,
        anchors=anchors(head, size),
        image_size=size,
        mean=info.mean if data.mean is None else tuple(data.mean),
        std=info.std if data.std is None else tuple(data.std),
        most=section.max_objects,
        augment=config.augment,
        min_negatives=section.min_negatives,
        focal_alpha=section.focal_alpha,
        box_weight=section.box_weight,
        suppression=dataclasses.replace(
            SUPPRESSIONS[spec.scores],
            per_class=section.nms == "class",
            **{name: value for name, value in given.items() if value is not None},
        ),
    )


def _real(batch: Batch) -> jax.Array:
    """Bool [B]: which examples are not padding."""
    return batch["mask"] > 0 if "mask" in batch else jnp.ones(batch["boxes"].shape[:1], bool)
