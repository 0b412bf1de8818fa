"""Kills short runs of train.py (SIGKILL), many of them during a save; their last states are compared bit for bit.

python tests/scripts/run_kills.py --place DIR --kills 100    # the same command again goes on where it was stopped
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import random
import signal
import sys
import time

import small_run

STEPS, EACH = 40, 5  # of a run; kills of one run
# every second step is saved, and three are kept: kills also meet what deletes old ones
FIELDS = {"train.num_steps": STEPS, "eval.every_steps": 20, "checkpoint.every_steps": 2}
FIELDS |= {"data.eval_split": "test[:64]", "eval.batch_size": 64}
# Each start is a process of its own, split off one that has read the libraries: those take longer than all the rest.
FORKS = multiprocessing.get_context("forkserver")
LIBRARIES = ["mnet_jax.training.command", "mnet_jax.training.loop", "mnet_jax.data.tfds_set"]


def main() -> None:
    """Kills, goes on, and prints a line for each run and one for all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--place", type=pathlib.Path, required=True)
    parser.add_argument("--kills", type=int, default=100)
    args = parser.parse_args()
    place = args.place.absolute()
    place.mkdir(parents=True, exist_ok=True)
    os.environ.update(small_run.command(place, "whole", FIELDS)[1])
    FORKS.set_forkserver_preload(LIBRARIES)
    if not (place / "whole" / "checkpoints" / str(STEPS)).exists():
        finish(place, "whole")
    whole = small_run.arrays(place / "whole", STEPS)
    runs = -(-args.kills // EACH)
    for number in range(runs):
        record = place / f"killed_{number}.json"
        found = json.loads(record.read_text()) if record.exists() else {"kills": [], "equal": None}
        while len(found["kills"]) < EACH:
            found["kills"].append(kill(place, f"killed_{number}", random.Random(f"{number} {len(found['kills'])}")))
            record.write_text(json.dumps(found))
        if found["equal"] is None:
            finish(place, f"killed_{number}")
            found["equal"] = small_run.arrays(place / f"killed_{number}", STEPS) == whole and same_rows(place, number)
            record.write_text(json.dumps(found))
        print(f"run {number}: {', '.join(found['kills'])}: {'equal' if found['equal'] else 'DIFFERENT'}", flush=True)
    records = [json.loads((place / f"killed_{number}.json").read_text()) for number in range(runs)]
    kills = [kill for record in records for kill in record["kills"]]
    print(
        f"{len(kills)} kills of {runs} runs, {sum('save' in kill for kill in kills)} of them during a save; "
        f"{sum(record['equal'] for record in records)} of {runs} last states are equal to that of a run that nobody "
        f"disturbed, in each bit of {len(whole)} arrays"
    )


def kill(place: pathlib.Path, name: str, draw: random.Random) -> str:
    """Starts a run, kills it somewhere, and returns where that was."""
    workdir = place / name
    first, where = small_run.last_step(workdir), draw.choices(("start", "step", "save"), (1, 3, 6))[0]
    steps, delay = draw.randint(1, 5), draw.random()
    process = start(place, name)
    if where == "start":
        time.sleep(4 * delay)
    else:
        wait(process, lambda: small_run.last_step(workdir) >= first + steps)
        if where == "save":
            wait(process, lambda: small_run.is_saving(workdir))
        time.sleep(0.04 * delay)
    process.kill()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise SystemExit(f"{name} ended with {process.exitcode} before it could be killed; see {name}.err")
    step = small_run.last_step(workdir)
    return f"save after step {step}" if small_run.is_saving(workdir) else f"step {step}" if step > first else "start"


def start(place: pathlib.Path, name: str) -> multiprocessing.Process:
    """Starts train.py."""
    line, _ = small_run.command(place, name, FIELDS)
    process = FORKS.Process(target=train, args=(line[2:], str(place / f"{name}.err")))
    process.start()
    return process


def train(arguments: list[str], errors: str) -> None:
    """Is train.py; what it says goes to a file."""
    with open(errors, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from mnet_jax.training import command

    code = command.main(arguments)
    sys.stderr.flush()
    os._exit(code)


def wait(process: multiprocessing.Process, until: object) -> None:
    """Waits until a condition holds or the process has ended."""
    while process.is_alive() and not until():
        time.sleep(0.001)


def finish(place: pathlib.Path, name: str) -> None:
    """Runs to the end."""
    process = start(place, name)
    process.join()
    if process.exitcode:
        raise SystemExit(f"{name} cannot go on ({process.exitcode}): {(place / f'{name}.err').read_text()[-2000:]}")


def same_rows(place: pathlib.Path, number: int) -> bool:
    """Returns whether a killed run has reported the same as the other one, each step once."""
    keys = ("kind", "step", "loss", "top1", "learning_rate", "num_images")
    whole, killed = (
        [{key: row.get(key) for key in keys} for row in small_run.rows(place / name)]
        for name in ("whole", f"killed_{number}")
    )
    return whole == killed


if __name__ == "__main__":
    main()
