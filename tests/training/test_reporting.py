"""The reporter: files that stay whole, a resume that drops what is undone, a bar on a real (pseudo-)terminal."""

import fcntl
import json
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import types

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mnet_jax import tasks
from mnet_jax.config import load
from mnet_jax.tasks.classification.task import Classification
from mnet_jax.training.reporting.reporter import Reporter
from mnet_jax.training.reporting.run_files import read_rows
from mnet_jax.training.reporting.text import summary_lines

TASK = Classification(num_classes=10, mean=(127.5,) * 3, std=(127.5,) * 3)
TOP1 = TASK.metrics[0]


def strict_rows(workdir):
    """Every line of metrics.jsonl as strict JSON: NaN and Infinity literals are an error."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    text = (workdir / "metrics.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def run(workdir, *, start=0, stop=120, total=120):
    """A run that reports every 10 steps and evaluates every 40, closed as a killed one would leave its files."""
    reporter = Reporter(workdir, TASK, TOP1, total_steps=total, start_step=start, steps_per_epoch=12.0, batch_size=8)
    for step in range(start + 1, stop + 1):
        reporter.advance(step)
        if step % 10 == 0:
            metrics = {"loss": 3 / step, "top1": step / 200, "learning_rate": 1e-3, "images_per_second": 1234.5}
            reporter.train(step, metrics)
        if step % 40 == 0:
            reporter.evaluation(step, {"top1": step / 125, "top5": 0.999, "loss": 1 / step, "num_images": 297})
    return reporter


def test_rows_are_strict_json_with_kind_step_epoch_and_time(tmp_path):
    with Reporter(tmp_path, TASK, TOP1, total_steps=10, steps_per_epoch=4.0) as reporter:
        reporter.train(
            5, {"loss": np.float32(0.5), "top1": jnp.float32(0.25), "grad_norm": math.nan, "other": math.inf}
        )
        reporter.evaluation(10, {"top1": 0.5, "top5": 1.0, "loss": np.float64(0.1), "num_images": np.int64(7)})
    train, evaluation = strict_rows(tmp_path)
    assert (train["kind"], train["step"], train["epoch"]) == ("train", 5, 1.25)
    assert (train["loss"], train["top1"], train["grad_norm"], train["other"]) == (0.5, 0.25, None, None)
    assert (evaluation["kind"], evaluation["num_images"], evaluation["loss"]) == ("eval", 7, 0.1)
    assert train["time"] > 1.7e9
    assert 0 <= train["elapsed"] <= evaluation["elapsed"]


def test_rows_are_on_disk_at_once(tmp_path):
    reporter = run(tmp_path, stop=50)
    assert [row["step"] for row in strict_rows(tmp_path)] == [10, 20, 30, 40, 40, 50]
    reporter.close()


def test_resume_drops_later_rows_and_a_torn_line(tmp_path):
    run(tmp_path, stop=90).close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 95, "lo')
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 11
    run(tmp_path, start=60).close()
    rows = strict_rows(tmp_path)
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(10, 121, 10))
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [40, 80, 120]
    assert [row["elapsed"] for row in rows] == sorted(row["elapsed"] for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard", "train.log"]


def test_resume_keeps_train_log_and_mends_its_torn_line(tmp_path):
    run(tmp_path, stop=20).close()
    with (tmp_path / "train.log").open("a") as file:
        file.write("2026-01-01 00:00:00  step")
    run(tmp_path, start=10, stop=20).close()
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [int(re.search(r"step +(\d+)/120", line)[1]) for line in lines] == [10, 20, 20]


def test_a_fresh_start_drops_all_rows(tmp_path):
    run(tmp_path, stop=90).close()
    run(tmp_path, start=0, stop=10).close()
    assert [row["step"] for row in strict_rows(tmp_path)] == [10]


def test_a_process_that_is_not_main_writes_nothing(tmp_path, capfd):
    place = tmp_path / "run"
    with Reporter(place, TASK, TOP1, total_steps=10, is_main=False, steps_per_epoch=2.0) as reporter:
        reporter.info("hello")
        reporter.advance(1)
        reporter.train(1, {"loss": 1.0})
        reporter.evaluation(1, {"top1": 1.0})
        reporter.finish()
    reporter.close()
    assert not place.exists()
    assert capfd.readouterr() == ("", "")


def test_plain_lines_are_aligned_and_the_same_in_the_log(tmp_path, capfd):
    run(tmp_path, stop=120).close()
    shown = capfd.readouterr().err.splitlines()
    logged = [line[21:] for line in (tmp_path / "train.log").read_text().splitlines()]
    assert shown == logged
    assert len(shown) == 15
    for word in ("epoch", "loss", "top-1"):
        assert len({line.index(word) for line in shown}) == 1
    assert "images/s" in shown[0]
    assert "left" in shown[0]
    assert shown[4].startswith("eval  40/120  epoch   3.33")
    assert shown[4].endswith("297 images  best so far")


def test_tensorboard_reads_the_files_and_forgets_what_a_resume_redoes(tmp_path):
    run(tmp_path, stop=90).close()
    run(tmp_path, start=60).close()
    # in a process of its own: TensorBoard's imports warn, which is an error here
    reader = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
print(json.dumps({tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}))
"""
    pytest.importorskip("tensorboard")
    command = [sys.executable, "-c", reader, tmp_path / "tensorboard"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert sorted(found) == [
        *("eval/loss", "eval/top1", "eval/top5"),
        *("train/images_per_second", "train/learning_rate", "train/loss", "train/top1"),
    ]
    assert [step for step, _ in found["train/loss"]] == list(range(10, 121, 10))
    assert [step for step, _ in found["eval/top1"]] == [40, 80, 120]
    np.testing.assert_allclose([value for _, value in found["eval/top1"]], [40 / 125, 80 / 125, 120 / 125], rtol=1e-6)


def test_finish_draws_and_says_what_to_type_next(tmp_path, capfd):
    place = tmp_path / "my run"
    reporter = run(place)
    capfd.readouterr()
    reporter.finish()
    reporter.finish()  # once is enough
    shown = capfd.readouterr().err.splitlines()
    assert shown[0].startswith("Finished: step 120 of 120, epoch 10, in ")
    assert shown[1] == "  best   top-1  96.00 %   top-5  99.90 %   at step 120 on 297 images"
    assert shown[3] == "         297 images say that top-1 is 93.1 to 97.7 % (95 % interval)"
    assert shown[4] == "  seen   960 images, 1,234 images/s"
    assert f"  mnet evaluate --checkpoint '{place}'" in shown
    assert (place / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert shown[0] in (place / "train.log").read_text()


def test_an_exception_closes_without_a_summary(tmp_path, capfd):
    def fail():
        with Reporter(tmp_path, TASK, TOP1, total_steps=10) as reporter:
            reporter.train(5, {"loss": 1.0})
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert "Next:" not in capfd.readouterr().err
    assert len(strict_rows(tmp_path)) == 1


@pytest.mark.parametrize(("right", "count"), [(4, 5), (0, 7), (9, 9), (143, 153), (1, 999)])
def test_how_far_a_share_of_few_images_can_be_trusted(right, count):
    scipys = scipy.stats.binomtest(right, count).proportion_ci(method="wilson")
    assert TOP1.interval(right / count, count) == pytest.approx((scipys.low, scipys.high), abs=1e-7)
    assert TOP1.interval(0.5, 1000) is None
    assert TASK.metric("loss").interval(0.5, count) is None


def test_summary_of_a_stopped_run_and_of_one_without_rows():
    rows = [
        {"kind": "eval", "step": 10, "epoch": 1.0, "elapsed": 100.0, "top1": 0.9, "top5": 1.0, "num_images": 5},
        {"kind": "eval", "step": 20, "epoch": 2.0, "elapsed": 3700.0, "top1": 0.8, "top5": 1.0, "num_images": 5},
    ]
    lines = summary_lines(rows, TASK, TOP1, workdir="runs/a", total_steps=30)
    assert lines[0] == "Stopped: step 20 of 30, epoch 2, in 1 h 01 min"
    assert lines[1] == "  best   top-1  90.00 %   top-5 100.00 %   at step 10 on 5 images"
    assert lines[2] == "  final  top-1  80.00 %   top-5 100.00 %   at step 20 on 5 images"
    assert lines[3] == "         5 images say that top-1 is 37.6 to 96.4 % (95 % interval)"
    assert "continues from the last checkpoint" in "\n".join(lines)
    assert (
        summary_lines([], TASK, TOP1, workdir="runs/a", total_steps=30)[0] == "Stopped: step 0 of 30, epoch 0, in 0 s"
    )


@pytest.mark.parametrize("name", tasks.TASKS)
def test_each_task_says_the_config_for_photos_of_your_own(name):
    (kind,) = (one for one in vars(tasks.face(name, "task")).values() if getattr(one, "name", None) == name)
    assert load(kind.finetune.removesuffix(".py")).task.name == name
    lines = summary_lines([], types.SimpleNamespace(finetune=kind.finetune), TOP1, workdir="runs/a", total_steps=30)
    assert lines[-1] == f"  python train.py --config configs/{kind.finetune} --config.init.checkpoint=runs/a"


def test_summary_says_what_to_do_where_steps_waited_for_data():
    def text(*waits):
        row = {"kind": "train", "epoch": 1.0, "elapsed": 1.0}
        rows = [{**row, "step": step, "data_wait": wait} for step, wait in enumerate(waits, 1)]
        return "\n".join(summary_lines(rows, TASK, TOP1, workdir="runs/a", total_steps=len(waits)))

    assert "waited 45 % of the time for data: `mnet prepare`" in text(0.1, 0.45, 0.9)
    assert "waited" not in text(0.9, 0.1, 0.15)  # the first window has the start-up in it
    assert "waited" not in text()


FULL_DISK = """
import resource, sys
from mnet_jax.tasks.classification.task import Classification
from mnet_jax.training.reporting.reporter import Reporter

TASK = Classification(num_classes=10, mean=(127.5,) * 3, std=(127.5,) * 3)

reporter = Reporter(sys.argv[1], TASK, TASK.metrics[0], total_steps=100)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # a write past 1,000 bytes fails, halfway too
for step in range(1, 31):
    reporter.train(step, {"loss": 1.0, "top1": 0.5})
assert open(sys.argv[1] + "/metrics.jsonl").read().endswith("}\\n")  # while full: whole lines only
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for step in range(31, 41):
    reporter.train(step, {"loss": 1.0, "top1": 0.5})
reporter.close()
"""


def test_a_full_disk_tears_no_line_and_loses_none(tmp_path):
    command = [sys.executable, "-W", "error", "-c", FULL_DISK, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in strict_rows(tmp_path)] == list(range(1, 41))
    logged = [line for line in (tmp_path / "train.log").read_text().splitlines() if "  step" in line]
    assert len(logged) == 40
    for what in ("metrics.jsonl", "train.log"):
        assert done.stderr.count(f"warning: cannot write to {what}") == 1


BAR = """
import sys, time
from mnet_jax.tasks.classification.task import Classification
from mnet_jax.training.reporting.reporter import Reporter

TASK = Classification(num_classes=10, mean=(127.5,) * 3, std=(127.5,) * 3)

reporter = Reporter(sys.argv[1], TASK, TASK.metrics[0], total_steps=60, steps_per_epoch=12.0)
reporter.info("a line above the bar")
for step in range(1, 61):
    time.sleep(0.01)
    reporter.advance(step)
    if step % 10 == 0:
        reporter.train(step, {"loss": 0.5, "top1": 0.875, "learning_rate": 0.016, "images_per_second": 1234.5})
    if step == 40:
        reporter.evaluation(step, {"top1": 0.9731, "top5": 0.999, "loss": 0.1, "num_images": 297})
reporter.close()
"""


def in_terminal(command, columns, close_after=None):
    """Runs `command` with a pseudo-terminal as stderr; returns what it showed and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    while close_after is None or len(shown) < close_after:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux: EIO when the other side has closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return shown.decode(), process.wait(timeout=60)


@pytest.mark.parametrize("columns", [80, 120])
def test_bar_on_a_terminal(tmp_path, columns):
    shown, code = in_terminal([sys.executable, "-W", "error", "-c", BAR, str(tmp_path)], columns)
    assert code == 0, shown
    states = [state for state in re.split(r"[\r\n]+", shown) if "|" in state]
    assert all(len(state) <= columns for state in states)
    last = states[-1]
    for part in ("100%", "60/60", "00:00 left", "1,234 img/s", "loss 0.500", "top-1 87.5%", "lr 0.016"):
        assert part in last
    if columns == 120:
        assert "eval 97.3%" in last
    lines = [line.strip() for line in re.split(r"[\r\n]+", shown) if line.strip() and "|" not in line]
    assert lines[0] == "a line above the bar"
    assert lines[1].startswith("eval 40/60  epoch   3.33")
    assert len(lines) == 2  # training steps are in the bar, not above it
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 7
    assert (tmp_path / "train.log").read_text().count("  step ") == 6


def test_a_closed_terminal_does_not_stop_the_run(tmp_path):
    command = [sys.executable, "-W", "error", "-c", BAR, str(tmp_path)]
    _, code = in_terminal(command, 80, close_after=200)
    assert code == 0
    assert [row["step"] for row in strict_rows(tmp_path)] == [10, 20, 30, 40, 40, 50, 60]
    assert "cannot write to terminal" in (tmp_path / "train.log").read_text()


def test_a_bucket_holds_whole_copies(tmp_path):
    """A directory plays the bucket, under an address that only epath understands."""
    from etils import epath

    @epath.register_path_cls("bucket://")
    class _Bucket:
        def __new__(cls, path):
            return tmp_path / path.removeprefix("bucket://")

    run("bucket://photos/run", stop=90).close()
    run("bucket://photos/run", start=60).finish()
    place = tmp_path / "photos" / "run"
    assert [row["step"] for row in strict_rows(place) if row["kind"] == "train"] == list(range(10, 121, 10))
    assert len(list((place / "tensorboard").iterdir())) == 2
    assert (place / "curves.png").exists()
    assert "mnet evaluate --checkpoint bucket://photos/run" in (place / "train.log").read_text()


def test_the_best_is_the_one_that_step_best_loads():
    """By the config's own metric: with the loss it is another evaluation than with top-1."""
    rows = [
        {"kind": "eval", "step": 10, "epoch": 1.0, "elapsed": 1.0, "top1": 0.9, "loss": 2.0, "num_images": 5},
        {"kind": "eval", "step": 20, "epoch": 2.0, "elapsed": 2.0, "top1": 0.8, "loss": 1.0, "num_images": 5},
    ]
    by_top1 = summary_lines(rows, TASK, TOP1, workdir="runs/a", total_steps=20)
    by_loss = summary_lines(rows, TASK, TASK.metric("loss"), workdir="runs/a", total_steps=20)
    assert by_top1[1].endswith("at step 10 on 5 images")
    assert "  mnet evaluate --checkpoint runs/a --step best" in by_top1
    assert by_loss[1].endswith("at step 20 on 5 images")
    assert "  mnet evaluate --checkpoint runs/a" in by_loss
