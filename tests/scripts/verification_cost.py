"""Saves and restores a run of v3_large: the share of it that sums take, as time on the clock and as processor time.

python tests/scripts/verification_cost.py --repeat 20
"""

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from unittest import mock

import jax
import numpy as np

from mnet_jax.config import load as load_config
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models.variables import initial_variables
from mnet_jax.tasks.task import Metric
from mnet_jax.training import checkpoint, saved, setup


class Clock:
    """What the calls of some functions took, their own threads' processor time beside it."""

    def __init__(self) -> None:
        self.wall = self.processor = 0.0

    def watch(self, module: object, name: str) -> object:
        """Returns a patch that counts the calls of a function of a module."""
        usual = getattr(module, name)

        @functools.wraps(usual)
        def timed(*args: object) -> object:
            wall, processor = time.perf_counter(), time.thread_time()
            try:
                return usual(*args)
            finally:
                self.wall += time.perf_counter() - wall
                self.processor += time.thread_time() - processor

        return mock.patch.object(module, name, timed)


def measure(what: str, action: Callable[[], object], functions: list[str], repeat: int) -> None:
    """Prints what share of an action the functions of `saved` take, the median of so many times."""
    rows = []
    for _ in range(repeat):
        clock = Clock()
        with mock.patch.multiple(saved, **{name: clock.watch(saved, name).new for name in functions}):
            wall, processor = time.perf_counter(), time.process_time()
            action()
            rows.append((clock.wall, time.perf_counter() - wall, clock.processor, time.process_time() - processor))
    sums, wall, sums_processor, processor = (1000 * statistics.median(column) for column in zip(*rows, strict=True))
    wall_share, processor_share = (
        100 * statistics.median(row[at] / (row[at + 1] - row[at]) for row in rows) for at in (0, 2)
    )
    print(
        f"{what}: {wall:.0f} ms, of which sums {sums:.1f} ms ({wall_share:.1f} % of the rest); processor "
        f"{processor:.0f} ms, of which sums {sums_processor:.1f} ms ({processor_share:.1f} %)"
    )


def main() -> None:
    """Prints a line for a save and one for a restore."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=20)
    args = parser.parse_args()
    config, info = load_config("v3_large"), DatasetInfo.made_up(1000)
    learned = setup.learning(config, info, 1)
    fresh = initial_variables(learned.network.list_variables(), 0)
    draw = np.random.default_rng(0)
    state = jax.tree.map(
        lambda x: draw.normal(size=x.shape).astype(x.dtype) if x.ndim else np.asarray(x), learned.new_state(fresh)
    )
    size = sum(x.nbytes for x in jax.tree.leaves(state)) / 2**20
    with tempfile.TemporaryDirectory() as place:
        metric = Metric("top1", "top-1", percent=True, higher_is_better=True)
        checkpoints = checkpoint.Checkpoints(place, keep=2, metric=metric)
        steps = iter(range(1, 10_000))

        def save() -> None:
            checkpoints.save(next(steps), state, config, info, None)
            checkpoints.wait()

        save()
        measure(f"a save of {size:.0f} MiB", save, ["array_sum", "seal"], args.repeat)
        checkpoints.close()
        measure(
            f"a restore of {size:.0f} MiB",
            lambda: checkpoint.newest_whole(place, print),
            ["_check_files", "_check_arrays"],
            args.repeat,
        )


if __name__ == "__main__":
    main()
