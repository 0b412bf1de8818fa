"""What libtpu is told before it starts, and that the user's own word goes before it."""

import os

import pytest

from mnet_jax.training import libtpu


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
        libtpu.settle_libtpu()
        assert os.environ["LIBTPU_INIT_ARGS"] == then
    assert os.environ["TPU_WORKER_HOSTNAMES"] == "theirs"
