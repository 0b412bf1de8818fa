"""Runs in processes of their own: killed and resumed, asked to stop, refused, gone wrong."""

import json
import os
import random
import re
import signal
import subprocess
import time

import numpy as np
import pytest
import run_commands
from run_commands import PLAIN, assert_same_bits, checkpoint_arrays, last_step

from mnet_jax.runtime import STOPPED

NUM_KILLS = int(os.environ.get("MNET_KILLS", "1"))
NUM_STEPS = 14 + 8 * NUM_KILLS


def command(place, name, fields=None):
    return run_commands.command(place, name, fields={"train.num_steps": NUM_STEPS, **(fields or {})})


def run(place, name, fields=None):
    return run_commands.run(place, name, fields={"train.num_steps": NUM_STEPS, **(fields or {})})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with the digits, a compilation cache and room for runs, shared by this file."""
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def uninterrupted(place):
    """The workdir of a run on two devices that nothing disturbed; whole.err is what it and jax said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_LOG_COMPILES", "1")
        done = run(place, "whole")
    assert done.returncode == 0, done.stderr
    (place / "whole.err").write_text(done.stderr)
    return place / "whole"


@pytest.mark.long
def test_train_steps_and_evaluation_are_compiled_once_each(place, uninterrupted):
    """Ahead of their first call, which would compile them again if it did not find them; two sizes have a step each."""
    said = (place / "whole.err").read_text()
    assert len(re.findall(r"Finished XLA compilation of jit\(_fun\)", said)) == 3  # what pmap calls all that it maps


def interrupt(place, name, after_steps, kind, delay):
    """Starts the run, sends the signal `delay` seconds after `after_steps` steps more, and returns its exit status."""
    line, env = command(place, name)
    first = last_step(place / name)
    with subprocess.Popen(
        line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=place
    ) as process:
        deadline = time.monotonic() + 250
        while last_step(place / name) < first + after_steps and process.poll() is None:
            assert time.monotonic() < deadline, "no progress"
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(kind)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.long  # the toy task is killed and resumed in test_training_toy_task.py
def test_killed_and_resumed_is_bit_for_bit_the_same(place, uninterrupted):
    """SIGKILL at random moments (MNET_KILLS of them, one by default), then SIGTERM, then to the end."""
    rng = random.Random(os.environ.get("MNET_KILL_SEED", "7"))
    for _ in range(NUM_KILLS):
        status, _ = interrupt(place, "killed", rng.randint(1, 5), signal.SIGKILL, rng.random() * 0.1)
        assert status == -signal.SIGKILL
    status, errors = interrupt(place, "killed", 2, signal.SIGTERM, 0.0)
    assert status == STOPPED, errors
    saved = int(re.search(r"Asked to stop: saved step (\d+)", errors)[1])
    assert (place / "killed" / "checkpoints" / str(saved)).is_dir()
    done = run(place, "killed")
    assert done.returncode == 0, done.stderr
    assert f"Going on from step {saved} of {NUM_STEPS}" in done.stderr
    assert_same_bits(checkpoint_arrays(uninterrupted, NUM_STEPS), checkpoint_arrays(place / "killed", NUM_STEPS))
    # what is reported is the same too, each step once
    rows = [
        [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        for workdir in (uninterrupted, place / "killed")
    ]
    keys = ("kind", "step", "loss", "top1", "learning_rate")
    whole, killed = ([{key: row.get(key) for key in keys} for row in part] for part in rows)
    assert [row for row in whole if row["kind"] == "eval"] == [row for row in killed if row["kind"] == "eval"]
    assert [row["step"] for row in whole if row["kind"] == "train"] == list(range(1, NUM_STEPS + 1))
    assert whole == killed


@pytest.mark.long
def test_second_start_of_a_finished_run(place, uninterrupted):
    before = checkpoint_arrays(uninterrupted, NUM_STEPS)
    done = run(place, "whole")
    assert done.returncode == 0, done.stderr
    assert f"This run is finished: {NUM_STEPS} of {NUM_STEPS} steps" in done.stderr
    assert_same_bits(before, checkpoint_arrays(uninterrupted, NUM_STEPS))
    kept = sorted(int(path.name) for path in (uninterrupted / "checkpoints").iterdir())
    assert kept[-3:] == sorted({*range(4, NUM_STEPS, 4), *range(12, NUM_STEPS, 12), NUM_STEPS})[-3:]
    assert len(kept) <= 4  # the newest three and the best


@pytest.mark.long
def test_another_config_is_refused_with_the_difference(place, uninterrupted):
    done = run(place, "whole", fields={"seed": 5, "task.label_smoothing": 0.2})
    assert done.returncode == 2
    assert "holds a run with another config" in done.stderr
    assert "seed: 5 here, 0 there" in done.stderr
    assert "task.label_smoothing: 0.2 here, 0.05 there" in done.stderr
    assert "data." not in done.stderr.split("another config")[1].split("give another")[0]


def test_loss_that_is_not_finite_stops_the_run(place):
    fields = PLAIN | {
        "schedule.lr_per_256": 1e30,
        "optimizer.name": "sgd",
        "optimizer.momentum": 0.0,
        "log.every_steps": 3,
    }
    done = run(place, "wild", fields=fields)
    assert done.returncode == 2
    assert re.search(r"is not finite at step \d+ \(learning rate \S+e\+\d+\)", done.stderr), done.stderr
    assert "--config.schedule.lr_per_256" in done.stderr
    for path in (place / "wild" / "checkpoints").iterdir():
        arrays = checkpoint_arrays(place / "wild", int(path.name))
        assert all(np.isfinite(array).all() for array in arrays.values())
