"""`mnet benchmark input`: images/s from the records of a data set to batches on the device, and what binds them."""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from mnet_jax import runtime

if TYPE_CHECKING:
    import ml_collections

_DRAIN = 8  # batches thrown away: more than are prepared ahead
_NAMES = {
    "read": "read",
    "decode": "+ decode and crop",
    "resize": "+ resize, flip, batch",
    "device": "+ to the device",
}
_ADVICE = {
    "read": "reading binds: a nearer or faster disk, or --config.data.cache_mb where the set fits into memory",
    "decode": "decoding binds: `mnet prepare` stores the set with small images",
    "resize": "resizing and batching bind: more processor cores, or a smaller --config.data.image_size",
    "device": "copying to the device binds",
}


def add_mode_arguments(parser: argparse.ArgumentParser) -> None:
    """Which set, and how it is fed."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="FILE", help="a run in configs/, as for train.py")
    what.add_argument("--data", metavar="NAME", help="a TFDS set, or digits")
    what.add_argument("--folder", metavar="DIR", help="photos/<class>/... or photos/train/<class>/...")
    parser.add_argument("--data_dir", metavar="DIR", help="the TFDS directory (default: as for train.py)")
    parser.add_argument("--image_size", type=int, metavar="PIXELS", help="side of an image (default: the config's)")
    parser.add_argument("--batch_size", type=int, default=64, metavar="N", help="images a batch (default: 64)")
    parser.add_argument("--cache_mb", type=int, metavar="N", help="as data.cache_mb; 0 streams (default: the config's)")
    parser.add_argument("--seconds", type=float, default=4.0, help="measure each stage for this long (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="in turn, so many times (default: 3)")


def run_mode(args: argparse.Namespace, out: TextIO) -> int:
    """Measures each stage with those before it, in turn, and prints what each adds."""
    if args.batch_size < 1 or args.seconds <= 0 or args.rounds < 1:
        raise ValueError("--batch_size, --seconds and --rounds must be above 0")
    runtime.keep_memory()  # as train.py does
    config = _config(args)
    from mnet_jax.data import pipeline
    from mnet_jax.data.dataset import Dataset
    from mnet_jax.trained import annotations
    from mnet_jax.training.parallel import Devices

    dataset = Dataset.open(config.data, annotations(config))
    devices = Devices(1)
    batches = pipeline.train_batches(dataset, batch_size=args.batch_size, seed=0, start_step=0)
    running: dict[str, Iterator] = {
        stage: pipeline.run_stage(dataset, stage, args.batch_size) for stage in pipeline.STAGES
    }
    running["device"] = devices.feed(batches)
    seconds: dict[str, list[float]] = {stage: [] for stage in running}
    read = [0, 0]  # bytes, batches
    for _ in range(args.rounds):
        for stage, part in running.items():
            count, spent = _time(part, args.seconds / args.rounds, read if stage == "read" else None)
            seconds[stage].append(spent / (count * args.batch_size))
    for part in (*running.values(), batches):
        part.close()  # tensorflow's threads must not outlive the program's last line
    each = {stage: statistics.median(values) for stage, values in seconds.items()}
    result = _result(each, read, args, dataset.info.name, runtime.num_cores(), devices.local[0].device_kind)
    if args.json:
        print(json.dumps(result, indent=2), file=out)
    else:
        print("\n".join(_lines(result)), file=out)
    return 0


def _config(args: argparse.Namespace) -> "ml_collections.ConfigDict":
    """Returns the config of `--config`, or the default one, with what the other arguments say of its data."""
    from mnet_jax import config as configs
    from mnet_jax import schema

    config = configs.load(args.config) if args.config else schema.get_config()
    data = config.data
    if not args.config:
        data.name, data.folder = args.data or "folder", args.folder
    for name in ("data_dir", "image_size", "cache_mb"):
        if getattr(args, name) is not None:
            data[name] = getattr(args, name)
    if data.image_size is None:
        raise ValueError("this config takes its image size from a checkpoint: give --image_size")
    return config


def _time(batches: Iterator, seconds: float, read: list[int] | None) -> tuple[int, float]:
    """(batches, seconds) of some batches, once what is ready from before is gone."""
    _settle()
    for _ in itertools.islice(batches, _DRAIN):
        pass
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds or count < 2:
        found = next(batches)
        count += 1
        if read is not None:
            read[0] += found
            read[1] += 1
    return count, time.perf_counter() - start


def _settle() -> None:
    """Waits until the threads of the stage before have filled their buffers."""
    for _ in range(50):
        before = time.process_time()
        time.sleep(0.1)
        if time.process_time() - before < 0.01:
            return


def _result(
    each: dict[str, float], read: list[int], args: argparse.Namespace, name: str, cores: int, device: str
) -> dict[str, object]:
    whole, before, adds = each["device"], 0.0, {}
    for stage, value in each.items():
        adds[stage] = max(value - before, 0.0)
        before = max(value, before)
    binds = max(adds, key=adds.__getitem__)
    return {
        "data": name,
        "batch_size": args.batch_size,
        "cores": cores,
        "device": device,
        "images_per_second": 1 / whole,
        "images_per_second_per_core": 1 / whole / cores,
        "encoded_kb_per_image": read[0] / max(read[1] * args.batch_size, 1) / 1e3,
        "stages": {
            stage: {
                "images_per_second": 1 / value,
                "adds_ms": 1e3 * adds[stage] * cores,
                "share": adds[stage] / max(sum(adds.values()), 1e-12),
            }
            for stage, value in each.items()
        },
        "binds": binds,
        "advice": _ADVICE[binds],
    }


def _lines(result: dict) -> Iterator[str]:
    yield (
        f"{result['data']}: {result['encoded_kb_per_image']:.0f} kB an image, batches of {result['batch_size']}, "
        f"{result['cores']} cores, {result['device']}"
    )
    yield f"{'stage':24}{'images/s':>10}{'core ms an image':>18}{'share':>8}"
    for stage, row in result["stages"].items():
        adds = f"{row['adds_ms']:>18.3f}{100 * row['share']:>6.0f} %"
        yield f"{_NAMES[stage]:24}{row['images_per_second']:>10,.0f}{adds}"
    whole = f"{result['images_per_second']:,.0f} images/s, {result['images_per_second_per_core']:,.0f} a core"
    yield f"{whole}; {result['advice']}"
