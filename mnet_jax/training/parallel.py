"""Everything about devices and processes: the only file that says pmap.

State has no device axis: it goes in with `in_axes=None` and comes out with `out_axes=None`, placed on all devices of
the process. Batches are `[devices of this process, images a device, ...]`.
"""

import collections
import concurrent.futures
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mnet_jax.pod import members
from mnet_jax.runtime import settle_libtpu
from mnet_jax.training.run_plan import RunPlan, fewest_parts

AXIS = "batch"  # the name by which a step calls the devices


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
    """Returns the devices of a TPU slice such as "v5e:8x8" or "v4:2x2x1", for programs that are compiled and not run.

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


class Program:
    """A program that is being compiled in a thread, or need not be (None)."""

    def __init__(self, future: concurrent.futures.Future | None):
        """Takes the thread's work."""
        self._future = future

    def wait(self, seconds: float | None = None) -> bool:
        """Returns whether it is there, within so many seconds; raises what the compiler raised.

        With several processes it is there once all of them have it: what they begin together must not keep one waiting
        for another's compiler (gloo, by which CPUs talk, gives up after 30 s).
        """
        if self._future is not None:
            try:
                self._future.result(seconds)
            except concurrent.futures.TimeoutError:
                if not self._future.done():
                    return False
                raise
            self._future = None
            if members.joined() is not None:
                members.joined().meet()
        return True


class Devices:
    """The devices of a run: `count` over all processes, and how state and batches get onto those of this one."""

    def __init__(self, num_devices: int | None = None):
        """Takes all devices, or the first `num_devices` of a run with one process (None: all).

        Raises:
          ValueError: if there are fewer, or if a run of several processes asks for a part of its devices.
        """
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
        """Returns a copy of the tree on each device of this process, as the step takes and returns it."""
        return jax.device_put(tree, self._replicated)

    def pmap(self, step: Callable, *, donate_state: bool) -> Callable:
        """Returns `step(state, batch)` on all devices: the state whole on each, the batch split on its first axis."""
        return _pmap(step, self._devices, donate_state=donate_state)

    def pmap_each(self, function: Callable) -> Callable:
        """Returns `function(tree, arrays)` on the devices of this process alone; arrays are [devices, B, ...]."""
        return jax.pmap(function, AXIS, in_axes=(None, 0), devices=self.local)

    def compile_ahead(self, step: Callable, tree: Any, batch: dict[str, jax.ShapeDtypeStruct]) -> "Program":
        """Starts to compile `step`, as `pmap` made it, in a thread; its first call then finds the program.

        One at a time, in the order of these calls.

        Args:
          step: what `pmap` returned.
          tree: the replicated tree that it will get; only shapes and places are read.
          batch: shapes of the batches that it will get, [devices, B, ...].

        Returns:
          The program to be: wait for it before the first call of `step`.
        """
        if self.process_count > 1:  # there jax lowers a program from arrays alone, and copies what is donated
            zeros = {name: np.zeros(x.shape, x.dtype) for name, x in batch.items()}
            lowered = step.lower(tree, jax.device_put(zeros, self._split))
            return Program(self._compiler.submit(lowered.compile))
        held = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding, weak_type=x.weak_type), tree
        )
        fed = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._split) for name, x in batch.items()}
        return Program(self._compiler.submit(lambda: step.lower(held, fed).compile()))

    def split(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns arrays [B, ...] of this process as [devices, B / devices, ...]."""
        return {name: x.reshape(len(self.local), -1, *x.shape[1:]) for name, x in batch.items()}

    def feed(self, batches: Iterable[dict[str, np.ndarray]], *, ahead: int = 2) -> Iterator[dict[str, jax.Array]]:
        """Yields batches on the devices, `ahead` of them on their way while a step runs."""
        placed = (jax.device_put(self.split(batch), self._split) for batch in batches)
        queue = collections.deque(itertools.islice(placed, ahead))
        while queue:
            yield queue.popleft()
            queue.extend(itertools.islice(placed, 1))


class Stages:
    """The steps of a run in order, one for each size of image (`train.image_sizes`); later ones compile meanwhile."""

    def __init__(self, devices: Devices, steps: Sequence[tuple[int, Callable]], first_step: int):
        """Takes what the run has still to do after `first_step` completed steps.

        Args:
          devices: of the run.
          steps: (completed steps from which it is taken, `step(state, batch)` for one device), in order.
          first_step: completed steps at this start.
        """
        current = max(place for place, (begin, _) in enumerate(steps) if begin <= first_step)
        left = steps[current:]
        self._devices = devices
        self._begins = [begin for begin, _ in left]
        self._steps = [devices.pmap(step, donate_state=True) for _, step in left]
        self._programs = [Program(None)] * len(left)

    def compile_first(self, state: Any, shapes: dict[str, jax.ShapeDtypeStruct]) -> None:
        """Begins to compile the step with which this start goes on; shapes are those of the input path's batches."""
        self._programs[0] = self._devices.compile_ahead(self._steps[0], state, shapes)

    def compile_others(self, state: Any, shapes: dict[str, jax.ShapeDtypeStruct]) -> None:
        """Begins to compile the later ones, one after the other."""
        for place in range(1, len(self._steps)):
            self._programs[place] = self._devices.compile_ahead(self._steps[place], state, shapes)

    def at(self, step: int) -> Callable:
        """Returns `step(state, batch)` on all devices for step number `step` (from 1), once it is compiled."""
        place = max(place for place, begin in enumerate(self._begins) if begin < step)
        self._programs[place].wait()
        return self._steps[place]


class DescribedDevices:
    """The devices of a machine that is not here (`describe_tpu`), for programs that are lowered and compiled only."""

    def __init__(self, devices: Sequence[jax.Device]):
        self.count, self.local = len(devices), list(devices)

    def pmap(self, step: Callable, *, donate_state: bool) -> Callable:
        """Returns `step(state, batch)` on all of them; it can be lowered and compiled, and not run."""
        return _pmap(step, self.local, donate_state=donate_state)


def _pmap(step: Callable, devices: Sequence[jax.Device] | None, *, donate_state: bool) -> Callable:
    donated = (0,) if donate_state else ()
    return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None, devices=devices, donate_argnums=donated)


def fetch(tree: Any) -> Any:
    """Returns NumPy copies of a replicated tree, which stay valid when the original is donated."""
    return jax.tree.map(lambda x: np.array(x, copy=True), tree)


def memory_advice(excess: float, device_batch: int, devices: int, parts: int) -> str:
    """Returns what to type where a step does not fit into a device's memory: more parts, or a smaller batch.

    Args:
      excess: by what factor there are too many images at a time, at least.
      device_batch: images a device in a step.
      devices: of the run.
      parts: of a device's batch as it is.
    """
    more = fewest_parts(device_batch, parts * max(1, excess))
    images = int(device_batch / parts / excess)
    smaller = parts * 2 ** max(0, images.bit_length() - 1) * devices
    text = f"type --config.train.batch_size={smaller}"
    if more is not None:
        text = f"type --config.train.accumulate_steps={more} (the same batch in {more} parts, one by one) or {text}"
    return text


def agree(number: int) -> int:
    """Returns the number that the first process of a run gives; call it in all of them, before anything is trained."""
    if members.joined() is not None:
        return members.joined().agree(number)
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils  # joined by the caller

    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


@contextlib.contextmanager
def memory_errors(run_plan: RunPlan) -> Iterator[None]:
    """Turns the error of a step that does not fit, compiled or run inside, into one that says what to type.

    Raises:
      ValueError: in place of JAX's error.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        excess = 2  # how much too large it is is not known here
        advice = memory_advice(excess, run_plan.device_batch, run_plan.num_devices, run_plan.num_parts)
        raise ValueError(
            f"a step of {run_plan.device_batch} images a device does not fit into its memory: {advice}"
        ) from error
