"""`mnet benchmark MODE`: how fast a model trains and infers on made-up images; other modes have files of their own."""

import argparse
import dataclasses
import importlib
import json
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import jax
    import ml_collections

    from mnet_jax.training.parallel import Devices
    from mnet_jax.training.setup import Learning
    from mnet_jax.training.state import Tree

# mode -> (purpose, module with add_mode_arguments(parser) and run_mode(args, out) -> exit code; None: this one)
MODES = {
    "train": ("time training steps of a model", None),
    "infer": ("time inference of a model", None),
    "step-breakdown": ("show where the time of a training step goes", "mnet_jax.commands.benchmark_breakdown"),
    "input": (
        "time the input of a data set: reading, decoding, resizing, copying",
        "mnet_jax.commands.benchmark_input",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the modes, each with its own options."""
    modes = parser.add_subparsers(dest="mode", metavar="MODE", required=True)
    for name, (purpose, module) in MODES.items():
        description = f"{purpose[0].upper()}{purpose[1:]}."
        mode = modes.add_parser(name, help=purpose, description=description, allow_abbrev=False)
        if name == "train":
            add_model_arguments(mode, batch_size=16)
            mode.add_argument("--num_devices", type=int, metavar="N", help="devices to use (default: all)")
        elif name == "infer":
            add_model_arguments(mode, batch_size=1)
        else:
            importlib.import_module(module).add_mode_arguments(mode)
        # as `mnet` itself declares them: here they may follow the mode
        mode.add_argument("--json", action="store_true", help="print one JSON document")
        mode.add_argument("--traceback", action="store_true", help="show where an error came from")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Runs the mode that was asked for."""
    if args.mode == "train":
        return run_train(args, out)
    if args.mode == "infer":
        return run_infer(args, out)
    return importlib.import_module(MODES[args.mode][1]).run_mode(args, out)


# --- The modes "train" and "infer" ---


def run_train(args: argparse.Namespace, out: TextIO) -> int:
    """Times the real training step: normalisation, gradient, RMSprop, moving averages, metrics."""
    setup = prepare(args, num_devices=args.num_devices)
    from mnet_jax.measuring import clock

    training = Training(setup)
    times = clock.timings(training.step, warmup=args.warmup, seconds=args.seconds)
    result = describe(args, setup) | {
        "trace_seconds": training.trace_seconds,
        "compile_seconds": training.compile_seconds,
        **figures(training.compiled, times, args, setup),
    }
    report(result, out, as_json=args.json)
    return 0


def run_infer(args: argparse.Namespace, out: TextIO) -> int:
    """Times logits of normalised float32 images on one device, with the variables as arguments."""
    setup = prepare(args, num_devices=1)
    import jax

    from mnet_jax.measuring import clock

    variables = jax.device_put(setup.variables)
    images = setup.learning.task.eval_inputs({"image": setup.batch["image"][0]})
    start = time.perf_counter()
    compiled = jax.jit(setup.learning.network.apply).lower(variables, images).compile()
    compile_seconds = time.perf_counter() - start
    times = clock.timings(lambda: compiled(variables, images), warmup=args.warmup, seconds=args.seconds)
    result = describe(args, setup) | {
        "compile_seconds": compile_seconds,
        **figures(compiled, times, args, setup),
    }
    report(result, out, as_json=args.json)
    return 0


# --- What the modes of a model share ---


def add_model_arguments(parser: argparse.ArgumentParser, *, batch_size: int) -> None:
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
    learning: "Learning"
    devices: "Devices"
    variables: "Tree"  # float32, on the host
    batch: dict[str, "jax.Array"]  # image uint8 [devices, batch, H, W, 3], label int32, mask float32, index int32


def prepare(args: argparse.Namespace, *, num_devices: int | None = None) -> Setup:
    """Returns what the options describe, on all devices or on the first `num_devices`.

    Raises:
      ValueError: one line with what was given, what is allowed and what to type.
    """
    import numpy as np

    from mnet_jax import runtime, schema
    from mnet_jax.config import validate
    from mnet_jax.data.catalog import DatasetInfo
    from mnet_jax.models.variables import initial_variables
    from mnet_jax.training import setup
    from mnet_jax.training.parallel import Devices

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
    learning = setup.learning(config, info, devices.count)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (args.batch_size, args.image_size, args.image_size, 3), np.uint8),
        "label": rng.integers(0, args.num_classes, args.batch_size).astype(np.int32),
        "mask": np.ones(args.batch_size, np.float32),
    }
    (placed,) = devices.feed([batch])
    return Setup(config, learning, devices, initial_variables(learning.network.list_variables(), 0), placed)


class Training:
    """The compiled step of a setup, and the state that it carries along."""

    def __init__(self, setup: Setup):
        """Compiles; `trace_seconds` and `compile_seconds` say how long that took."""
        self._batch = setup.batch
        self._state = setup.devices.replicate(setup.learning.new_state(setup.variables))
        start = time.perf_counter()
        lowered = setup.devices.pmap(setup.learning.train_step(), donate_state=True).lower(self._state, self._batch)
        self.trace_seconds = time.perf_counter() - start
        self.compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - start - self.trace_seconds

    def step(self) -> object:
        """Updates the state; returns the metrics, maybe still under way."""
        self._state, metrics = self.compiled(self._state, self._batch)
        return metrics


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
    """Returns the head of every result: what was measured, and on what."""
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
    """Returns speed, memory, and how near the program comes to the memory's own speed.

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
