"""What people read of a detector's outputs: objects with their boxes in the photo, and the photo with these drawn."""

import io
from typing import Any

import jax
import numpy as np

from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.crop import Crop
from mnet_jax.plotting import shortened
from mnet_jax.tasks.detection.pictures import Box, colour, draw_boxes
from mnet_jax.tasks.task import Task

SHOWN = 0.25  # the score from which a detection is told to people; average precision looks at all


def select(task: Task, outputs: dict[str, jax.Array], top: int) -> dict[str, jax.Array]:
    """Returns the `top` surest detections of each image; runs on the device, in the network's own program.

    Args:
      task: that made the network.
      outputs: of the network.
      top: how many; all where there are fewer.

    Returns:
      boxes float32 [N, top, 4] in pixels of the input, scores float32 [N, top], 0 for none, and classes int32 [N, top].
    """
    found = task.detect(outputs)
    return {name: found[name][:, :top] for name in ("boxes", "scores", "classes")}


def describe(selected: dict[str, np.ndarray], info: DatasetInfo, crop: Crop) -> dict[str, Any]:
    """Returns what `select` gives for one image in pixels of its picture, with names, ready for JSON."""
    height, width = np.asarray(crop.picture_size).tolist()
    boxes = np.clip(crop.boxes_to_picture(np.asarray(selected["boxes"])), 0, [height, width, height, width])
    rows = zip(boxes.tolist(), selected["classes"].tolist(), selected["scores"].tolist(), strict=True)
    return {
        "objects": [
            {"class": info.class_names[i], "index": i, "score": score, "x1": x1, "y1": y1, "x2": x2, "y2": y2}
            for (y1, x1, y2, x2), i, score in rows
            if score >= SHOWN
        ]
    }


def lines(described: dict[str, Any]) -> list[str]:
    """Returns one line an object: " 97.50 %  dog  x 10 to 200, y 30 to 180"."""
    found = [
        f"{100 * row['score']:6.2f} %  {row['class']}  x {row['x1']:.0f} to {row['x2']:.0f}, "
        f"y {row['y1']:.0f} to {row['y2']:.0f}"
        for row in described["objects"]
    ]
    return found or [f"nothing with a score of {SHOWN} or more"]


def draw(pixels: np.ndarray, described: dict[str, Any]) -> bytes:
    """Returns a PNG of the photo, uint8 [H, W, 3], with a box around each object; the surest is on top."""
    from PIL import Image

    boxes = [
        Box(
            [row[side] for side in ("y1", "x1", "y2", "x2")],
            colour(row["index"]),
            f"{shortened(row['class'], 24)} {100 * row['score']:.0f} %",
        )
        for row in described["objects"][::-1]
    ]
    file = io.BytesIO()
    Image.fromarray(draw_boxes(pixels, boxes)).save(file, format="PNG")
    return file.getvalue()
