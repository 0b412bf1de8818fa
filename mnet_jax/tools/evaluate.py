"""`mnet evaluate`: top-1, top-5 and loss of a checkpoint, by the config that it carries."""

import dataclasses
import json
import sys
from typing import TextIO

_IMAGES_PER_DEVICE = 128  # at most, unless asked for: training's batch may have been for many more devices


def run(
    out: TextIO,
    *,
    checkpoint: str,
    step: int | str | None,
    ema: bool,
    data: str | None,
    data_dir: str | None,
    folder: str | None,
    split: str | None,
    batch_size: int | None,
    as_json: bool,
) -> int:
    """Evaluates and writes the result to `out`; the arguments are those of the command line."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, got {batch_size}")
    if folder is not None and data not in (None, "folder"):
        raise ValueError(f"--folder goes with --data folder, not with --data {data}: give one of them")

    from mnet_jax.data import catalog
    from mnet_jax.training import checkpoint as checkpoints
    from mnet_jax.training.build import build_model, build_task
    from mnet_jax.training.evaluation import Evaluator
    from mnet_jax.training.parallel import Devices, cache_compilations
    from mnet_jax.training.reporting import plain_number

    cache_compilations()
    trained = checkpoints.load(checkpoint, ema=ema, step=step)
    config = trained.config
    if data is not None or folder is not None:
        config.data.name = "folder" if folder is not None else data
        config.data.train_split = config.data.eval_split = None  # those of the training set
    if folder is not None:
        config.data.folder = folder
    if data_dir is not None:
        config.data.data_dir = data_dir
    if split is not None:
        config.data.eval_split = split

    info = catalog.describe(config.data)
    _check_classes(info.class_names, trained.class_names, info.name)
    # images are normalised as the network is used to, whatever the statistics of this set
    info = dataclasses.replace(info, mean=trained.info.mean, std=trained.info.std)

    devices = Devices()
    wanted = batch_size or min(config.eval.batch_size, _IMAGES_PER_DEVICE * devices.count, info.num_eval)
    device_batch = -(-wanted // devices.count)
    place = f"{info.name}, split {info.eval_split}"
    print(f"mnet: evaluating {info.num_eval:,} images of {place}", file=sys.stderr)
    evaluator = Evaluator(build_model(config, info), build_task(config, info), config, info, devices, device_batch)
    metrics = evaluator(devices.replicate(trained.variables))

    weights = "averaged" if ema and config.ema.decay > 0 else "raw"
    if as_json:
        result = {
            "checkpoint": trained.path,
            "step": trained.step,
            "weights": weights,
            "data": info.name,
            "split": info.eval_split,
            **{name: plain_number(value) for name, value in metrics.items()},
        }
        print(json.dumps(result, indent=2), file=out)
        return 0
    print(f"checkpoint  {trained.path} (step {trained.step:,}, {weights} weights)", file=out)
    print(f"data        {place}", file=out)
    print(f"images      {metrics['num_images']:,}", file=out)
    print(f"top-1       {100 * metrics['top1']:.2f} %", file=out)
    print(f"top-5       {100 * metrics['top5']:.2f} %", file=out)
    print(f"loss        {metrics['loss']:.4f}", file=out)
    return 0


def _check_classes(found: tuple[str, ...], known: tuple[str, ...], name: str) -> None:
    """Labels are numbers: they mean the same classes only where the names agree, in order."""
    if len(found) != len(known):
        raise ValueError(
            f"{name} has {len(found)} classes, the checkpoint knows {len(known)}: "
            "give --data (with --data_dir or --folder) a set of the same classes"
        )
    if found != known:
        place, theirs, ours = next((i, a, b) for i, (a, b) in enumerate(zip(found, known, strict=True)) if a != b)
        print(
            f"mnet: warning: class {place} is {theirs!r} in {name}, {ours!r} in the checkpoint; "
            "classes are compared by number",
            file=sys.stderr,
        )
