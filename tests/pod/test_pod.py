"""Processes that join: which one is this, how they agree, how they leave."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from mnet_jax.pod import place as places
from mnet_jax.pod.relay import Relay
from mnet_jax.runtime import STOPPED

ROOT = pathlib.Path(__file__).resolve().parents[2]
LEAVES_WITHIN = 30.0  # seconds


# --- Which process is this? ---


@pytest.mark.parametrize(
    ("flags", "env", "expected"),
    [
        ({}, {}, None),
        ({"coordinator": "a:1", "num_processes": "4", "process_id": "3"}, {}, ("a:1", 4, 3)),
        ({"coordinator": "[::1]:80", "num_processes": "1", "process_id": "0"}, {}, None),
        ({}, {"JAX_COORDINATOR_ADDRESS": "b:2", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, ("b:2", 2, 0)),
        (
            {"coordinator": "a:1", "num_processes": "4", "process_id": "3"},
            {"JAX_COORDINATOR_ADDRESS": "b:2", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
            ("a:1", 4, 3),
        ),
        # an indexed Job of Kubernetes; its headless service gives the first pod a name
        (
            {},
            {
                "KUBERNETES_SERVICE_HOST": "10.0.0.1",
                "JOB_COMPLETION_INDEX": "2",
                "JAX_COORDINATOR_ADDRESS": "mnet-0.pods:1234",
                "JAX_NUM_PROCESSES": "4",
            },
            ("mnet-0.pods:1234", 4, 2),
        ),
        ({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        # Slurm: the variables of a step; the port comes from the job's number
        (
            {},
            {
                "SLURM_JOB_ID": "5000",
                "SLURM_STEP_NODELIST": "node[007-009,012],other3",
                "SLURM_NTASKS": "8",
                "SLURM_PROCID": "5",
                "SLURM_LOCALID": "1",
            },
            (f"node007:{5000 % 4096 + 61440}", 8, 5),
        ),
        ({}, {"SLURM_JOB_ID": "5000", "SLURM_NTASKS": "8"}, None),  # `salloc` without `srun`
    ],
)
def test_flags_and_variables_say_which_process_this_is(monkeypatch, flags, env, expected):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "JAX_", "OMPI_", "KUBERNETES_"))]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    found = places.find(flags, os.environ)
    assert found is None if expected is None else (found.coordinator, found.num_processes, found.process_id) == expected


def test_a_slice_of_tpu_vms_on_kubernetes_is_recognised(monkeypatch):
    from jax._src.clusters import cloud_tpu_cluster, cluster

    monkeypatch.setattr(places, "_on_tpu_vm", lambda env: True)
    for module in (cloud_tpu_cluster, cluster):
        monkeypatch.setattr(module, "running_in_cloud_tpu_vm", True)
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost,host1,host2,host3",
        "TPU_WORKER_ID": "2",
        "MEGASCALE_COORDINATOR_ADDRESS": "localhost",
        "MEGASCALE_NUM_SLICES": "2",
        "MEGASCALE_SLICE_ID": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert places.find({}, os.environ) == places.Place("localhost:8482", 8, 6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"process_id": "0"}, r"belong together, and --coordinator and --num_processes is not given"),
        ({"coordinator": "host", "num_processes": "2", "process_id": "0"}, r"--coordinator is 'host': give HOST:PORT"),
        ({"coordinator": "h:1", "num_processes": "2", "process_id": "2"}, r"--process_id is '2': give how many"),
        ({"coordinator": "h:1", "num_processes": "two", "process_id": "0"}, r"--num_processes is 'two'"),
    ],
)
def test_half_a_place_is_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        places.find(flags, {})


def test_a_relay_waits_for_its_service_and_outlives_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ended = threading.Event()
    relay = Relay(f"127.0.0.1:{port}", 30, ended.set)
    host, _, entrance = relay.address.rpartition(":")
    with socket.create_connection((host, int(entrance)), timeout=30) as client:
        client.sendall(b"early")
        with socket.create_server(("127.0.0.1", port)) as service:
            connection, _ = service.accept()
            with connection:
                assert connection.recv(100) == b"early"
                connection.sendall(b"answer")
                assert client.recv(100) == b"answer"
                assert not ended.is_set()
        assert ended.wait(30)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):  # still open: silence, not an end
            client.recv(100)
    relay.close()


# --- Real processes ---


class Processes:
    """Some that count together; all that are left are killed at the end."""

    def __init__(self, count, work):
        with socket.socket() as listener:
            listener.bind(("localhost", 0))
            address = f"localhost:{listener.getsockname()[1]}"
        env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": str(ROOT)}
        line = [sys.executable, ROOT / "tests" / "pod" / "one_of_several.py", address, str(count)]
        self.all = [
            subprocess.Popen(
                [*line, str(index), work], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for index in range(count)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for process in self.all:
            process.kill()
            process.communicate()

    def wait_for_step(self, number):
        """Returns once the first process has said so."""
        for line in self.all[0].stdout:
            if line == f"step {number}\n":
                return
        raise AssertionError(self.all[0].stderr.read())

    def ends(self):
        """Returns exit codes, and what was said on stdout and stderr; gloo's words, by which CPUs talk, left out."""
        said = [process.communicate(timeout=200) for process in self.all]
        errors = ["".join(re.sub(r".*(Gloo|peer ranks).*\n", "", error)) for _, error in said]
        return [process.returncode for process in self.all], [out for out, _ in said], errors


@pytest.mark.long
def test_they_agree_wait_for_a_late_one_and_leave_together():
    with Processes(2, "late") as processes:
        codes, said, errors = processes.ends()
    assert codes == [0, 0], errors
    for text in said:
        assert "agreed on 7" in text
        assert "step 2\nalone: True" in text
    assert errors == ["", ""]


def test_a_signal_to_one_stops_all_at_the_same_step():
    with Processes(3, "count") as processes:
        processes.wait_for_step(5)
        processes.all[2].send_signal(signal.SIGTERM)
        codes, said, errors = processes.ends()
    assert codes == [STOPPED] * 3, errors
    assert len({re.search(r"stopped at (\d+)", text)[1] for text in said}) == 1
    assert errors == ["", "", ""]


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.long)])  # 1 is missed after 25 s
def test_when_one_is_killed_the_others_leave_with_its_number(victim):
    with Processes(3, "count") as processes:
        processes.wait_for_step(5)
        processes.all[victim].kill()
        killed = time.monotonic()
        codes, _, errors = processes.ends()
    assert time.monotonic() - killed < LEAVES_WITHIN
    for other in {0, 1, 2} - {victim}:
        assert codes[other] == STOPPED, errors
        assert re.fullmatch(rf"count: process {victim} of this run ended it: it .*\n", errors[other])


def test_when_one_fails_the_others_leave_with_its_reason():
    with Processes(3, "fail") as processes:
        codes, _, errors = processes.ends()
    assert codes == [2, 2, 2], errors
    assert errors[1] == "count: there is nothing\nto count\n"
    for other in (0, 2):
        assert errors[other] == "count: process 1 of this run ended it: there is nothing to count\n"
