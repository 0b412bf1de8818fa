"""Which process of a run this is: what flags, variables, and the cluster say."""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Mapping

TOGETHER = 600  # seconds within which all processes of a run have to begin


@dataclasses.dataclass(frozen=True)
class Place:
    """Which process of a run this is."""

    coordinator: str  # "HOST:PORT" of the first process
    num_processes: int
    process_id: int
    local_devices: tuple[int, ...] | None = None  # GPUs of this machine that are this process's; None: all devices


def find(given: Mapping[str, str | None], env: Mapping[str, str]) -> Place | None:
    """Returns which process this is; None where it is the only one.

    By the flags `given`; by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID (in an indexed Job of
    Kubernetes JOB_COMPLETION_INDEX stands in for the last); or by what jax finds out on a Cloud TPU VM (one host or a
    slice, Compute Engine or Kubernetes), in a step of Slurm, under Open MPI, and in a Job of Kubernetes where the
    package `kubernetes` is installed.

    Raises:
      ValueError: if a part is missing or makes no sense.
    """
    index = env.get("JOB_COMPLETION_INDEX")
    flags = {f"--{name}": given.get(name) for name in ("coordinator", "num_processes", "process_id")}
    if any(flags.values()):
        flags["--process_id"] = flags["--process_id"] or index
        return _checked(flags)
    variables = {name: env.get(name) for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")}
    if variables["JAX_COORDINATOR_ADDRESS"] and variables["JAX_NUM_PROCESSES"]:
        variables["JAX_PROCESS_ID"] = variables["JAX_PROCESS_ID"] or index
        return _checked(variables)
    if not _cluster(env):
        return None
    from jax._src import clusters  # what jax.distributed.initialize() asks; the relay needs to know it before

    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
        env.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, TOGETHER
    )
    coordinator, count, index, local = found
    if coordinator is None or count is None or index is None or count == 1:
        return None
    return Place(coordinator, count, index, None if local is None else tuple(local))


def _checked(values: Mapping[str, str | None]) -> Place | None:
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise ValueError(f"{', '.join(values)} belong together, and {' and '.join(missing)} is not given")
    (address, coordinator), (count_name, count), (index_name, index) = values.items()
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address} is {coordinator!r}: give HOST:PORT, of the first process")
    if not (count.isdigit() and index.isdigit() and int(index) < int(count)):
        raise ValueError(
            f"{count_name} is {count!r} and {index_name} is {index!r}: give how many processes there are, and the "
            "number of this one, from 0"
        )
    return None if int(count) == 1 else Place(coordinator, int(count), int(index))


def _cluster(env: Mapping[str, str]) -> bool:
    """Returns whether there may be others of which jax knows."""
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    return (
        _on_tpu_vm(env)
        or (int(env.get("SLURM_NTASKS", "1")) > 1 and all(name in env for name in slurm))
        or int(env.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
        or (
            {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= env.keys()
            and importlib.util.find_spec("kubernetes") is not None
        )
    )


def _on_tpu_vm(env: Mapping[str, str]) -> bool:
    wants_tpu = env.get("JAX_PLATFORMS", "tpu").startswith("tpu")
    return wants_tpu and any(pathlib.Path(device).exists() for device in ("/dev/accel0", "/dev/vfio/0"))
