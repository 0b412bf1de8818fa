"""From a checked config to a run plan: every duration in steps, every batch in images a device."""

import dataclasses
import itertools
import math
from collections.abc import Iterable

import ml_collections

from mnet_jax import config as configs
from mnet_jax import schema
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models import count, plans

_SMALLEST = 16  # pixels: of a side of images to train on
_FEW = 8  # values a channel: the mean of fewer says more of themselves than of the images


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """What a config comes to on this data set and these devices. Steps are completed updates, batches are images."""

    total_steps: int
    steps_per_epoch: float
    warmup_steps: int
    decay_steps: int
    peak_lr: float
    eval_steps: float  # between two evaluations; a fraction where it comes from epochs
    checkpoint_steps: float | None
    log_steps: int
    num_devices: int
    device_batch: int
    num_parts: int  # of a device's batch, one after the other
    eval_device_batch: int
    image_size: tuple[int, int]  # of the input path, and of evaluation
    image_sizes: tuple[tuple[int, tuple[int, int]], ...]  # (completed steps, size of the images from then on), in order

    def epoch(self, step: int) -> float:
        """Passes over the training data after `step` updates."""
        return step / self.steps_per_epoch


def due(step: int, every: float | None, total_steps: int) -> bool:
    """Whether something that happens each `every` steps (a fraction is fine) and at the end is due at `step`."""
    return step == total_steps or (every is not None and step // every > (step - 1) // every)


def _steps(config: ml_collections.ConfigDict, pair: tuple[str, str], steps_per_epoch: float) -> float | None:
    """The duration in steps, or None where neither unit is given."""
    flat = configs.flatten(config)
    epochs, steps = (flat[path] for path in pair)
    if steps is not None:
        return steps
    return None if epochs is None else epochs * steps_per_epoch


def num_parts(config: ml_collections.ConfigDict, device_batch: int) -> int:
    """Into how many equal parts the step splits a device's batch: the fewest that the two fields allow."""
    largest = config.train.part_size or device_batch
    return fewest_parts(device_batch, max(config.train.accumulate_steps, device_batch / largest))


def fewest_parts(device_batch: int, least: float) -> int | None:
    """The smallest divisor of `device_batch` that is at least `least`; None where there is none."""
    return next((n for n in range(math.ceil(least), device_batch + 1) if device_batch % n == 0), None)


def derive(config: ml_collections.ConfigDict, info: DatasetInfo, num_devices: int) -> RunPlan:
    """Resolves a validated config for a data set and the number of devices of the whole run.

    Raises:
      ValueError: if the batch does not divide over the devices, or the warm-up is longer than the run.
    """
    batch, parts = config.train.batch_size, config.train.accumulate_steps
    if batch % (num_devices * parts):
        fit = max(1, round(batch / (num_devices * parts))) * num_devices * parts
        raise ValueError(
            f"train.batch_size={batch} does not divide into {num_devices} devices x {parts} accumulation steps: "
            f"try --config.train.batch_size={fit}"
        )
    steps_per_epoch = info.num_train / batch
    durations = {pair[0]: _steps(config, pair, steps_per_epoch) for pair in schema.DURATIONS}
    total_steps = max(1, round(durations["train.num_epochs"]))
    warmup_steps = round(durations["schedule.warmup_epochs"] or 0)
    if warmup_steps >= total_steps and warmup_steps > 0:
        raise ValueError(
            f"the warm-up of {warmup_steps} steps leaves nothing of a run of {total_steps} steps: shorten it"
        )
    checkpoint_steps = durations["checkpoint.every_epochs"]
    return RunPlan(
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=warmup_steps,
        decay_steps=max(1, round(durations["schedule.decay_epochs"] or 1)),
        peak_lr=config.schedule.lr_per_256 * batch / 256,
        eval_steps=max(1, durations["eval.every_epochs"] or steps_per_epoch),
        checkpoint_steps=None if checkpoint_steps is None else max(1, checkpoint_steps),
        log_steps=config.log.every_steps,
        num_devices=num_devices,
        device_batch=batch // num_devices,
        num_parts=num_parts(config, batch // num_devices),
        eval_device_batch=math.ceil(min(config.eval.batch_size, info.num_eval) / num_devices),
        image_size=configs.image_size(config.data),
        image_sizes=_image_sizes(config, steps_per_epoch, total_steps),
    )


def _image_sizes(
    config: ml_collections.ConfigDict, steps_per_epoch: float, total_steps: int
) -> tuple[tuple[int, tuple[int, int]], ...]:
    """Returns (completed steps, size) of `train.image_sizes`.

    Raises:
      ValueError: if they are no such pairs, out of order, larger than `data.image_size` or not reached.
    """
    full, given = configs.image_size(config.data), config.train.image_sizes
    if given is None:
        return ((0, full),)
    said = f"train.image_sizes={given!r}"
    form = "give pairs of an epoch and pixels, such as ((0, 128), (40, 176), (80, 224))"
    if config.train.embedding_views:
        raise ValueError(f"{said}: embeddings are of one size: leave it None, or set train.embedding_views=0")
    if not isinstance(given, tuple | list) or not all(isinstance(one, tuple | list) and len(one) == 2 for one in given):
        raise ValueError(f"{said}: {form}")
    found = []
    for epoch, size in given:
        pair = schema.size_pair(size)
        if pair is None or not isinstance(epoch, int | float):
            raise ValueError(f"{said}: {form}")
        if not all(_SMALLEST <= side <= most for side, most in zip(pair, full, strict=True)):
            raise ValueError(
                f"{said}: sizes are from {_SMALLEST} pixels to data.image_size={config.data.image_size}, the size in "
                "which the input path makes images"
            )
        found.append((round(epoch * steps_per_epoch), pair))
    starts = [start for start, _ in found]
    if not found or starts[0] != 0 or any(a >= b for a, b in itertools.pairwise(starts)):
        raise ValueError(f"{said}: the first epoch is 0, and each is later than the one before: {form}")
    if starts[-1] >= total_steps:
        raise ValueError(f"{said}: the last size is never reached in a run of {total_steps} steps")
    return tuple(found)


def check_norms(
    config: ml_collections.ConfigDict,
    run_plan: RunPlan,
    plan: plans.ModelPlan,
    head: Iterable[tuple[plans.LayerPlan, plans.Size]] = (),
) -> str | None:
    """Returns a warning where batch norm has few values a channel to learn from, None where it has enough.

    Of one value alone nothing is left: it is its own mean. All images look the same then, and the loss stays where it
    is.

    Args:
      config: of the run.
      run_plan: what it comes to.
      plan: the backbone.
      head: layers that the task puts on its maps, and the sizes of these.

    Raises:
      ValueError: if a layer of the backbone has one value a channel.
    """
    if config.model.norm_frozen or not isinstance(plan.norm, plans.BatchNorm):
        return None
    images = run_plan.device_batch // run_plan.num_parts
    images *= run_plan.num_devices if config.model.norm_sync else 1
    smallest = min((size for _, size in run_plan.image_sizes), key=math.prod)
    rows, _ = count.summarize(plan, smallest, head)
    places = {row.name: row.output_shape[:-1] for row in rows if row.batch_statistics}
    name = min(places, key=lambda name: math.prod(places[name]))
    values = images * math.prod(places[name])
    if values >= _FEW:
        return None
    height, width = smallest
    side = " x ".join(map(str, places[name])) or "one value"
    said = (
        f"batch norm in {name!r} has {values} value{'s' * (values > 1)} a channel to normalise by: {side} an image of "
        f"{height} x {width} pixels, {images} image{'s' * (images > 1)} at a time"
    )
    sync = ", --config.model.norm_sync=True" if run_plan.num_devices > 1 and not config.model.norm_sync else ""
    parts = ", fewer accumulate_steps" if run_plan.num_parts > 1 else ""
    mend = (
        f"give a larger --config.train.batch_size or --config.data.image_size{parts}{sync}, or, from trained weights, "
        "--config.model.norm_frozen=True"
    )
    if values == 1 and any(row.name == name and row.kind != "head" for row in rows):
        raise ValueError(f"{said}. It is its own mean, so the network would see nothing: {mend}")
    return f"warning: {said}: {mend}"
