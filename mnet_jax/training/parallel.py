"""Everything about devices and processes: the only file that says pmap.

State has no device axis: it goes in with `in_axes=None` and comes out with `out_axes=None`, placed on all devices of
the process. Batches are `[devices of this process, images a device, ...]`.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnet_jax.runtime import settle_libtpu

AXIS = "batch"  # the name by which a step calls the devices


def join_pod() -> None:
    """Joins the other processes of a run, if there are any: call before anything else touches jax.

    Recognised: a Cloud TPU VM (one host or a whole slice), SLURM or Open MPI tasks, and the variables
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID. Elsewhere the run has one process.
    """
    settle_libtpu()
    env = os.environ
    if "JAX_COORDINATOR_ADDRESS" in env and "JAX_NUM_PROCESSES" in env:
        jax.distributed.initialize(
            env["JAX_COORDINATOR_ADDRESS"], int(env["JAX_NUM_PROCESSES"]), int(env["JAX_PROCESS_ID"])
        )
    elif _on_tpu_vm() or int(env.get("SLURM_NTASKS", "1")) > 1 or int(env.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        jax.distributed.initialize()


def _on_tpu_vm() -> bool:
    wants_tpu = os.environ.get("JAX_PLATFORMS", "tpu").startswith("tpu")
    return wants_tpu and any(pathlib.Path(device).exists() for device in ("/dev/accel0", "/dev/vfio/0"))


@contextlib.contextmanager
def uncached_compilation() -> Iterator[None]:
    """Programs for described devices cannot be read back from the cache of compiled programs: none is written."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, float("inf"))
    try:
        yield
    finally:
        jax.config.update(name, before)


def describe_tpu(topology: str) -> list[jax.Device]:
    """The devices of a TPU slice such as "v5e:8x8" or "v4:2x2x1", for programs that are compiled and not run.

    v4's two cores a chip are one device, as Cloud TPU has them.

    Raises:
      ModuleNotFoundError: if libtpu is not installed.
      ValueError: if libtpu knows no such slice.
    """
    import libtpu  # noqa: F401  (jax's own message does not name it)

    settle_libtpu()
    from jax.experimental import topologies

    options = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        raise ValueError(f"libtpu knows no slice {topology!r} ({str(error).splitlines()[0]})") from error
    return list(devices)


class Devices:
    """The devices of a run: `count` over all processes, and how state and batches get onto those of this one."""

    def __init__(self, num_devices: int | None = None, *, described: Sequence[jax.Device] = ()):
        """Takes all devices, or the first `num_devices` of a run with one process.

        Args:
          num_devices: how many; None means all.
          described: devices of a machine that is not here (`describe_tpu`), all of them at once as if this process had
            them: `pmap(...).lower(...)` compiles for them, nothing can run.

        Raises:
          ValueError: if there are fewer, or if a run of several processes asks for a part of its devices.
        """
        if described:
            self.count, self.local, self._devices = len(described), list(described), list(described)
            self.process_index, self.process_count = 0, 1
            return
        available = jax.device_count()
        num_devices = available if num_devices is None else num_devices
        if num_devices > available or (jax.process_count() > 1 and num_devices != available):
            raise ValueError(
                f"train.num_devices={num_devices}, but there are {available} devices "
                f"in {jax.process_count()} processes: leave it None to use them all"
            )
        self.count = num_devices
        self._compiler = concurrent.futures.ThreadPoolExecutor(1, "compiler")
        self.local = jax.local_devices()[:num_devices] if jax.process_count() == 1 else jax.local_devices()
        self.process_index, self.process_count = jax.process_index(), jax.process_count()
        mesh = Mesh(np.array(self.local), (AXIS,))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec(AXIS))
        # pmap takes the devices only where they are not all of them: a pod's other processes have theirs.
        self._devices = None if num_devices == available else self.local

    def replicate(self, tree: Any) -> Any:
        """A copy of the tree on each device of this process, as the step takes and returns it."""
        return jax.device_put(tree, self._replicated)

    def pmap(self, step: Callable, *, donate_state: bool) -> Callable:
        """`step(state, batch)` on all devices: the state whole on each, the batch split on its first axis."""
        return jax.pmap(
            step,
            AXIS,
            in_axes=(None, 0),
            out_axes=None,
            devices=self._devices,
            donate_argnums=(0,) if donate_state else (),
        )

    def pmap_each(self, function: Callable) -> Callable:
        """`function(tree, arrays)` on the devices of this process alone: `[devices, B, ...]` -> the same, B by B."""
        return jax.pmap(function, AXIS, in_axes=(None, 0), devices=self.local)

    def compile_ahead(self, step: Callable, tree: Any, batch: dict[str, jax.ShapeDtypeStruct]) -> Callable[[], object]:
        """Compiles `step`, as `pmap` made it, beside what the caller does; its first call then finds the program.

        One at a time, in the order of these calls. With several processes nothing happens ahead: there jax lowers a
        program from arrays alone, and a donated state would be copied for it.

        Args:
          step: what `pmap` returned.
          tree: the replicated tree that it will get; only shapes and places are read.
          batch: shapes of the batches that it will get, [devices, B, ...].

        Returns:
          A function that waits for the program and raises what the compiler raised: call it before `step`.
        """
        if self.process_count > 1:
            return lambda: None
        held = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding, weak_type=x.weak_type), tree
        )
        fed = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._split) for name, x in batch.items()}
        return self._compiler.submit(lambda: step.lower(held, fed).compile()).result

    def split(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`[B, ...]` of this process to `[devices, B / devices, ...]`."""
        return {name: x.reshape(len(self.local), -1, *x.shape[1:]) for name, x in batch.items()}

    def feed(self, batches: Iterable[dict[str, np.ndarray]], *, ahead: int = 2) -> Iterator[dict[str, jax.Array]]:
        """Batches on the devices, `ahead` of them on their way while a step runs."""
        placed = (jax.device_put(self.split(batch), self._split) for batch in batches)
        queue = collections.deque(itertools.islice(placed, ahead))
        while queue:
            yield queue.popleft()
            queue.extend(itertools.islice(placed, 1))


def fetch(tree: Any) -> Any:
    """NumPy copies of a replicated tree, which stay valid when the original is donated."""
    return jax.tree.map(lambda x: np.array(x, copy=True), tree)
