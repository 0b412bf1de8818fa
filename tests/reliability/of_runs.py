"""Faults in the directory of a run: damaged checkpoints, config.json, metrics.jsonl."""

import pathlib
from collections.abc import Callable

import faults
from fault import NOTHING, REFUSED, Fault, Outcome, Things

from mnet_jax.training import checkpoint, setup
from mnet_jax.training.reporting.run_files import read_rows


def start(damage: Callable[[pathlib.Path], object]) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: damages a run with checkpoints at 10, 20 and 30, and starts it again up to its weights."""

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        run, lines = things.copy("run", place), []
        damage(run)
        try:
            found = checkpoint.newest_whole(str(run), lines.append)
            setup._own_config(str(run), found, lines.append)
            read_rows(run / "metrics.jsonl")
        except ValueError as error:
            return Outcome(f"train.py: {error}", REFUSED)
        return Outcome("\n".join(lines), f"{30 - found.step} steps" if found.step < 30 else NOTHING)

    return inject


RUNS = [
    *(
        Fault(
            f"newest checkpoint: {name}",
            start(damage),
            r"^warning: \S+checkpoints/30 is damaged: .* It is now in \S+damaged/30; the run goes on from step 20; 10 ",
            "10 steps",
        )
        for name, damage in faults.NEWEST.items()
    ),
    *(
        Fault(name, start(damage), r"^(\(nothing: it goes on\)|warning: .* restored from|warning: .*was not needed)")
        for name, damage in faults.OTHER.items()
    ),
    *(
        Fault(name, start(damage), r"^train.py: no checkpoint of \S+ is whole: .* another --workdir, or ", REFUSED)
        for name, damage in faults.REFUSED.items()
    ),
]
