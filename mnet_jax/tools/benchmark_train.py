"""`mnet benchmark train`: the real training step (normalisation, gradient, RMSprop, moving averages, metrics)."""

import argparse
import time
from typing import TextIO

from mnet_jax.tools import benchmark_setup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the mode."""
    benchmark_setup.add_arguments(parser, batch_size=16)
    parser.add_argument("--num_devices", type=int, metavar="N", help="devices to use (default: all)")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Compiles the step, times it and prints the figures."""
    setup = benchmark_setup.prepare(args, num_devices=args.num_devices)
    from mnet_jax.tools import measure
    from mnet_jax.training.optimizer import make_optimizer, make_schedule
    from mnet_jax.training.parallel import AXIS
    from mnet_jax.training.state import new_state
    from mnet_jax.training.step import make_train_step

    optimizer = make_optimizer(setup.config, setup.plan)
    schedule = make_schedule(setup.config, setup.plan)
    step = make_train_step(setup.model, setup.task, optimizer, schedule, setup.config, AXIS)
    state = setup.devices.replicate(new_state(setup.variables, optimizer, ema=True))
    start = time.perf_counter()
    lowered = setup.devices.pmap(step, donate_state=True).lower(state, setup.batch)
    trace_seconds = time.perf_counter() - start
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - start - trace_seconds

    def once() -> object:
        nonlocal state
        state, metrics = compiled(state, setup.batch)
        return metrics

    times = measure.timings(once, warmup=args.warmup, seconds=args.seconds)
    result = benchmark_setup.describe(args, setup) | {
        "trace_seconds": trace_seconds,
        "compile_seconds": compile_seconds,
        **benchmark_setup.figures(compiled, times, args, setup),
    }
    benchmark_setup.report(result, out, as_json=args.json)
    return 0
