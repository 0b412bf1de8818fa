"""Damaged checkpoints and directories of runs: found, set aside, said in one line, and the run goes on."""

import csv
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import faults
import jax
import numpy as np
import pytest

from mnet_jax import files
from mnet_jax.config import from_json
from mnet_jax.config import load as load_config
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.runtime import STOPPED
from mnet_jax.training import checkpoint, saved, setup
from mnet_jax.training.reporting.run_files import read_rows


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory):
    """The directory of a run as training leaves it, with the checkpoints of steps 10, 20 and 30, all evaluated."""
    run = tmp_path_factory.mktemp("saved") / "run"
    faults.make_run(run)
    return run


@pytest.fixture
def run(saved_run, tmp_path):
    """A copy of that run, to be damaged."""
    shutil.copytree(saved_run, tmp_path / "run")
    return tmp_path / "run"


def steps(run):
    return sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())


def flat(path):
    """The arrays of a checkpoint as Orbax reads them, without what is ours."""
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        return saved.flat(reader.restore(path / "state"))


# --- Sums ---


def test_the_sum_of_an_array_tells_any_change():
    rng = np.random.default_rng(0)
    for shape, dtype in (
        ((3, 5), np.float32),
        ((4097,), np.int32),
        ((), np.int32),
        ((0, 3), np.float32),
        ((9000,), np.uint8),
    ):
        array = (100 * rng.normal(size=shape)).astype(dtype)
        whole = saved.array_sum(array)
        assert saved.array_sum(array.copy()) == whole
        for bit in rng.integers(0, 8 * array.nbytes, 50 if array.nbytes else 0):
            changed = bytearray(array.tobytes())
            changed[bit // 8] ^= 1 << (bit % 8)
            assert saved.array_sum(np.frombuffer(changed, dtype).reshape(shape)) != whole
    array = np.arange(6000, dtype=np.float32)
    others = [np.roll(array, 1), np.roll(array, 2048), array.reshape(2, -1), array[:-1], array.view(np.int32)]
    swapped = array.copy()
    swapped[[10, 11]] = swapped[[11, 10]]
    assert saved.array_sum(array) not in [saved.array_sum(other) for other in (*others, swapped, array[::-1])]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_found_wherever_they_are(bad):
    array = np.linspace(-1e38, 1e38, 100, dtype=np.float32)
    assert saved.is_finite(array)
    assert saved.is_finite(array[:0])
    array[57] = bad
    assert not saved.is_finite(array)


# --- Damaged checkpoints ---


@pytest.mark.parametrize("name", faults.NEWEST)
def test_a_damaged_newest_checkpoint_is_set_aside(run, name):
    before, newest = steps(run)[-2:]
    faults.NEWEST[name](run)
    notes = []
    found = checkpoint.newest_whole(str(run), notes.append)
    assert found.step == before
    (line,) = notes
    assert "\n" not in line
    assert len(line) < 600
    assert f"{run / 'checkpoints' / str(newest)} is damaged: " in line
    assert f"It is now in {run / 'damaged' / str(newest)}; the run goes on from step {before}; " in line
    assert f"{newest - before} steps are trained again" in line
    assert steps(run)[-1] == before
    assert (run / "damaged" / str(newest)).is_dir()


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_is_found_or_harmless(run, seed):
    newest = faults.checkpoint(run)
    whole = flat(newest)
    faults.flip_somewhere(newest, seed)
    found = checkpoint.newest_whole(str(run), lambda line: None)
    if found.step == int(newest.name):
        assert {name: value.tobytes() for name, value in found.arrays.items()} == {
            name: value.tobytes() for name, value in whole.items()
        }


def test_without_the_list_of_files_the_arrays_tell(run, capfd):
    """A process killed between the last file and the list; what tensorstore's threads print is dropped."""
    newest = faults.checkpoint(run)
    (newest / "files.json").unlink()
    faults.flip(faults.largest_file(newest), 8 * 5000 + 3)
    with pytest.raises(saved.DamagedError, match=r"is damaged: (the array \S+/\S+ .*is not what was written|state )"):
        saved.read(newest)
    assert "Traceback" not in capfd.readouterr().err


def test_an_old_damaged_checkpoint_does_not_block(run):
    oldest, *_, newest = steps(run)
    faults.OTHER["`about/metadata` of the oldest cut"](run)
    (run / "checkpoints" / "0").mkdir()
    notes = []
    assert checkpoint.newest_whole(str(run), notes.append).step == newest
    assert [line.split("; ")[-1] for line in notes] == ["it was not needed"] * 2
    assert oldest not in steps(run)
    assert (run / "damaged" / str(oldest)).is_dir()


@pytest.mark.parametrize("name", faults.REFUSED)
def test_where_none_is_whole_nothing_is_touched(run, name):
    faults.REFUSED[name](run)
    before = sorted(run.rglob("*"))
    with pytest.raises(ValueError, match=r"^no checkpoint of \S+ is whole: .* is damaged: .*another --workdir"):
        checkpoint.newest_whole(str(run), pytest.fail)
    assert sorted(run.rglob("*")) == before


def test_loading_a_damaged_checkpoint_names_the_others(run):
    older = steps(run)[:-1]
    faults.NEWEST["the largest file cut in half"](run)
    with pytest.raises(ValueError, match=rf"is damaged: .* bytes of .*type --step with another one \({older[0]}, "):
        checkpoint.load(str(run))
    assert checkpoint.load(str(run), step=older[-1]).step == older[-1]
    assert checkpoint.load(str(run), step="best").step in steps(run)


def test_loading_while_the_run_deletes_what_is_read(run, monkeypatch):
    """The run has saved a newer one and deletes the one that was the newest a moment ago."""
    older, newest = steps(run)[-2:]
    hidden = run / "hidden"
    (run / "checkpoints" / str(newest)).rename(hidden)
    usual, calls = saved.read, []

    def read(directory):
        calls.append(int(directory.name))
        if len(calls) == 1:
            hidden.rename(run / "checkpoints" / str(newest))
            shutil.rmtree(directory)
        return usual(directory)

    monkeypatch.setattr(saved, "read", read)
    assert checkpoint.load(str(run)).step == newest
    assert calls == [older, newest]


def test_the_checkpoint_of_another_model_is_refused(run):
    newest = faults.checkpoint(run)
    arrays = flat(newest)
    like = {"params": {"stem": jax.ShapeDtypeStruct((2, 2), np.float32)}, "step": arrays["step"]}
    with pytest.raises(
        ValueError, match=rf"^{newest} is not a checkpoint of this run's model: .* is only in the checkp"
    ):
        saved.fitted(arrays, like, newest)
    wider = {name: np.zeros((*value.shape, 2), value.dtype) for name, value in arrays.items()}
    with pytest.raises(
        ValueError, match=r"is float32\[\d.* there, float32\[\d.*\] here and \d+ more differences. Move"
    ):
        saved.fitted(arrays, wider, newest)


def test_metrics_of_an_evaluation_that_came_late(run):
    newest = faults.checkpoint(run)
    saved.write_late_metrics(newest, {"top1": 0.75, "loss": 0.5})
    assert saved.read_about(newest)["metrics"] == {"top1": 0.75, "loss": 0.5}
    assert checkpoint.load(str(run), step="latest").metrics["top1"] == 0.75
    faults.cut(newest / "evaluation.json")
    assert saved.read_about(newest)["metrics"]["num_images"] == 360


# --- The rest of a run's directory ---


def test_a_run_goes_on_with_everything_damaged_at_once(tmp_path):
    """The configuration, the rows of metrics, an old and the newest checkpoint, and a lock of a dead process."""
    run, config = tmp_path / "run", load_config("digits")
    config.model.name, config.model.width, config.data.data_dir = "v1", 0.25, str(tmp_path)
    config.optimizer.name, config.train.num_devices = "sgd", 1
    prepared = setup.prepare(config, str(run))
    state = jax.tree.map(np.asarray, prepared.learning.new_state(prepared.variables))
    for step in (10, 20, 30):
        state = state.replace(step=np.asarray(step, np.int32))
        prepared.checkpoints.save(step, state, prepared.saved_config, prepared.dataset.info, None)
        prepared.reporter.train(step, {"loss": 2.0, "learning_rate": 0.1, "images_per_second": 1.0, "data_wait": 0.0})
    prepared.checkpoints.wait()
    close(prepared)
    for name in (
        "`config.json` cut",
        "`metrics.jsonl`: a text where a number belongs",
        "`metrics.jsonl`: 100,000 brackets",
        "`metrics.jsonl`: a binary line",
        "a lock that a dead process left",
        "`about/metadata` of the oldest cut",
    ):
        faults.OTHER[name](run)
    faults.NEWEST["one bit flipped in the largest file"](run)
    prepared = setup.prepare(config, str(run))
    try:
        assert prepared.first_step == 20
        assert f"{run}/config.json was damaged and is restored from the checkpoint of step 20" in prepared.notes[-1]
        assert len(prepared.notes) == 3
        assert from_json((run / "config.json").read_text()).to_dict() == config.to_dict()
        assert [row["loss"] for row in read_rows(run / "metrics.jsonl")] == [None, 2.0]
        restored = saved.flat(prepared.restore(20))
        assert int(restored.pop("step")) == 20
        for name, value in restored.items():
            np.testing.assert_array_equal(value, saved.flat(state)[name], strict=True)
        with pytest.raises(ValueError, match=rf"{run} is in use by another run \(process {os.getpid()} on "):
            setup.prepare(config, str(run))
    finally:
        close(prepared)
    assert not (run / ".lock").exists()


def close(prepared):
    prepared.reporter.close()
    prepared.checkpoints.close()
    prepared.lock.close()


def test_rows_with_bad_values_stand(run):
    good = read_rows(run / "metrics.jsonl")
    for name in [name for name in faults.OTHER if name.startswith("`metrics.jsonl`:")]:
        faults.OTHER[name](run)
    rows = read_rows(run / "metrics.jsonl")
    assert rows[: len(good) - 1] == good[1:]  # the first one has no step any more
    assert rows[-1] == {"kind": "eval", "step": 1, "loss": None, "epoch": 0.0, "time": 0.0, "elapsed": 0.0}


def test_two_processes_do_not_share_a_directory(tmp_path):
    code = "import sys, mnet_jax.files as f; l = f.Lock(sys.argv[1]); l.take(); print('taken', flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=-1, stdout=-1, text=True)
    with process:
        assert process.stdout.readline() == "taken\n"
        lock = files.Lock(tmp_path)
        with pytest.raises(ValueError, match=rf"in use by another run \(process {process.pid} on .* since \d"):
            lock.take()
        assert f"process {process.pid} " in files.lock_owner(tmp_path)
        process.kill()  # it has no time to give it back
    assert files.lock_owner(tmp_path) is None
    lock.take()
    lock.take()
    assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
    lock.close()
    assert list(tmp_path.iterdir()) == []


# --- SIGTERM ---

BUSY = """
import sys, time
from mnet_jax.runtime import StopSignal
with StopSignal() as signal:
    {before}
    print("ready", flush=True)
    {then}
print("left", flush=True)
"""


def stopped(before, then, times=1):
    """Sends SIGTERM to a process once it is ready; returns its exit code, output, errors and the seconds it took."""
    code = BUSY.format(before=before, then=then)
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        start = time.monotonic()
        for _ in range(times):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors, time.monotonic() - start


def test_with_nothing_to_save_a_process_leaves_at_once_even_inside_a_library():
    compiler = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"  # one call that takes minutes and heeds no signal
    code, out, errors, seconds = stopped("import hashlib", compiler)
    assert (code, out) == (STOPPED, "")
    assert "there is nothing to save" in errors
    assert seconds < 20


def test_with_something_to_save_the_process_is_asked_and_a_second_signal_ends_it():
    wait = "exec('while not signal.asked: time.sleep(0.01)')"
    code, out, _, _ = stopped("signal.hold()", wait)
    assert (code, out) == (0, "left\n")
    code, out, errors, _ = stopped("signal.hold()", "time.sleep(60)", times=2)
    assert (code, out) == (STOPPED, "")
    assert "asked twice" in errors


def test_a_process_that_was_asked_leaves_as_soon_as_everything_is_saved():
    wait = "exec('while not signal.asked: time.sleep(0.01)'); signal.release(); time.sleep(60)"
    code, out, errors, seconds = stopped("signal.hold()", wait)
    assert (code, out) == (STOPPED, "")
    assert "everything is saved" in errors
    assert seconds < 20


# --- mnet doctor, and saves that fail ---


def test_doctor_of_a_whole_run(run, mnet):
    code, out, _ = mnet("doctor", run)
    assert code == 0
    assert "BAD" not in out
    assert "ok   checkpoint 30: whole, 7 arrays; top1 0.2, loss 2, " in out
    assert out.rstrip().endswith("the same train command goes on from step 30")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "the largest file cut in half",
            r"BAD  checkpoint 30: .* is damaged: .* bytes of (.*\n)*.* goes on from step 20 and trains 10 steps again",
        ),
        ("`config.json` cut", r"BAD  \S+/config.json is damaged\n +the same train command restores it"),
        ("`metrics.jsonl`: a binary line", r"BAD  \S+/metrics.jsonl: 1 of 4 lines are no rows"),
        ("every checkpoint damaged", r"BAD  no checkpoint is whole: there is nothing to go on from\n +begin anew with"),
    ],
)
def test_doctor_says_what_is_damaged(run, mnet, name, said):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    ({**faults.NEWEST, **faults.OTHER, **faults.REFUSED})[name](run)
    code, out, _ = mnet("doctor", run)
    assert code == 1
    assert re.search(said, out), out
    code, out, _ = mnet("doctor", run, "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["kind"], found["good"]) == ("run", False)
    assert any(not finding["good"] for finding in found["findings"])
    assert set(run.rglob("*")) <= set(before)  # it looks, and changes nothing


def test_a_directory_that_is_gone_is_said_in_one_line(tmp_path, capfd):
    checkpoints = checkpoint.Checkpoints(str(tmp_path / "run"), keep=1, metric=faults.METRIC)
    config, info, state = load_config("digits"), DatasetInfo.made_up(10), {"params": {"a": np.ones(3, np.float32)}}
    checkpoints.save(1, state, config, info, None)
    checkpoints.wait()
    checkpoints.save(2, state, config, info, None)
    checkpoints.wait()
    assert steps(tmp_path / "run") == [2]
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(
        OSError, match=r"^the checkpoint of step 3 could not .*: the directory was moved.*\. Step 2 is saved"
    ):
        checkpoints.save(3, state, config, info, None)
    checkpoints.close()
    assert not (tmp_path / "run").exists()
    assert "Traceback" not in capfd.readouterr().err


FULL = """
import sys, time
import numpy as np
sys.path.insert(0, sys.argv[2])
import faults
faults.make_run(sys.argv[1], keep=50, steps=range(1, 50))
"""


def test_a_full_disk_is_said_at_once_and_in_one_line(tmp_path):
    """On a real file system of two megabytes."""
    (tmp_path / "small").mkdir()
    mount = f'mount -t tmpfs -o size=2m small {tmp_path}/small && exec "$@"'
    enter = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*enter, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small file system")
    here = pathlib.Path(__file__).parent
    done = subprocess.run(
        [*enter, sys.executable, "-c", FULL, tmp_path / "small" / "run", here],
        capture_output=True,
        text=True,
        check=False,
    )
    *_, last = done.stderr.strip().splitlines()
    assert re.search(
        r"^OSError: the checkpoint of step (\d+) could not be written .*: No space left on device\. Step", last
    )


def test_names_in_tables_are_no_formulas(tmp_path):
    names = ["=cmd|' /C calc'!A0", "+1", "-2.5", "@sum", "plain", "ring\x07\x1b[31m", "two\nlines", "Ä ö"]
    files.write_csv(tmp_path / "t.csv", ("name",), [[name] for name in names])
    with open(tmp_path / "t.csv", newline="") as file:
        found = [row[0] for row in csv.reader(file)][1:]
    assert found == ["'=cmd|' /C calc'!A0", "+1", "-2.5", "'@sum", "plain", "ring\\x07\\x1b[31m", "two\\nlines", "Ä ö"]
    assert [files.from_cell(name) for name in found[:5]] == names[:5]
