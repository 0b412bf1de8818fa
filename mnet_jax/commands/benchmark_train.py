"""`mnet benchmark train`: the real training step (normalisation, gradient, RMSprop, moving averages, metrics)."""

import argparse
import time
from typing import TextIO

from mnet_jax.commands import benchmark_setup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the mode."""
    benchmark_setup.add_arguments(parser, batch_size=16)
    parser.add_argument("--num_devices", type=int, metavar="N", help="devices to use (default: all)")


class Training:
    """The compiled step of a setup, and the state that it carries along."""

    def __init__(self, setup: benchmark_setup.Setup):
        """Compiles; `trace_seconds` and `compile_seconds` say how long that took."""
        from mnet_jax.training.optimizer import make_optimizer, make_schedule
        from mnet_jax.training.parallel import AXIS
        from mnet_jax.training.state import new_state
        from mnet_jax.training.step import make_train_step

        optimizer, schedule = make_optimizer(setup.config, setup.plan), make_schedule(setup.config, setup.plan)
        step = make_train_step(setup.model, setup.task, optimizer, schedule, setup.config, AXIS)
        self._batch = setup.batch
        self._state = setup.devices.replicate(new_state(setup.variables, optimizer, ema=True))
        start = time.perf_counter()
        lowered = setup.devices.pmap(step, donate_state=True).lower(self._state, self._batch)
        self.trace_seconds = time.perf_counter() - start
        self.compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - start - self.trace_seconds

    def step(self) -> object:
        """Updates the state; returns the metrics, maybe still under way."""
        self._state, metrics = self.compiled(self._state, self._batch)
        return metrics


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Compiles the step, times it and prints the figures."""
    setup = benchmark_setup.prepare(args, num_devices=args.num_devices)
    from mnet_jax.measuring import clock

    training = Training(setup)
    times = clock.timings(training.step, warmup=args.warmup, seconds=args.seconds)
    result = benchmark_setup.describe(args, setup) | {
        "trace_seconds": training.trace_seconds,
        "compile_seconds": training.compile_seconds,
        **benchmark_setup.figures(training.compiled, times, args, setup),
    }
    benchmark_setup.report(result, out, as_json=args.json)
    return 0
