"""What libtpu is told before it starts, and that the user's own word goes before it."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from mnet_jax import runtime


@pytest.mark.parametrize(
    ("given", "then"),
    [
        (None, "--xla_tpu_scoped_vmem_limit_kib=28672"),
        ("--xla_tpu_foo=1", "--xla_tpu_foo=1 --xla_tpu_scoped_vmem_limit_kib=28672"),
        ("--xla_tpu_scoped_vmem_limit_kib=16384 --xla_tpu_foo=1",) * 2,
    ],
)
def test_a_users_options_stay(given, then, monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "theirs")
    monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
    if given is not None:
        monkeypatch.setenv("LIBTPU_INIT_ARGS", given)
    for _ in range(2):  # called by the command and again by what it starts
        runtime.settle_libtpu()
        assert os.environ["LIBTPU_INIT_ARGS"] == then
    assert os.environ["TPU_WORKER_HOSTNAMES"] == "theirs"


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
def test_a_libtpu_without_a_tpu_does_not_crash_the_profiler(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    script = (
        "from mnet_jax.runtime import settle_libtpu\n"
        "settle_libtpu()\n"
        "import jax\n"
        f"with jax.profiler.trace({str(tmp_path)!r}):\n"
        "    jax.numpy.ones(3).sum().block_until_ready()\n"
        "print(jax.default_backend())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "cpu" or any(pathlib.Path("/dev").glob("nvidia[0-9]*"))
    assert list(tmp_path.rglob("*.xplane.pb"))
