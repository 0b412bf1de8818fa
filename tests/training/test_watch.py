"""A run that does not get on says what it waits for and where, and is silent otherwise."""

import re
import threading
import time

import pytest

from mnet_jax.training.reporting import reporter
from mnet_jax.training.reporting.run_files import LineFile


def test_what_takes_long_is_said_with_its_place_and_ever_more_seldom(tmp_path):
    lines = []
    with reporter.Watch(lines.append, seconds=0.2) as watched:
        watched.waits_for("the batch of step 7")
        read = LineFile(tmp_path / "log")  # something of ours that waits, as a disk that hangs would make it
        read._lock.acquire()
        threading.Timer(1.1, read._lock.release).start()
        read.write("x")
        watched.waits_for("step 7")
        time.sleep(0.1)
    assert 2 <= len(lines) <= 3  # after 0.2 s, 0.4 and 0.8
    for line in lines:
        assert re.fullmatch(
            r"warning: the run has been waiting for the batch of step 7 for [01] s \(run_files.py, line \d+\)", line
        )


def test_a_run_that_gets_on_is_silent():
    with reporter.Watch(pytest.fail, seconds=0.5) as watched:
        for step in range(30):
            watched.waits_for(f"step {step}")
            time.sleep(0.03)


def test_after_a_minute():
    assert reporter._STALLED_SECONDS == 60
