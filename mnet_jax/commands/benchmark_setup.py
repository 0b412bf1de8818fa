"""What the benchmarks of a model share: their options, and the run that these describe, with made-up images."""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import jax
    import ml_collections

    from mnet_jax.models import MobileNet
    from mnet_jax.tasks.classification.task import Classification
    from mnet_jax.training.parallel import Devices
    from mnet_jax.training.run_plan import RunPlan
    from mnet_jax.training.state import Tree


def add_arguments(parser: argparse.ArgumentParser, *, batch_size: int) -> None:
    """Model, size, batch, dtype and how long to measure."""
    parser.add_argument("model", metavar="MODEL", help="one of `mnet models`")
    parser.add_argument("--width", type=float, default=1.0, help="width multiplier (default: 1.0)")
    parser.add_argument("--image_size", type=int, default=224, metavar="PIXELS", help="side of an image (default: 224)")
    parser.add_argument(
        "--batch_size", type=int, default=batch_size, metavar="N", help=f"over all devices (default: {batch_size})"
    )
    parser.add_argument("--num_classes", type=int, default=1000, help="size of the classifier (default: 1000)")
    parser.add_argument("--dtype", default="float32", help="compute in float32 or bfloat16 (default: float32)")
    parser.add_argument("--padding", default="same", help="same or symmetric (default: same)")
    parser.add_argument("--warmup", type=int, default=2, metavar="N", help="runs before the clock starts (default: 2)")
    parser.add_argument("--seconds", type=float, default=10.0, help="measure for this long (default: 10)")


@dataclasses.dataclass(frozen=True)
class Setup:
    """A model on devices, with one batch of made-up images."""

    config: "ml_collections.ConfigDict"
    model: "MobileNet"
    task: "Classification"
    devices: "Devices"
    plan: "RunPlan"
    variables: "Tree"  # float32, on the host
    batch: dict[
        str, "jax.Array"
    ]  # image uint8 [devices, batch, H, W, 3], label int32 and mask float32 [devices, batch]


def prepare(args: argparse.Namespace, *, num_devices: int | None = None) -> Setup:
    """Builds what the options describe, on all devices or on the first `num_devices`.

    Raises:
      ValueError: one line with what was given, what is allowed and what to type.
    """
    import numpy as np

    from mnet_jax import runtime, schema
    from mnet_jax.config import validate
    from mnet_jax.data.catalog import DatasetInfo
    from mnet_jax.models.variables import initial_variables
    from mnet_jax.trained import build_model, build_task
    from mnet_jax.training.parallel import AXIS, Devices
    from mnet_jax.training.run_plan import derive

    for name in ("batch_size", "num_classes"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} {getattr(args, name)}: give at least 1")
    if args.warmup < 0 or args.seconds < 0:
        raise ValueError("--warmup and --seconds must be 0 or more")
    runtime.keep_memory()
    config = schema.get_config()
    config.model.name, config.model.width = args.model, args.width
    config.model.dtype, config.model.padding = args.dtype, args.padding
    config.data.image_size = args.image_size
    config.train.batch_size, config.train.num_steps = args.batch_size, 1_000_000
    validate(config)
    devices = Devices(num_devices)
    info = DatasetInfo.made_up(args.num_classes)
    plan = derive(config, info, devices.count)
    model = build_model(config, info, axis_name=AXIS)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (args.batch_size, args.image_size, args.image_size, 3), np.uint8),
        "label": rng.integers(0, args.num_classes, args.batch_size).astype(np.int32),
        "mask": np.ones(args.batch_size, np.float32),
    }
    (placed,) = devices.feed([batch])
    task = build_task(config, info)
    return Setup(config, model, task, devices, plan, initial_variables(model.list_variables(), 0), placed)


def report(result: dict[str, object], out: TextIO, *, as_json: bool) -> None:
    """Prints one measurement: a line a figure, or one JSON document."""
    if as_json:
        print(json.dumps(result, indent=2), file=out)
        return
    width = max(map(len, result))
    for name, value in result.items():
        text = f"{value:,.4g}" if isinstance(value, float) else str(value)
        print(f"{name:<{width}}  {text}", file=out)


def describe(args: argparse.Namespace, setup: Setup) -> dict[str, object]:
    """The head of every result: what was measured, and on what."""
    import jax

    device = setup.devices.local[0]
    return {
        "model": args.model,
        "width": args.width,
        "image_size": args.image_size,
        "batch_size": args.batch_size,
        "dtype": args.dtype,
        "device": f"{setup.devices.count} x {device.device_kind}",
        "jax": jax.__version__,
    }


def figures(compiled: "jax.stages.Compiled", times: list[float], args: argparse.Namespace, setup: Setup) -> dict:
    """Speed, memory, and how near the program comes to the memory's own speed.

    `bandwidth_fraction` is the bytes that the program's operations read and write, a device, over the time and over the
    bandwidth that a triad reaches there. XLA counts them as if nothing were cached, so on a CPU, where small maps stay
    in the cache, the fraction can be above 1.
    """
    from mnet_jax.measuring import clock

    median = clock.spread(times)["median_ms"] / 1e3
    memory = clock.peak_memory(setup.devices.local[0])
    moved, bandwidth = clock.bytes_moved(compiled), clock.memory_bandwidth()
    needs = clock.program_memory(compiled)
    return {
        **clock.spread(times),
        "images_per_second": args.batch_size / median,
        f"peak_{memory['of']}_memory_mib": memory["bytes"] / 2**20,
        "program_memory_mib": None if needs is None else needs / 2**20,
        "bytes_moved_mib": None if moved is None else moved / 2**20,
        "bandwidth_gb_s": bandwidth / 1e9,
        "bandwidth_fraction": None if moved is None else moved / median / bandwidth,
    }
