"""What people read of the outputs: the classes that are there, and a photo with them written below."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.crop import Crop
from mnet_jax.plotting import shortened
from mnet_jax.tasks.caption import captioned
from mnet_jax.tasks.task import Task


def select(task: Task, outputs: jax.Array, top: int) -> dict[str, jax.Array]:
    """Returns the scores of all classes of each image; runs on the device, in the network's own program.

    Args:
      task: that made the network, with its thresholds.
      outputs: logits [N, C].
      top: of the classes that are not there so many are told too, those with the highest scores.

    Returns:
      score float32 [N, C], threshold float32 [N, C], and top int32 [N].
    """
    scores = jax.nn.sigmoid(outputs.astype(jnp.float32))
    thresholds = jnp.asarray(task.class_thresholds, jnp.float32)[None]
    count = jnp.full(scores.shape[:1], top, jnp.int32)
    return {"score": scores, "threshold": jnp.broadcast_to(thresholds, scores.shape), "top": count}


def describe(selected: dict[str, np.ndarray], info: DatasetInfo, crop: Crop) -> dict[str, Any]:
    """Returns what `select` gives for one image, ready for JSON.

    `labels` are the classes whose score reaches their threshold, `others` the highest scores of the rest.
    """
    del crop  # a class is of the whole picture
    rows = [
        {"class": name, "index": number, "score": score, "threshold": threshold}
        for number, (name, score, threshold) in enumerate(
            zip(info.class_names, selected["score"].tolist(), selected["threshold"].tolist(), strict=True)
        )
    ]
    rows.sort(key=lambda row: -row["score"])
    there = [row for row in rows if row["score"] >= row["threshold"]]
    others = [row for row in rows if row["score"] < row["threshold"]]
    return {"labels": there, "others": others[: int(selected["top"])]}


def lines(described: dict[str, Any]) -> list[str]:
    """Returns one line a class that is there: " 97.50 %  dog"; where none is, what comes nearest."""
    found = [f"{100 * row['score']:6.2f} %  {row['class']}" for row in described["labels"]]
    if found or not described["others"]:
        return found
    first = described["others"][0]
    nearest = f"{first['class']} with {100 * first['score']:.2f} %, from {100 * first['threshold']:.2f} % on"
    return [f"none of the classes; the surest is {nearest}"]


def draw(pixels: np.ndarray, described: dict[str, Any]) -> bytes:
    """Returns a PNG of the photo, uint8 [H, W, 3], at most 640 pixels long, with its classes written below."""
    found = [f"{100 * row['score']:.1f} %  {shortened(row['class'], 40)}" for row in described["labels"]]
    return captioned(pixels, found or ["none of the classes"])
