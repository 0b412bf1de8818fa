"""Sends SIGTERM to train.py in each phase of a run: seconds until it has left, exit code, what it said, what was saved.

python tests/scripts/stop_times.py --repeat 3    # prints the table of docs/reliability.md
"""

import argparse
import dataclasses
import pathlib
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable

import small_run

# Steps, evaluations and saves that take so long that a signal meets them.
SLOW = {
    "data.image_size": 96,
    "train.batch_size": 128,
    "train.num_steps": 40,
    "eval.every_steps": 4,
    "eval.batch_size": 64,
    "checkpoint.every_steps": 1,
}
LARGE = {**SLOW, "model.name": "v3_large", "model.width": 1.0, "eval.every_steps": 40}


@dataclasses.dataclass(frozen=True)
class Phase:
    """Where a signal comes."""

    name: str
    ready: Callable[[pathlib.Path, str], bool]  # (directory of the run, what it said) -> whether to send it
    fields: dict[str, object] = dataclasses.field(default_factory=lambda: SLOW)
    delay: float = 0.0  # seconds between that and the signal
    cold: bool = False  # nothing is compiled yet
    signals: int = 1


def reported(kind: str, step: int) -> Callable[[pathlib.Path, str], bool]:
    """Returns whether a row of this kind and step, or a later one, was written."""
    return lambda run, said: any(row["kind"] == kind and row["step"] >= step for row in small_run.rows(run))


PHASES = (
    Phase("start: Python reads its libraries", lambda run, said: True, delay=1.0),
    Phase("start: the run's directory is there", lambda run, said: (run / "config.json").exists()),
    Phase("the step is compiled (v3_large)", lambda run, said: "Compiling jit(_fun)" in said, LARGE, 3.0, True),
    Phase("a step", reported("train", 2), delay=0.3),
    Phase("an evaluation", reported("train", 4), delay=0.1),
    Phase("a save", lambda run, said: small_run.is_saving(run)),
    Phase("a save (v3_large)", lambda run, said: small_run.is_saving(run), LARGE),
    Phase("a step, two signals", reported("train", 2), delay=0.1, signals=2),
)


def main() -> None:
    """Prints the slowest of each phase."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default="", help="phases whose names have this in them")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        print("| signal during | seconds to the exit | code | the last line | saved |\n|---|---|---|---|---|")
        for number, phase in enumerate(phase for phase in PHASES if args.only in phase.name):
            found = [stop(place, f"{number}_{again}", phase) for again in range(args.repeat)]
            seconds, code, line, saved = max(found)
            print(f"| {phase.name} | {seconds:.1f} | {code} | {line} | {saved} |", flush=True)


def stop(place: pathlib.Path, name: str, phase: Phase) -> tuple[float, int, str, str]:
    """Returns seconds, exit code, the last line and what was saved."""
    compiled = f"compiled_{name}" if phase.cold else "compiled"
    line, environment = small_run.command(place, name, phase.fields, compiled=compiled)
    environment["JAX_LOG_COMPILES"] = str(int(phase.cold))
    run, errors = place / name, place / f"{name}.err"
    with open(errors, "wb") as file:
        process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=file)
    while process.poll() is None and not phase.ready(run, errors.read_text(errors="replace")):
        time.sleep(0.002)
    time.sleep(phase.delay)
    start = time.monotonic()
    for sent in range(phase.signals):
        time.sleep(0.2 if sent else 0.0)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
    code = process.wait()
    seconds = time.monotonic() - start
    said = [line for line in errors.read_text(errors="replace").splitlines() if re.search("[Aa]sked", line)]
    folder = run / "checkpoints"
    steps = [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.exists() else []
    last = small_run.last_step(run)
    return seconds, code, said[-1] if said else "", f"{max(steps, default=0)} of {last} steps"


if __name__ == "__main__":
    main()
