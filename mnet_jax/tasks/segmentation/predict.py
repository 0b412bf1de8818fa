"""What people read of a segmenter's outputs: the classes of a photo with their shares, and the photo in colours."""

import base64
import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.crop import Crop
from mnet_jax.tasks.segmentation.confusion import picture_classes
from mnet_jax.tasks.segmentation.pictures import overlay, palette, with_legend
from mnet_jax.tasks.task import Task

BACKGROUND = "background"  # what COCO's and VOC's maps call it
_TOLD = 0.0005  # the share of the pixels from which a class has a line for people; JSON has all


def select(task: Task, outputs: dict[str, jax.Array], top: int) -> dict[str, jax.Array]:
    """Returns the logits of each image on the head's grid; runs on the device, in the network's own program.

    Args:
      task: that made the network.
      outputs: of the network.
      top: not used: a picture shows all of its classes.

    Returns:
      logits float32 [N, h, w, C], and align_corners bool [N], how the grid lies on the image.
    """
    del top
    logits = outputs["classes"]
    return {"logits": logits, "align_corners": jnp.full(logits.shape[:1], task.head.align_corners)}


def describe(selected: dict[str, np.ndarray], info: DatasetInfo, crop: Crop) -> dict[str, Any]:
    """Returns the classes of one picture with their shares of its pixels, and its mask, ready for JSON.

    `mask` is a PNG in base64, as large as the picture: its values are the classes' indices, its palette their colours.
    """
    found = picture_classes(selected["logits"], crop, align_corners=bool(selected["align_corners"]))
    counts = np.bincount(found.reshape(-1), minlength=info.num_classes)
    there = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]
    return {
        "classes": [{"class": info.class_names[i], "index": i, "share": float(counts[i] / found.size)} for i in there],
        "mask": base64.b64encode(_png(found)).decode(),
    }


def lines(described: dict[str, Any]) -> list[str]:
    """Returns one line a class: " 62.10 %  road", the largest first."""
    return [f"{100 * row['share']:6.2f} %  {row['class']}" for row in described["classes"] if row["share"] >= _TOLD]


def draw(pixels: np.ndarray, described: dict[str, Any]) -> bytes:
    """Returns a PNG of the photo, uint8 [H, W, 3], with the colours of its classes over it and their names below.

    A class that is called "background" stays as it is.
    """
    from PIL import Image

    bare = [row["index"] for row in described["classes"] if row["class"] == BACKGROUND]
    with Image.open(io.BytesIO(base64.b64decode(described["mask"]))) as mask:
        covered = overlay(pixels, np.asarray(mask), bare)
    told = [row for row in described["classes"] if row["share"] >= _TOLD and row["index"] not in bare]
    names = [(row["index"], row["class"]) for row in told]
    file = io.BytesIO()
    Image.fromarray(with_legend(covered, names)).save(file, format="PNG")
    return file.getvalue()


def more_files(described: dict[str, Any]) -> dict[str, bytes]:
    """Returns what `mnet predict --draw` writes beside the photo, by the end of its name: the mask."""
    return {"_mask.png": base64.b64decode(described["mask"])}


def _png(classes: np.ndarray) -> bytes:
    """Returns a map, uint8 [H, W], as a PNG whose values are the classes, with a palette."""
    from PIL import Image

    image = Image.fromarray(classes)
    image.putpalette(palette().tobytes())
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
