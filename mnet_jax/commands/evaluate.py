"""`mnet evaluate`: the task's metrics of a checkpoint, by the config that it carries."""

import argparse
import dataclasses
import json
import math
import os
import sys
from typing import TextIO

from mnet_jax.commands import arguments
from mnet_jax.files import tell

_IMAGES_PER_DEVICE = 128  # at most, unless asked for: training's batch may have been for many more devices


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, and on which images."""
    arguments.add_model(parser)
    arguments.add_batch_size(parser)
    arguments.add_data(parser)
    parser.add_argument(
        "--report", metavar="DIR", help="write what is right and wrong there: tables by class, confusion, mistakes"
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Evaluates and writes the result to `out`."""
    arguments.check_data(args)

    from mnet_jax import tasks
    from mnet_jax.runtime import cache_compilations, keep_memory
    from mnet_jax.trained import build_model, task_of
    from mnet_jax.training import evaluation
    from mnet_jax.training.batches import ImageBatches
    from mnet_jax.training.parallel import Devices
    from mnet_jax.training.reporting.run_files import plain_number

    keep_memory()
    cache_compilations()
    trained = arguments.load_model(args)
    dataset, config = arguments.open_data(args, trained)
    info = dataset.info
    devices = Devices()
    wanted = args.batch_size or min(config.eval.batch_size, _IMAGES_PER_DEVICE * devices.count, info.num_eval)
    device_batch = -(-wanted // devices.count)
    place = f"{args.folder or info.name}, split {info.eval_split}"
    print(f"mnet: evaluating {info.num_eval:,} images of {place}", file=sys.stderr)
    task = task_of(trained, config)
    network, source = build_model(config, info, task=task), ImageBatches(dataset, config.seed)
    face = tasks.face(config.task.name, "report") if args.report else None
    if face and (refusal := face.refusal(task, info)):
        raise ValueError(f"--report {args.report}: {refusal}")
    evaluator = evaluation.Evaluator(
        network, task, source, devices, device_batch=device_batch, num_images=info.num_eval
    )
    metrics = evaluator(devices.replicate(trained.variables))
    if face:
        os.makedirs(args.report, exist_ok=True)
        batches = source.evaluation(batch_size=device_batch * devices.count, process_index=0, process_count=1)
        outputs = evaluation.outputs(network, task, trained.variables, batches, devices)
        for line in face.report(task, outputs, dataset, args.report, step=trained.step or 0):
            tell(line)

    averaged = "averaged" if args.ema and config.ema.decay > 0 else "raw"
    averaged = "published" if trained.published else averaged
    accuracy = trained.accuracy
    if args.json:
        result = {
            "checkpoint": trained.path,
            "step": trained.step,
            "weights": averaged,
            "data": info.name,
            "split": info.eval_split,
            **{name: plain_number(value) for name, value in metrics.items()},
            **({} if accuracy is None else {"published": dataclasses.asdict(accuracy)}),
        }
        print(json.dumps(result, indent=2), file=out)
        return 0
    if trained.published:
        print(f"weights     {trained.path}", file=out)
    else:
        print(f"checkpoint  {trained.path} (step {trained.step:,}, {averaged} weights)", file=out)
    print(f"data        {place}", file=out)
    print(f"images      {metrics['num_images']:,}", file=out)
    for metric in (*task.metrics, *task.more_metrics):
        value = metrics[metric.name]
        print(f"{metric.label:<11} {metric.show(value) if math.isfinite(value) else '-'}", file=out)
        if trust := metric.interval(value, metrics["num_images"]):
            print(f"{'':<11} {100 * trust[0]:.1f} to {100 * trust[1]:.1f} % is the 95 % interval", file=out)
    if accuracy is not None:
        top5 = "" if accuracy.top5 is None else f", top-5 {accuracy.top5:.2f} %"
        print(
            f"published   top-1 {accuracy.top1:.2f} %{top5} at {accuracy.image_size} px ({accuracy.source})", file=out
        )
    return 0
