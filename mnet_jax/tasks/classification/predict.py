"""What people read of a classifier's outputs: the most probable classes, and a photo with them written below."""

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
    """Returns the `top` most probable classes of each image; runs on the device, in the network's own program.

    Args:
      task: that made the network.
      outputs: logits [N, num_classes].
      top: how many; all where there are fewer classes.

    Returns:
      probability float32 [N, top] and index int32 [N, top], the most probable first.
    """
    del task
    probability, index = jax.lax.top_k(jax.nn.softmax(outputs.astype(jnp.float32)), min(top, outputs.shape[-1]))
    return {"probability": probability, "index": index}


def describe(selected: dict[str, np.ndarray], info: DatasetInfo, crop: Crop) -> dict[str, Any]:
    """Returns what `select` gives for one image with the names of its classes, ready for JSON."""
    del crop  # a class is of the whole picture
    rows = zip(selected["index"].tolist(), selected["probability"].tolist(), strict=True)
    return {"predictions": [{"class": info.class_names[i], "index": i, "probability": p} for i, p in rows]}


def lines(described: dict[str, Any]) -> list[str]:
    """Returns one line a class: " 97.50 %  tench"."""
    return [f"{100 * row['probability']:6.2f} %  {row['class']}" for row in described["predictions"]]


def draw(pixels: np.ndarray, described: dict[str, Any]) -> bytes:
    """Returns a PNG of the photo, uint8 [H, W, 3], at most 640 pixels long, with its classes written below."""
    rows = described["predictions"]
    return captioned(pixels, [f"{100 * row['probability']:.1f} %  {shortened(row['class'], 40)}" for row in rows])
