"""Evaluation that counts every image once."""

import collections
from collections.abc import Callable, Iterable

import jax
import ml_collections
import numpy as np

from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models import MobileNet
from mnet_jax.tasks.classification.task import Classification
from mnet_jax.training.batches import ImageBatches, image_shapes
from mnet_jax.training.embeddings import CachedBatches, ClassifierOnly
from mnet_jax.training.parallel import AXIS, Devices
from mnet_jax.training.state import Tree
from mnet_jax.training.step import make_eval_step


def evaluate(eval_step: Callable, variables: Tree, batches: Iterable[dict[str, jax.Array]]) -> dict[str, float]:
    """Runs `eval_step` over device batches and returns `top1`, `top5`, `loss` (means) and `num_images`.

    Sums are added in float64 on the host; padding has mask 0 and counts for nothing.
    """
    totals = dict.fromkeys(("loss", "top1", "top5", "count"), 0.0)
    under_way = collections.deque()
    for batch in batches:
        under_way.append(eval_step(variables, batch))
        if len(under_way) > 2:  # the devices have work ahead, but not all batches at once
            _add(totals, under_way.popleft())
    for sums in under_way:
        _add(totals, sums)
    count = totals.pop("count")
    if not count:
        raise ValueError("the evaluation split is empty")
    return {**{name: total / count for name, total in totals.items()}, "num_images": round(count)}


def _add(totals: dict[str, float], sums: dict[str, jax.Array]) -> None:
    for name, value in sums.items():
        totals[name] += float(np.asarray(value))


class Evaluator:
    """A model's evaluation on a data set: compiled once, run as often as wanted."""

    def __init__(
        self,
        model: MobileNet | ClassifierOnly,
        task: Classification,
        config: ml_collections.ConfigDict,
        info: DatasetInfo,
        devices: Devices,
        device_batch: int,
        batches: ImageBatches | CachedBatches | None = None,
    ):
        """`batches`: where the evaluation split comes from; None: the images that the config names."""
        self._info, self._devices = info, devices
        self._batches = batches or ImageBatches(config, info)
        self._batch_size = device_batch * len(devices.local)
        self._step = devices.pmap(make_eval_step(model, task, AXIS), donate_state=False)
        self._images, self._wait = (len(devices.local), device_batch), lambda: None

    def compile_ahead(self, variables: Tree, image_size: tuple[int, int]) -> None:
        """Compiles for images (H, W) beside what the caller does; only the shapes of `variables` are read."""
        self._wait = self._devices.compile_ahead(self._step, variables, image_shapes(self._images, image_size))

    def __call__(self, variables: Tree) -> dict[str, float]:
        """Metrics of `variables` (replicated) over all images of the evaluation split.

        Raises:
          RuntimeError: if the number of images counted is not that of the split.
        """
        devices = self._devices
        self._wait()
        batches = self._batches.evaluation(
            batch_size=self._batch_size,
            process_index=devices.process_index,
            process_count=devices.process_count,
        )
        metrics = evaluate(self._step, variables, devices.feed(batches))
        if metrics["num_images"] != self._info.num_eval:
            raise RuntimeError(f"evaluated {metrics['num_images']} images of {self._info.num_eval}")
        return metrics
