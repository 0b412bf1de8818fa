"""The contract of a batch: which arrays it has, of which shape and type, and what fills it up.

A batch is a flat dict of NumPy arrays whose first axis counts B examples of one process:

    image    uint8 [B, H, W, 3]
    mask     float32 [B]: 1 for an example, 0 for padding
    index    int64 [B]: the example's place in its split, -1 in padding (int32 on the devices)
    crop     int32 [B, 11]: `Crop.row`; in evaluation, where an annotation of the task moves with the pixels
    and the parts of each annotation, named by `part_name`: label; boxes, boxes_class, boxes_mask ...
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mnet_jax.data.annotations import Annotation, Field

Batch = dict[str, np.ndarray]
CROP_NUMBERS = 11  # of `Crop.row`


def part_name(field: str, part: str) -> str:
    """Returns the name in a batch of one part of an annotation: "boxes" and "class" make "boxes_class"."""
    return f"{field}_{part}" if part else field


def spec(annotations: Mapping[str, Annotation], image_size: tuple[int, int], *, train: bool) -> dict[str, Field]:
    """Returns every array of a batch by its name."""
    parts = {
        part_name(name, part): field
        for name, annotation in kinds(annotations, train=train).items()
        for part, field in annotation.fields(image_size).items()
    }
    # 1 and not 0 in padding: what maps boxes back divides by the sizes in it
    crop = {} if train or not moves(annotations) else {"crop": Field((CROP_NUMBERS,), np.int32, 1)}
    return {
        "image": Field((*image_size, 3), np.uint8),
        **parts,
        "mask": Field((), np.float32),
        "index": Field((), np.int64, -1),
        **crop,
    }


def kinds(annotations: Mapping[str, Annotation], *, train: bool) -> dict[str, Annotation]:
    """Returns the annotations as the batches of training, or of evaluation, have them."""
    return {name: one if train else one.in_evaluation() for name, one in annotations.items()}


def moves(annotations: Mapping[str, Annotation]) -> bool:
    """Returns whether any of the annotations says where in the picture something is."""
    return any(annotation.moves for annotation in annotations.values())


def empty(fields: Mapping[str, Field]) -> Batch:
    """Returns a batch of no examples."""
    return {name: np.zeros((0, *field.shape), field.dtype) for name, field in fields.items()}


def pad(batch: Batch, fields: Mapping[str, Field], batch_size: int) -> Batch:
    """Returns a batch filled up to `batch_size` examples."""
    missing = batch_size - len(batch["mask"])
    if not missing:
        return batch
    return {
        name: np.concatenate([value, np.full((missing, *value.shape[1:]), fields[name].padding, value.dtype)])
        for name, value in batch.items()
    }
