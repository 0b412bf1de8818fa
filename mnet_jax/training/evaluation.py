"""Evaluation that counts every image once, and the outputs of a network image by image."""

import collections
from collections.abc import Callable, Iterable, Iterator

import flax.linen as nn
import jax
import numpy as np

from mnet_jax.tasks.task import Meter, Task, Tree
from mnet_jax.training.batches import BatchSource
from mnet_jax.training.parallel import AXIS, Devices
from mnet_jax.training.step import make_eval_step


def evaluate(
    eval_step: Callable,
    variables: Tree,
    batches: Iterable[dict[str, jax.Array]],
    meter: Meter,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Runs `eval_step` over device batches and returns the meter's metrics by name, with "num_images".

    None once `stop` says so, between two batches.

    The meter adds on the host; examples that only fill a batch (mask 0) count for nothing.

    Raises:
      ValueError: if there was no image.
    """
    under_way = collections.deque()
    for batch in batches:
        if stop():
            return None
        under_way.append(eval_step(variables, batch))
        if len(under_way) > 2:  # the devices have work ahead, but not all batches at once
            _add(meter, *under_way.popleft())
    for sums, rows in under_way:
        _add(meter, sums, rows)
    metrics = meter.result()
    if not metrics["num_images"]:
        raise ValueError("the split to evaluate on has no images: set data.eval_split to one that has some")
    return metrics


def _add(meter: Meter, sums: dict[str, jax.Array], rows: dict[str, jax.Array]) -> None:
    rows = {name: np.asarray(value).reshape(-1, *value.shape[2:]) for name, value in rows.items()}
    if rows:
        real = rows.pop("mask") > 0
        rows = {name: value[real] for name, value in rows.items()}
    meter.add({name: np.asarray(value) for name, value in sums.items()}, rows)


class Evaluator:
    """A network's evaluation on a data set: compiled once, run as often as wanted."""

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        source: BatchSource,
        devices: Devices,
        *,
        device_batch: int,
        num_images: int,
    ):
        """Makes the step; nothing is compiled yet.

        Args:
          network: what the task's outputs come from.
          task: says what they are measured by.
          source: where the batches of the evaluation split come from.
          devices: that share each batch.
          device_batch: images a device and step.
          num_images: of the whole split; an evaluation that counts another number is an error.
        """
        self._task, self._source, self._devices, self._num_images = task, source, devices, num_images
        self._device_batch, self._program = device_batch, None
        self._step = devices.pmap(make_eval_step(network, task, AXIS), donate_state=False)

    def compile_ahead(self, variables: Tree, shapes: dict[str, jax.ShapeDtypeStruct]) -> None:
        """Compiles for batches of these shapes beside what the caller does; only shapes of `variables` are read."""
        self._program = self._devices.compile_ahead(self._step, variables, shapes)

    def __call__(self, variables: Tree, stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Returns the metrics of `variables` (replicated) over all images of the evaluation split.

        None once `stop` says so: while the program is compiled, or between two batches.

        Raises:
          ValueError: if the number of images counted is not that of the split.
        """
        devices = self._devices
        alone = devices.process_count == 1  # several ask at the same places, and wait for each other's compiler
        while self._program is not None and not self._program.wait(0.1 if alone else None):
            if stop():
                return None
        batches = self._source.evaluation(
            batch_size=self._device_batch * len(devices.local),
            process_index=devices.process_index,
            process_count=devices.process_count,
        )
        metrics = evaluate(self._step, variables, devices.feed(batches), self._task.meter(), stop)
        if metrics is not None and metrics["num_images"] != self._num_images:
            raise ValueError(
                f"{metrics['num_images']} images were evaluated, but the split has {self._num_images}: its files have "
                "changed or are cut short; prepare the data set again"
            )
        return metrics


def outputs(
    network: nn.Module, task: Task, variables: Tree, batches: Iterable[dict[str, np.ndarray]], devices: Devices
) -> Iterator[tuple[Tree, dict[str, np.ndarray]]]:
    """Yields (outputs, batch) of a split's host batches, real examples only, as NumPy arrays [n, ...].

    The network runs on the devices of this process.
    """
    variables = devices.replicate(variables)
    step = devices.pmap_each(lambda variables, batch: network.apply(variables, task.eval_inputs(batch), train=False))
    for batch in batches:
        found, real = step(variables, devices.split(batch)), batch["mask"] > 0
        found = jax.tree.map(lambda x, real=real: np.asarray(x).reshape(-1, *x.shape[2:])[real], found)
        yield found, {name: value[real] for name, value in batch.items()}
