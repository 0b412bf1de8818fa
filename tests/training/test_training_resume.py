"""Runs in processes of their own: killed and resumed, asked to stop, on two joined processes, refused, gone wrong."""

import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp
import pytest

from mnet_jax.runtime import STOPPED

ROOT = pathlib.Path(__file__).resolve().parents[2]

NUM_KILLS = int(os.environ.get("MNET_KILLS", "1"))
NUM_STEPS = 14 + 8 * NUM_KILLS

# Everything random is on: crops, colour, RandAugment, erasing, mixing, dropout, drop path; and EMA. Images grow after
# the 10th of some 180 steps an epoch.
FLAGS = {
    "model.width": 0.25,
    "model.stem_stride": 4,
    "model.drop_path": 0.1,
    "data.image_size": 32,
    "train.image_sizes": "((0,24),(0.055,32))",
    "augment.brightness": 0.2,
    "augment.contrast": 0.2,
    "augment.saturation": 0.2,
    "augment.hue": 0.1,
    "augment.randaugment_layers": 1,
    "augment.erase_prob": 0.5,
    "augment.mixup_alpha": 0.2,
    "augment.cutmix_alpha": 1.0,
    "train.batch_size": 8,
    "train.num_epochs": None,
    "train.num_steps": NUM_STEPS,
    "schedule.warmup_epochs": None,
    "schedule.warmup_steps": 3,
    "schedule.lr_per_256": 0.1,
    "eval.every_epochs": None,
    "eval.every_steps": 12,
    "checkpoint.every_steps": 4,
    "log.every_steps": 1,
}


# For what the augmentation does not matter to: compiled in a fraction of the time.
PLAIN = {"model.name": "v1", "model.drop_path": 0, "train.image_sizes": None} | {
    path: 0 for path in FLAGS if path.startswith("augment.")
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with the digits, a compilation cache and room for runs, shared by this file."""
    return tmp_path_factory.mktemp("resume")


def command(place, name, *, fields=None, num_devices=2, config="digits"):
    flags = [f"--config.{path}={value}" for path, value in {**FLAGS, **(fields or {})}.items()]
    env = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices} --xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(place / "compiled"),
        "PYTHONWARNINGS": "error::UserWarning:mnet_jax",
    }
    line = [sys.executable, ROOT / "train.py", f"--config={ROOT / 'configs' / config}.py", f"--workdir={name}"]
    return [*line, f"--config.data.data_dir={place / 'data'}", *flags], env


def run(place, name, **options):
    line, env = command(place, name, **options)
    return subprocess.run(line, env=env, capture_output=True, text=True, cwd=place, timeout=280)


def last_step(workdir):
    path = workdir / "metrics.jsonl"
    steps = [int(match) for match in re.findall(r'"step": (\d+)', path.read_text())] if path.exists() else []
    return max(steps, default=0)


def checkpoint_arrays(workdir, step):
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        state = reader.restore(workdir / "checkpoints" / str(step) / "state")
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_bits(left, right):
    assert left.keys() == right.keys()
    assert [name for name in left if left[name].tobytes() != right[name].tobytes()] == []


@pytest.fixture(scope="module")
def uninterrupted(place):
    """The workdir of a run on two devices that nothing disturbed; whole.err is what it and jax said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_LOG_COMPILES", "1")
        done = run(place, "whole")
    assert done.returncode == 0, done.stderr
    (place / "whole.err").write_text(done.stderr)
    return place / "whole"


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


def test_second_start_of_a_finished_run(place, uninterrupted):
    before = checkpoint_arrays(uninterrupted, NUM_STEPS)
    done = run(place, "whole")
    assert done.returncode == 0, done.stderr
    assert f"This run is finished: {NUM_STEPS} of {NUM_STEPS} steps" in done.stderr
    assert_same_bits(before, checkpoint_arrays(uninterrupted, NUM_STEPS))
    kept = sorted(int(path.name) for path in (uninterrupted / "checkpoints").iterdir())
    assert kept[-3:] == sorted({*range(4, NUM_STEPS, 4), *range(12, NUM_STEPS, 12), NUM_STEPS})[-3:]
    assert len(kept) <= 4  # the newest three and the best


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


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.mark.long
def test_two_processes_equal_one(place):
    """Two joined processes with one device each evaluate every image, write one run, and agree with each other.

    Their training order is their own (each reads its share), so the comparison is on the evaluation of what they made.
    """
    port = free_port()
    processes = []
    for index in range(2):
        fields = PLAIN | {"train.num_steps": 6, "eval.every_steps": 3}
        line, env = command(place, "pod", fields=fields, num_devices=1)
        env |= {
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(index),
        }
        processes.append(
            subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=place)
        )
    outputs = [process.communicate(timeout=280)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "on 2 x cpu" in outputs[0]
    assert "step" not in outputs[1]  # only the first process reports
    rows = [json.loads(line) for line in (place / "pod" / "metrics.jsonl").read_text().splitlines()]
    evals = [row for row in rows if row["kind"] == "eval"]
    assert [(row["step"], row["num_images"]) for row in evals] == [(3, 360), (6, 360)]
    # the checkpoint, evaluated by one process, gives the same numbers
    done = subprocess.run(
        [sys.executable, "-m", "mnet_jax.commands.cli", "evaluate", "--checkpoint", place / "pod", "--json"],
        capture_output=True, text=True, cwd=place, timeout=280, check=True,
    )  # fmt: skip
    again = json.loads(done.stdout)
    assert again["num_images"] == 360
    assert again["top1"] == pytest.approx(evals[-1]["top1"])
    assert again["loss"] == pytest.approx(evals[-1]["loss"], rel=1e-5)
