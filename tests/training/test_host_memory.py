"""What glibc does with a step's temporaries, before and after `runtime.keep_memory`."""

import platform
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

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


# Reads the photos of a folder; prints the page faults of the last 640 of them.
FOLDER = """
import os, resource, sys
from mnet_jax import runtime, schema
kept = runtime.keep_memory() if sys.argv[1] == "keep" else None
from mnet_jax.data import pipeline
from mnet_jax.data.dataset import Dataset
from mnet_jax.trained import annotations
config = schema.get_config()
config.data.name, config.data.folder = "folder", sys.argv[2]
batches = pipeline.run_stage(Dataset.open(config.data, annotations(config)), "read", 32)
faults = []
for _ in range(3):
    for _ in range(20):
        next(batches)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(kept, faults[-1] - faults[-2], flush=True)
os._exit(0)
"""


def run(*args, program=PROGRAM):
    command = [sys.executable, "-c", program, *args]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return words[0], int(words[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_memory_is_kept(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert run("leave")[1] > 1000  # 64 MiB in pages of 4 KiB are 16384, three times
    _, faults = run("keep")
    assert faults < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_the_input_path_reuses_its_memory(monkeypatch, tmp_path):
    """Beside an accelerator, too: each file is read into a megabyte, which was new to the process every time."""
    monkeypatch.setenv("JAX_PLATFORMS", "tpu,cpu")
    rng = np.random.default_rng(0)
    for number in range(64):
        path = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (120, 160, 3), np.uint8)).save(path, quality=90)
    leave, keep = (run(how, str(tmp_path), program=FOLDER)[1] for how in ("leave", "keep"))
    assert leave > 2000
    assert keep < 200


def test_other_machines_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: pytest.fail("touched the C library"))
    assert runtime.keep_memory() is False
