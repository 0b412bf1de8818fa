"""Batches of noise with made-up annotations, for measuring where no data set is needed. NumPy only."""

from collections.abc import Mapping

import numpy as np

from mnet_jax.data.annotations import Annotation, Boxes, Label
from mnet_jax.data.batch import Batch, part_name, spec
from mnet_jax.data.label_set import LabelSet
from mnet_jax.data.pixel_map import PixelMap

PRESENT = 0.1  # of the classes
OBJECTS = 7  # an image: COCO has 7.3 on average (860,001 boxes in 117,266 images of train2017)


def make_batch(
    annotations: Mapping[str, Annotation], num_classes: int, image_size: tuple[int, int], batch_size: int, seed: int = 0
) -> Batch:
    """Returns a training batch uint8 [B, H, W, 3] with annotations by chance; of an unknown kind there are none.

    Args:
      annotations: field of the batch -> its kind.
      num_classes: from which each class is drawn.
      image_size: (height, width).
      batch_size: examples.
      seed: of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    batch = {
        name: np.full((batch_size, *field.shape), field.padding, field.dtype)
        for name, field in spec(annotations, image_size, train=True).items()
    }
    batch["image"] = rng.integers(0, 256, batch["image"].shape, np.uint8)
    batch["mask"][:] = 1
    batch["index"] = np.arange(batch_size)
    for name, annotation in annotations.items():
        if isinstance(annotation, Label | PixelMap):
            batch[name] = rng.integers(0, num_classes, batch[name].shape).astype(batch[name].dtype)
        elif isinstance(annotation, LabelSet):
            batch[name] = (rng.random(batch[name].shape) < PRESENT).astype(np.uint8)
        elif isinstance(annotation, Boxes):
            for part, values in _boxes(rng, num_classes, image_size, min(OBJECTS, annotation.most), batch_size).items():
                batch[part_name(name, part)][:, : values.shape[1]] = values
    return batch


def _boxes(
    rng: np.random.Generator, num_classes: int, image_size: tuple[int, int], objects: int, batch_size: int
) -> dict[str, np.ndarray]:
    """Returns the parts of `Boxes`, [batch_size, objects, ...] each: sides of a tenth to all of the image's."""
    shape = (batch_size, objects)
    sides = rng.uniform(0.1, 1.0, (*shape, 2))
    low = rng.uniform(0.0, 1.0, (*shape, 2)) * (1 - sides)
    boxes = (np.concatenate([low, low + sides], -1) * [*image_size, *image_size]).astype(np.float32)
    return {
        "": boxes,
        "class": rng.integers(0, num_classes, shape).astype(np.int32),
        "mask": np.ones(shape, np.bool_),
        "area": np.prod(boxes[..., 2:] - boxes[..., :2], -1),
    }
