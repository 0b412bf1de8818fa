"""`mnet evaluate`: top-1, top-5 and loss of a checkpoint, by the config that it carries."""

import argparse
import dataclasses
import json
import sys
from typing import TextIO

from mnet_jax.tools import weights

_IMAGES_PER_DEVICE = 128  # at most, unless asked for: training's batch may have been for many more devices


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, and on which images."""
    weights.add_arguments(parser)
    weights.add_batch_size(parser)
    parser.add_argument(
        "--data", metavar="NAME", help="a TFDS name, digits or folder (default: what it was trained on)"
    )
    parser.add_argument("--data_dir", metavar="DIR", help="the TFDS directory (default: as in training)")
    parser.add_argument(
        "--folder", metavar="DIR", help="images in DIR/<class>/ or DIR/val/<class>/; means --data folder"
    )
    parser.add_argument("--split", help="split to evaluate (default: as in training)")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Evaluates and writes the result to `out`."""
    if args.folder is not None and args.data not in (None, "folder"):
        raise ValueError(f"--folder goes with --data folder, not with --data {args.data}: give one of them")

    from mnet_jax.data import catalog
    from mnet_jax.training.build import build_model, build_task
    from mnet_jax.training.evaluation import Evaluator
    from mnet_jax.training.parallel import Devices, cache_compilations
    from mnet_jax.training.reporting import plain_number

    cache_compilations()
    trained = weights.load(args)
    config = trained.config
    if args.data is not None or args.folder is not None:
        config.data.name = "folder" if args.folder is not None else args.data
        config.data.train_split = config.data.eval_split = None  # those of the training set
    if args.folder is not None:
        config.data.folder, config.data.manifest, config.data.split_from = args.folder, None, None
    if args.data_dir is not None:
        config.data.data_dir = args.data_dir
    if args.split is not None:
        config.data.eval_split = args.split

    info = catalog.describe(config.data)
    complaint = catalog.complaint(config.data)
    if complaint:
        print(f"mnet: {complaint}", file=sys.stderr)
    _check_classes(info.class_names, trained.class_names, info.name)
    # images are normalised as the network is used to, whatever the statistics of this set
    info = dataclasses.replace(info, mean=trained.info.mean, std=trained.info.std)

    devices = Devices()
    wanted = args.batch_size or min(config.eval.batch_size, _IMAGES_PER_DEVICE * devices.count, info.num_eval)
    device_batch = -(-wanted // devices.count)
    place = f"{info.name}, split {info.eval_split}"
    print(f"mnet: evaluating {info.num_eval:,} images of {place}", file=sys.stderr)
    evaluator = Evaluator(build_model(config, info), build_task(config, info), config, info, devices, device_batch)
    metrics = evaluator(devices.replicate(trained.variables))

    averaged = "averaged" if args.ema and config.ema.decay > 0 else "raw"
    if args.json:
        result = {
            "checkpoint": trained.path,
            "step": trained.step,
            "weights": averaged,
            "data": info.name,
            "split": info.eval_split,
            **{name: plain_number(value) for name, value in metrics.items()},
        }
        print(json.dumps(result, indent=2), file=out)
        return 0
    print(f"checkpoint  {trained.path} (step {trained.step:,}, {averaged} weights)", file=out)
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
