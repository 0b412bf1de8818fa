"""`mnet tpu-check`: the real train step, compiled for a TPU slice on a machine that has none. See docs/tpu.md."""

import argparse
import collections
import dataclasses
import json
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from mnet_jax.commands import arguments
from mnet_jax.measuring import tpu

if TYPE_CHECKING:
    import flax.linen as nn
    import jax
    import ml_collections

    from mnet_jax.data.catalog import DatasetInfo
    from mnet_jax.training.parallel import DescribedDevices, Devices

_MISSING = "libtpu, the TPU compiler, is not installed (Linux on x86_64 only): pip install 'mnet_jax[tpu-check]'"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Report:
    """What is known about a train step on one device of a slice; estimates are None where it does not fit."""

    model: str
    topology: str
    chip: str
    devices: int
    batch_size: int
    device_batch: int
    num_parts: int
    fits: bool
    hbm_gib: float | None  # arguments + temporaries + outputs - what outputs share with arguments
    hbm_available_gib: float
    cycles: int | None
    bytes_accessed: int | None  # by XLA's count, on-chip memory included
    hbm_bytes: int | None  # of those, what operations read from and write to HBM
    step_ms: float | None
    bound: str | None  # "cycles" or "bandwidth"
    images_per_second_per_chip: float | None
    operations: list[dict[str, object]]
    advice: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run and the slice."""
    parser.add_argument("--config", required=True, metavar="FILE", help="a file in configs/, as for train.py")
    parser.add_argument(
        "--topology",
        required=True,
        metavar="SLICE",
        help="chip and shape: v5e:2x2, v5e:16x16, v4:4x4x4, v5p:4x4x4, v6e:8x8, tpu7x:2x2x1",
    )
    parser.add_argument(
        "--num_classes",
        type=arguments.positive,
        metavar="N",
        help="of a data set that is not on this machine (default: it is looked at; ImageNet, CIFAR and COCO are known)",
    )
    parser.epilog = "Fields are overridden as for train.py: --config.train.batch_size=512"


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Compiles and reports; 0 if the step fits, 1 if not."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # this machine's own devices are not needed
    from mnet_jax.config import load, validate

    config = load(args.config, args.overrides)
    validate(config)
    report = check(config, args.topology, args.num_classes)
    if args.json:
        print(json.dumps(dataclasses.asdict(report), indent=2), file=out)
    else:
        print("\n".join(_lines(report)), file=out)
    return 0 if report.fits else 1


def check(config: "ml_collections.ConfigDict", topology: str, num_classes: int | None = None) -> Report:
    """Compiles the train step of a validated config for all devices of a slice.

    Args:
      config: of the run.
      topology: the slice.
      num_classes: of its data set, which need not be here then; None: as the set says.

    Raises:
      ValueError: for a slice or config that cannot be, and where libtpu is not installed.
    """
    import jax

    from mnet_jax.training.parallel import DescribedDevices, describe_tpu, uncached_compilation
    from mnet_jax.training.run_plan import derive

    try:
        devices = DescribedDevices(describe_tpu(topology))
    except ModuleNotFoundError as error:
        raise ValueError(_MISSING) from error
    chip, info = tpu.chip(devices.local[0].device_kind), _data(config, num_classes)
    run_plan = derive(config, info, devices.count)
    shared = {
        "model": config.model.name,
        "topology": topology,
        "chip": chip.name,
        "devices": devices.count,
        "batch_size": config.train.batch_size,
        "device_batch": run_plan.device_batch,
        "num_parts": run_plan.num_parts,
        "hbm_available_gib": chip.hbm / tpu.GIB,
    }
    try:
        with uncached_compilation():
            compiled = lower(config, info, devices).compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _needed(str(error))
        if needed is None:
            raise
        return Report(
            **shared,
            fits=False,
            hbm_gib=needed / tpu.GIB,
            cycles=None,
            bytes_accessed=None,
            hbm_bytes=None,
            step_ms=None,
            bound=None,
            images_per_second_per_chip=None,
            operations=[],
            advice=_advice(needed, chip.hbm, run_plan.device_batch, devices.count, run_plan.num_parts),
        )
    memory, operations = compiled.memory_analysis(), tpu.operations(compiled.as_text())
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    needed += memory.output_size_in_bytes - memory.alias_size_in_bytes
    cycles, hbm_bytes = sum(operation.cycles for operation in operations), _moved(operations)
    times = {"cycles": cycles / chip.clock, "bandwidth": hbm_bytes / chip.bandwidth}
    bound = max(times, key=times.get)
    return Report(
        **shared,
        fits=needed <= chip.hbm,
        hbm_gib=needed / tpu.GIB,
        cycles=cycles,
        bytes_accessed=round(compiled.cost_analysis()["bytes accessed"]),
        hbm_bytes=hbm_bytes,
        step_ms=1e3 * times[bound],
        bound=bound,
        images_per_second_per_chip=run_plan.device_batch * chip.per_chip / times[bound],
        operations=_dearest(operations),
        advice="",
    )


def _data(config: "ml_collections.ConfigDict", num_classes: int | None) -> "DatasetInfo":
    from mnet_jax.data.catalog import DatasetInfo, statistics

    if num_classes is not None:
        return DatasetInfo.made_up(num_classes, name=config.data.name, statistics=statistics(config.data.name))
    try:
        return arguments.describe_data(config)
    except ValueError as error:
        raise ValueError(f"{error}; for a data set that is elsewhere give --num_classes") from error


def lower(
    config: "ml_collections.ConfigDict",
    info: "DatasetInfo",
    devices: "DescribedDevices | Devices",
    network: "nn.Module | None" = None,
) -> "jax.stages.Lowered":
    """Returns the train step exactly as training makes it, or with another `network`, lowered from shapes alone."""
    import jax

    from mnet_jax.training import batches, setup

    learning = setup.learning(config, info, devices.count)
    network, run_plan = network or learning.network, learning.run_plan
    image = jax.ShapeDtypeStruct((1, *run_plan.image_size, 3), "float32")
    variables = jax.eval_shape(lambda image: network.init(jax.random.key(0), image, train=False), image)
    # Flax leaves out a collection without variables: that of V5, whose norms have no statistics
    state = jax.eval_shape(learning.new_state, {"batch_stats": {}, **variables})
    batch = batches.shapes(
        learning.task.annotations, run_plan.image_size, devices.count, run_plan.device_batch, train=True
    )
    return devices.pmap(learning.train_step(network), donate_state=True).lower(state, batch)


def _needed(error: str) -> int | None:
    """Bytes of HBM that a program needs which did not fit, from the compiler's message; None for another error."""
    if "RESOURCE_EXHAUSTED" not in error:
        return None
    found = [
        float(number) * _UNITS[unit]
        for pattern in (r"\(([\d.]+)([KMGT]?)\) exceeds", r"Used ([\d.]+)([KMGT]?) of")
        for number, unit in re.findall(pattern, error)
    ]
    return round(max(found)) if found else None


def _advice(needed: int, available: int, device_batch: int, devices: int, parts: int) -> str:
    """Returns what to type where a step does not fit."""
    from mnet_jax.training.parallel import memory_advice

    # all but some hundred megabytes grow with the images at a time; the compiler keeps a part of HBM for itself
    return memory_advice(needed / (0.9 * available), device_batch, devices, parts)


def _moved(operations: Iterable[tpu.Operation]) -> int:
    return sum(operation.hbm_bytes for operation in operations)


def _dearest(operations: list[tpu.Operation]) -> list[dict[str, object]]:
    """The layers' operations with the most cycles, those of one layer and direction together."""
    groups = collections.defaultdict(list)
    for operation in operations:
        groups[operation.label].append(operation)
    total = sum(operation.cycles for operation in operations) or 1
    rows = [
        {
            "layer": label,
            "cycles": sum(operation.cycles for operation in group),
            "share": sum(operation.cycles for operation in group) / total,
            "hbm_bytes": _moved(group),
        }
        for label, group in groups.items()
    ]
    return sorted(rows, key=lambda row: -row["cycles"])[:_SHOWN]


def _lines(report: Report) -> list[str]:
    lines = [
        f"{report.model} on {report.topology}: {report.devices} devices, {report.batch_size} images a step, "
        f"{report.device_batch} a device" + (f" in {report.num_parts} parts" if report.num_parts > 1 else ""),
        f"HBM a device      {report.hbm_gib:.2f} GiB of {report.hbm_available_gib:.0f} GiB"
        + ("" if report.fits else ": DOES NOT FIT"),
    ]
    if report.cycles is None:
        return [*lines, f"To make it fit, {report.advice}"]
    lines += [
        f"estimated cycles  {report.cycles / 1e6:.2f} M a step",
        f"bytes accessed    {report.bytes_accessed / 1e9:.2f} GB, {report.hbm_bytes / 1e9:.2f} GB of it in HBM",
        f"estimated speed   {report.images_per_second_per_chip:,.0f} images/s a chip, {report.step_ms:.2f} ms a step, "
        f"bound by {report.bound}",
        "",
        f"{'the dearest':<44}{'k cycles':>10}{'share':>8}{'HBM MB':>9}",
    ]
    for row in report.operations:
        lines.append(
            f"{row['layer']:<44}{row['cycles'] / 1e3:>10,.0f}{row['share']:>8.1%}{row['hbm_bytes'] / 1e6:>9,.0f}"
        )
    return lines
