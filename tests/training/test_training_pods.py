"""Runs of several processes on this machine, joined as on a pod, and runs that go on elsewhere: what they compute."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
import run_commands
from run_commands import PLAIN, ROOT, assert_same_bits, checkpoint_arrays, last_step

from mnet_jax.runtime import STOPPED

pytestmark = pytest.mark.timeout(900)  # fixtures count: the first test waits for ten runs

# Norms over the whole batch, dropout, drop path, and 101 images to evaluate on, which no number of processes shares
# evenly. The order of sums is all that differs between the runs compared here, and the network must not multiply that
# rounding: the first gradient of a plain stack of norms such as v1 is 24 long and that of v2 44 (v3: 0.9), their
# roundings of 1e-7 are 4e-5 and 9e-4 in it, and no digit agrees after three steps of a rate of 1e-3.
FIELDS = PLAIN | {
    "model.name": "v3_small",
    "model.norm_sync": True,
    "model.stem_stride": 2,
    "model.dropout": 0.3,
    "model.drop_path": 0.1,
    "optimizer.name": "sgd",  # RMSprop divides a gradient by its size, and with it the rounding of small ones
    "schedule.lr_per_256": 0.002,
    "train.batch_size": 32,
    "data.eval_split": "test[:101]",
    "train.num_steps": 10,
    "eval.every_steps": 10,
    "eval.batch_size": 40,
    "checkpoint.every_steps": 5,
    "checkpoint.keep": 9,
}
ALL = os.environ.get("MNET_PODS") == "1"  # the whole file takes seven minutes of two cores; without it, three
if_all = pytest.mark.skipif(
    not ALL, reason="takes minutes: MNET_PODS=1 pytest -m long tests/training/test_training_pods.py"
)
CLOSE = 1e-6  # by what states may differ; parameters move by 8.6e-5 from step 5 to 10

# --- Real processes ---


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with the digits, compiled programs and room for runs, shared by this file."""
    return tmp_path_factory.mktemp("pods")


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def commands(place, name, count, *, num_devices, fields=None, by="flags", disturbed=None):
    """Returns command line and environment of each process; caches are apart, as on machines of their own."""
    port = free_port()
    for index in range(count):
        line, env = run_commands.command(place, name, fields={**FIELDS, **(fields or {})}, num_devices=num_devices)
        line[1] = ROOT / "tests" / "training" / "disturbed.py"
        env |= disturbed or {}
        env |= {"JAX_COMPILATION_CACHE_DIR": str(place / f"cache_{index}"), "NOTES": f"{name}_{index}"}
        if by == "flags":
            line += [f"--coordinator=localhost:{port}", f"--num_processes={count}", f"--process_id={index}"]
        else:  # as in a step of Slurm
            env |= {"SLURM_JOB_ID": str(port), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(count)}
            env |= {"SLURM_PROCID": str(index), "SLURM_LOCALID": "0"}
        yield [str(word) for word in line], env


class Processes:
    """The processes of one run; all that are left are killed at the end."""

    def __init__(self, place, lines_and_envs):
        self._all = [
            subprocess.Popen(
                line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=place, process_group=0
            )
            for line, env in lines_and_envs
        ]

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for process in self._all:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # a loop and what it has started
            process.communicate()

    def ends(self, within=500):
        """Returns the exit codes and what was said on stderr, of all that end within so many seconds."""
        until = time.monotonic() + within
        said = [process.communicate(timeout=max(1, until - time.monotonic()))[1] for process in self._all]
        return [process.returncode for process in self._all], [own_lines(text) for text in said]


def own_lines(text):
    """Without what gloo, by which CPUs talk to each other, says as it connects."""
    return "".join(line for line in text.splitlines(keepends=True) if "[Gloo]" not in line and "peer ranks" not in line)


def pod(place, name, count=2, **options):
    """Returns the workdir of a run of several processes, two devices each, and what they said."""
    with Processes(place, commands(place, name, count, num_devices=2, **options)) as processes:
        codes, said = processes.ends()
    assert codes == [0] * count, said
    return place / name, said


def in_turn(place, *turns):
    """Trains in one process with eight devices; see in_turn.py."""
    line, env = run_commands.command(place, "unused", fields=FIELDS, num_devices=8)
    line[1] = ROOT / "tests" / "training" / "in_turn.py"
    done = subprocess.run(
        [*line, json.dumps(turns)], env=env, capture_output=True, text=True, cwd=place, timeout=580, check=False
    )
    assert done.returncode == 0, done.stderr


def rows(workdir, kind):
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["kind"] == kind]


def furthest(left, left_step, right, right_step):
    """Returns by how much two states' parameters, and their averages, differ at most."""
    left, right = checkpoint_arrays(left, left_step), checkpoint_arrays(right, right_step)
    assert left.keys() == right.keys()
    names = [name for name in left if name.startswith(("['params']", "['ema']['params']"))]
    assert len(names) > 100
    return max(np.abs(left[name].astype(np.float64) - right[name]).max() for name in names)


def compiled(place, name):
    """Returns how many programs each of two processes compiled at its last start."""
    return [len((place / f"{name}_{index}.compiled").read_text().splitlines()) for index in (0, 1)]


# --- Two processes with two devices equal one with four ---


@pytest.fixture(scope="module")
def two_by_two(place):
    """Workdir of ten steps by two processes, one of which the other waits for 33 s to compile, and what they said."""
    started = time.monotonic()
    found = pod(place, "two_by_two", by="slurm", disturbed={"LATE": "33"})  # gloo gives up after 30 s
    assert time.monotonic() - started > 33
    assert compiled(place, "two_by_two") == [2, 2]
    return found


@pytest.fixture(scope="module")
def moved(place, two_by_two):
    """Workdirs by name: whole runs on 8, 4 and 1 devices of one process, and what went on elsewhere from step 5."""
    ways = {
        "8_to_4": ("8", 4),
        "8_to_2": ("8", 2),
        "8_to_1": ("8", 1),
        "1_to_8": ("1", 8),
        "pod_to_4": (two_by_two[0].name, 4),
    }
    if not ALL:
        ways = {"pod_to_4": ways["pod_to_4"]}
    whole = [[f"{count}", count] for count in ((8, 4, 1) if ALL else (4,))]
    in_turn(place, *whole, *([name, count, before, 5] for name, (before, count) in ways.items()))
    return {name: (place / before, place / name) for name, (before, _) in ways.items()}


@pytest.mark.long
def test_two_processes_with_two_devices_equal_one_with_four(place, two_by_two, moved):
    """After ten steps with dropout to 1e-6; each of 101 images is evaluated once; the first process alone reports."""
    joined, said = two_by_two
    assert furthest(place / "4", 10, joined, 10) <= CLOSE
    assert furthest(place / "4", 10, joined, 5) >= 30 * CLOSE
    assert "on 4 x cpu" in said[0]
    assert said[1] == ""
    (ours,), (theirs,) = rows(place / "4", "eval"), rows(joined, "eval")
    assert ours["num_images"] == theirs["num_images"] == 101
    assert ours["top1"] == theirs["top1"]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=CLOSE)


@pytest.mark.long
@if_all
def test_in_float64_they_are_equal_after_twenty_steps(place):
    """Rounding apart there is no difference: it is 1e-16 there, and the states agree to 1e-12."""
    fields, wide = {"train.num_steps": 20, "schedule.lr_per_256": 0.05}, {"WIDE": "1"}
    joined, _ = pod(place, "two_by_two_wide", fields=fields, disturbed=wide)
    with Processes(place, commands(place, "four_wide", 1, num_devices=4, fields=fields, disturbed=wide)) as alone:
        codes, said = alone.ends()
    assert codes == [0], said
    arrays = checkpoint_arrays(place / "four_wide", 20)
    assert {array.dtype.name for array in arrays.values() if array.dtype.kind == "f"} == {"float64"}
    assert furthest(place / "four_wide", 20, joined, 20) <= 1e-12
    assert furthest(place / "four_wide", 20, joined, 10) >= 1e-3


# --- Elastic resume ---


@pytest.mark.long
@pytest.mark.parametrize(
    "way",
    [*(pytest.param(way, marks=if_all) for way in ("8_to_4", "8_to_2", "8_to_1", "1_to_8", "4_to_pod")), "pod_to_4"],
)
def test_a_run_goes_on_with_other_devices_and_processes(place, moved, way):
    """Steps 6 to 10 on others than steps 1 to 5: the same batches, and the state that no change would have led to."""
    if way == "4_to_pod":
        shutil.copytree(place / "4", place / way)
        shutil.rmtree(place / way / "checkpoints" / "10")
        pod(place, way)
    before, after = moved.get(way, (place / "4", place / way))
    devices = re.findall(r"on (\d) x cpu", (after / "train.log").read_text())
    assert devices == [word.replace("pod", "4") for word in way.split("_to_")]
    assert_same_bits(checkpoint_arrays(before, 5), checkpoint_arrays(after, 5))
    assert furthest(before, 10, after, 10) <= CLOSE
    for kind, steps in (("train", list(range(1, 11))), ("eval", [10])):
        pairs = list(zip(rows(before, kind), rows(after, kind), strict=True))
        assert [ours["step"] for ours, _ in pairs] == [theirs["step"] for _, theirs in pairs] == steps
        for ours, theirs in pairs:
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=CLOSE)
            assert ours["top1"] == theirs["top1"]


# --- Leaving, and starting again ---


def loops(place, name, **options):
    """Yields the loop of docs/reliability.md for each process; the pause is shorter, and it writes down each end."""
    page = (ROOT / "docs" / "reliability.md").read_text()
    (loop,) = re.findall(r"until python train\.py .*; done", page)
    for index, (line, env) in enumerate(commands(place, name, 2, num_devices=2, **options)):
        text = re.sub(r"python train\.py [^;]*", shlex.join(line), loop)
        text = text.replace("sleep 10", "sleep 1").replace(
            "case $? in", f"code=$?; echo $code >> {name}_{index}.codes; case $code in"
        )
        assert text.count("sleep 1 ") == text.count("echo") == 1
        yield ["bash", "-c", text], env


@pytest.mark.long
def test_a_loop_for_each_process_goes_on_after_a_signal_and_a_kill(place, two_by_two):
    """SIGTERM to the second saves on both at the same step; then the first is killed; the end is as if nothing was.

    No start compiles anything: each process finds in its own cache what it compiled in another run.
    """

    def when(step, kind, index):
        until = time.monotonic() + 400
        while last_step(place / "loop") < step:
            assert time.monotonic() < until, "no progress"
            time.sleep(0.02)
        os.kill(int((place / f"loop_{index}.pid").read_text()), kind)

    with Processes(place, loops(place, "loop", disturbed={"PACE": "0.7"})) as processes:
        when(2, signal.SIGTERM, 1)
        when(7, signal.SIGKILL, 0)
        codes, said = processes.ends()
    assert codes == [0, 0], said
    ends = [[int(code) for code in (place / f"loop_{index}.codes").read_text().split()] for index in (0, 1)]
    assert ends == [[STOPPED, 137], [STOPPED, STOPPED]]
    saved = int(re.search(r"Asked to stop: saved step (\d+)", said[0])[1])
    assert f"Going on from step {saved} of 10" in said[0]
    assert compiled(place, "loop") == [0, 0]
    assert_same_bits(checkpoint_arrays(two_by_two[0], 10), checkpoint_arrays(place / "loop", 10))
