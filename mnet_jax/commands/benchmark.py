"""`mnet benchmark MODE`: how fast a model trains and infers on made-up images; other modes have files of their own."""

import argparse
import dataclasses
import importlib
import json
import time
from typing import TYPE_CHECKING, TextIO

from mnet_jax.commands import arguments

if TYPE_CHECKING:
    import jax
    import ml_collections

    from mnet_jax.data.catalog import DatasetInfo
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

_OF_MODEL = ("width", "num_classes", "image_size", "dtype", "padding")  # options that a config has fields for
_TOP = 300  # results of `--predict`: of all that torchvision's detectors give


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
            mode.add_argument(
                "--predict",
                action="store_true",
                help="with what `mnet predict` reads of the outputs: the classes of highest score, or detections",
            )
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
    """Times the real training step: normalisation, gradient, optimizer, moving averages, metrics."""
    setup = prepare(args, num_devices=args.num_devices)
    from mnet_jax.measuring import clock

    training = Training(setup)
    times = clock.timings(training.step, warmup=args.warmup, seconds=args.seconds)
    result = describe(args, setup) | {
        "trace_seconds": training.trace_seconds,
        "compile_seconds": training.compile_seconds,
        **figures(training.compiled, times, setup),
    }
    report(result, out, as_json=args.json)
    return 0


def run_infer(args: argparse.Namespace, out: TextIO) -> int:
    """Times the network, and with `--predict` its task, on normalised float32 images on one device.

    The variables are arguments of the program.
    """
    setup = prepare(args, num_devices=1)
    import jax

    from mnet_jax import tasks
    from mnet_jax.measuring import clock

    task, network = setup.learning.task, setup.learning.network
    face = tasks.face(setup.config.task.name, "predict") if args.predict else None

    def infer(variables: "Tree", images: jax.Array) -> "Tree":
        outputs = network.apply(variables, images)
        return outputs if face is None else face.select(task, outputs, _TOP)

    variables = jax.device_put(setup.variables)
    images = task.eval_inputs({"image": setup.batch["image"][0]})
    start = time.perf_counter()
    compiled = jax.jit(infer).lower(variables, images).compile()
    compile_seconds = time.perf_counter() - start
    times = clock.timings(lambda: compiled(variables, images), warmup=args.warmup, seconds=args.seconds)
    result = describe(args, setup) | {
        "compile_seconds": compile_seconds,
        **figures(compiled, times, setup),
    }
    report(result, out, as_json=args.json)
    return 0


# --- What the modes of a model share ---


def add_model_arguments(parser: argparse.ArgumentParser, *, batch_size: int) -> None:
    """Adds the network, its images, and how long to measure; `batch_size`: of a network that is named."""
    arguments.add_network(parser)
    parser.add_argument(
        "--image_size", type=int, metavar="PIXELS", help="side of an image (default: 224; of another task its own)"
    )
    parser.add_argument(
        "--batch_size", type=int, metavar="N", help=f"over all devices (default: {batch_size}, or the config's)"
    )
    parser.add_argument("--dtype", help="compute in float32 or bfloat16 (default: float32)")
    parser.add_argument("--padding", help="same or symmetric (default: same; of another task its own)")
    parser.add_argument("--warmup", type=int, default=2, metavar="N", help="runs before the clock starts (default: 2)")
    parser.add_argument("--seconds", type=float, default=10.0, help="measure for this long (default: 10)")
    parser.set_defaults(usual_batch_size=batch_size)


@dataclasses.dataclass(frozen=True)
class Setup:
    """A model on devices, with one batch of made-up images."""

    config: "ml_collections.ConfigDict"
    learning: "Learning"
    devices: "Devices"
    variables: "Tree"  # float32, on the host
    batch: dict[str, "jax.Array"]  # image uint8 [devices, batch, H, W, 3], and whatever else a training batch has


def prepare(args: argparse.Namespace, *, num_devices: int | None = None) -> Setup:
    """Returns what the options describe, on all devices or on the first `num_devices`.

    Raises:
      ValueError: one line with what was given, what is allowed and what to type.
    """
    from mnet_jax import runtime
    from mnet_jax.config import image_size
    from mnet_jax.data.made_up import make_batch
    from mnet_jax.models.variables import initial_variables
    from mnet_jax.training import setup
    from mnet_jax.training.parallel import Devices

    arguments.check_network(args, *_OF_MODEL)
    for name in ("batch_size", "num_classes"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name} {getattr(args, name)}: give at least 1")
    if args.warmup < 0 or args.seconds < 0:
        raise ValueError("--warmup and --seconds must be 0 or more")
    runtime.keep_memory()
    config, info = _of_model(args) if args.config is None else _of_config(args)
    devices = Devices(num_devices)
    learning = setup.learning(config, info, devices.count)
    size, batch_size = image_size(config.data), config.train.batch_size
    batch = make_batch(learning.task.annotations, info.num_classes, size, batch_size)
    (placed,) = devices.feed([batch])
    return Setup(config, learning, devices, initial_variables(learning.network.list_variables(), 0), placed)


def _of_model(args: argparse.Namespace) -> "tuple[ml_collections.ConfigDict, DatasetInfo]":
    """Returns the config of a network by name, and as many classes as it is to tell apart."""
    from mnet_jax import schema
    from mnet_jax.config import validate
    from mnet_jax.data.catalog import DatasetInfo
    from mnet_jax.models.heads.mask_tables import SegmenterSpec
    from mnet_jax.models.heads.networks import find_network
    from mnet_jax.models.heads.tables import DetectorSpec

    config, spec = schema.get_config(), find_network(args.model)
    usual_classes = 1000
    if isinstance(spec, DetectorSpec):
        config.update_from_flattened_dict(spec.settings)
        config.data.crop, usual_classes = "ssd", 90
    elif isinstance(spec, SegmenterSpec):
        config.update_from_flattened_dict(spec.settings)
        config.data.crop, usual_classes = "scale", 21
    else:
        config.model.name = args.model
    given = {"model.width": args.width, "model.dtype": args.dtype, "model.padding": args.padding}
    given["data.image_size"] = args.image_size
    config.update_from_flattened_dict({field: value for field, value in given.items() if value is not None})
    config.train.batch_size = args.usual_batch_size if args.batch_size is None else args.batch_size
    config.train.num_steps = 1_000_000
    validate(config)
    return config, DatasetInfo.made_up(usual_classes if args.num_classes is None else args.num_classes)


def _of_config(args: argparse.Namespace) -> "tuple[ml_collections.ConfigDict, DatasetInfo]":
    """Returns a config from its file, and what is known of its data set without its images, if it is published."""
    from mnet_jax.config import load, validate

    config = load(args.config, args.overrides)
    if args.batch_size is not None:
        config.train.batch_size = args.batch_size
    validate(config)
    return config, arguments.describe_data(config)


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

    config, device = setup.config, setup.devices.local[0]
    return {
        "model": args.model or args.config,
        "width": config.model.width,
        "image_size": config.data.image_size,
        "batch_size": config.train.batch_size,
        "dtype": config.model.dtype,
        "device": f"{setup.devices.count} x {device.device_kind}",
        "jax": jax.__version__,
    }


def figures(compiled: "jax.stages.Compiled", times: list[float], setup: Setup) -> dict:
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
        "images_per_second": setup.config.train.batch_size / median,
        f"peak_{memory['of']}_memory_mib": memory["bytes"] / 2**20,
        "program_memory_mib": None if needs is None else needs / 2**20,
        "bytes_moved_mib": None if moved is None else moved / 2**20,
        "bandwidth_gb_s": bandwidth / 1e9,
        "bandwidth_fraction": None if moved is None else moved / median / bandwidth,
    }
