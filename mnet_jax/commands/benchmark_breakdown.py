"""`mnet benchmark step-breakdown`: where the time of a training step goes, by phase and by kind of layer.

The step is compiled once, as training compiles it, and runs under jax's profiler. Each operation's time is added to the
phase and the kind of layer that its name in the compiled program tells: "transpose(" marks the backward pass, module
names the layer, `step.py`'s scopes the rest. A fused operation counts where its last part belongs; what the compiler
adds, as a copy into another layout, where it is used. The times are those of the operations: where several run side by
side their sum is more than the step's, and it is less where the profiler does not see all of them (on CPU, most of the
time of convolutions over all channels).
"""

import argparse
import collections
import itertools
import json
import pathlib
import tempfile
from typing import TextIO

from mnet_jax.commands import benchmark
from mnet_jax.measuring import tpu

_STEPS = 5
_PHASES = ("augmentation", "forward", "backward", "optimizer", "moving averages", "other")
_SCOPES = {"augmentation": "augmentation", "optimizer": "optimizer", "moving_averages": "moving averages"}
_CONTAINERS = ("while", "call", "conditional")  # what is in them is timed by itself


def add_mode_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the mode."""
    benchmark.add_model_arguments(parser, batch_size=16)


def run_mode(args: argparse.Namespace, out: TextIO) -> int:
    """Compiles the step, runs it under the profiler and prints two tables."""
    setup = benchmark.prepare(args, num_devices=1)
    import jax

    from mnet_jax.measuring import clock

    training = benchmark.Training(setup)
    names = operation_names(training.compiled.as_text())
    times = clock.timings(training.step, warmup=args.warmup, seconds=args.seconds)
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            for _ in range(_STEPS):
                jax.block_until_ready(training.step())
        milliseconds = _operations(pathlib.Path(directory), names)
    if not milliseconds:
        raise ValueError("the profiler of this backend does not name the program's operations: nothing to break down")
    phases, layers = collections.Counter(), collections.Counter()
    for operation, time in milliseconds.items():
        phase, layer = classify(names[operation])
        phases[phase] += time
        layers[layer] += time
    result = benchmark.describe(args, setup) | {
        "median_ms": clock.spread(times)["median_ms"],
        "operations_ms": sum(milliseconds.values()),
        "phases_ms": {phase: phases[phase] for phase in _PHASES if phase in phases},
        "layers_ms": dict(layers.most_common()),
        "method": f"time of each compiled operation under the profiler, mean of {_STEPS} steps",
    }
    if args.json:
        print(json.dumps(result, indent=2), file=out)
        return 0
    print("{model} x{width:g}, {image_size} px, batch {batch_size}, {dtype}".format(**result), file=out)
    print(
        f"step {result['median_ms']:.1f} ms (median); operations {result['operations_ms']:.1f} ms, "
        f"mean of {_STEPS} steps under the profiler",
        file=out,
    )
    for title in ("phases_ms", "layers_ms"):
        print(file=out)
        for name, time in result[title].items():
            print(f"{name:<28}{time:>9.2f} ms {100 * time / result['operations_ms']:>6.1f} %", file=out)
    return 0


def _operations(directory: pathlib.Path, names: dict[str, str]) -> dict[str, float]:
    """Milliseconds a step of each operation of the program."""
    import jax

    total = collections.Counter()
    for path in directory.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    if event.name in names:
                        total[event.name] += event.duration_ns / 1e6 / _STEPS
    return dict(total)


def operation_names(program: str) -> dict[str, str]:
    """The traced name of each operation in a program's text; one without has that of its last reader, or ""."""
    names = {}
    _, computations = tpu.computations(program)
    for instruction in reversed(list(itertools.chain(*computations.values()))):
        own = tpu.OP_NAME.search(instruction.rest)
        name = own[1] if own else names.get(instruction.name, "")
        if name:
            for operand in tpu.OPERAND.findall(instruction.rest):
                names.setdefault(operand, name)
        if instruction.kind in _CONTAINERS:
            names.pop(instruction.name, None)
        else:
            names[instruction.name] = name
    return names


def classify(name: str) -> tuple[str, str]:
    """(phase, kind of layer) of an operation's name such as `jit(f)/transpose(jvp(MobileNet))/.../expand/norm/mul`."""
    scopes = set(name.split("/"))
    for scope, phase in _SCOPES.items():
        if scope in scopes:
            return phase, phase
    phase = "backward" if "transpose(" in name else "forward" if "jvp(" in name else "other"
    if "norm" in scopes:
        # the product of an expansion is computed with its batch norm (`norm_product.normalize_product`)
        return phase, "pointwise" if "dot_general" in name else "batch norm"
    if any(scope.endswith("depthwise") for scope in scopes):
        # what is left under a depthwise or pointwise layer but outside its product is the activation
        return phase, "depthwise" if "jit(_dispatch)" in name else "activation"
    if "stem" in scopes:
        return phase, "stem"
    if "/conv/cond/" in name:
        return phase, "convolution"
    if "se" in scopes:
        return phase, "squeeze-excite"
    if "classifier" in scopes:
        return phase, "classifier"
    if "dot_general" in name or name.endswith("/transpose"):
        return phase, "pointwise"
    if phase == "other":
        return phase, "other"
    return phase, "activation" if "MobileNet" in name else "loss"
