"""What glibc does with a step's temporaries, before and after `runtime.keep_memory`."""

import platform
import subprocess
import sys

import pytest

from mnet_jax import runtime

# Allocates, touches and frees 64 MiB several times; prints what keep() said and the page faults of all but the first.
PROGRAM = """
import resource, sys
import numpy as np
from mnet_jax import runtime
kept = runtime.keep_memory() if sys.argv[1] == "keep" else None
faults = []
for _ in range(4):
    np.ones(64 * 2**20, np.uint8)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(kept, faults[-1] - faults[0])
"""


def run(*args):
    command = [sys.executable, "-c", PROGRAM, *args]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return words[0], int(words[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_memory_is_kept(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert run("leave")[1] > 1000  # 64 MiB in pages of 4 KiB are 16384, three times
    _, faults = run("keep")
    assert faults < 100


@pytest.mark.parametrize(("system", "platforms"), [("darwin", "cpu"), ("linux", "cuda"), ("linux", "tpu,cpu")])
def test_other_machines_are_left_alone(monkeypatch, system, platforms):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: pytest.fail("touched the C library"))
    assert runtime.keep_memory() is False
