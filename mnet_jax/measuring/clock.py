"""Time, memory and bandwidth of compiled programs, and how long a network takes for one image on this machine.

Such latencies are kept between commands, in one JSON file. Imports jax only where it measures.
"""

import dataclasses
import json
import os
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mnet_jax.files import write_whole
from mnet_jax.models.tables import SPECS
from mnet_jax.runtime import num_cores

if TYPE_CHECKING:
    import jax

    from mnet_jax.models.mobilenet import MobileNet

_TRIAD_BYTES = 64 * 2**20  # an array: beyond the last-level cache of the machines we know, and soon done
_TRIAD_RUNS = 20

LATENCIES = pathlib.Path("~/.cache/mnet_jax/measurements.json")  # of this machine
_WARMUP, _SECONDS = 5, 2.0  # of a latency: calls before, and the time for those that count


def timings(run: Callable[[], object], *, warmup: int, seconds: float, least: int = 5) -> list[float]:
    """Returns the seconds of each call of `run`, whose result is waited for.

    Args:
      run: what is measured.
      warmup: calls before, not measured.
      seconds: goes on until this much time has passed ...
      least: ... and this many calls were made.
    """
    import jax

    for _ in range(warmup):
        jax.block_until_ready(run())
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < least or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return times


def spread(times: list[float]) -> dict[str, float]:
    """Returns median, fastest and nine-in-ten of a list of seconds, in milliseconds, and how many there were."""
    ordered = sorted(times)
    return {
        "median_ms": 1e3 * statistics.median(ordered),
        "fastest_ms": 1e3 * ordered[0],
        "p90_ms": 1e3 * ordered[min(len(ordered) - 1, round(0.9 * (len(ordered) - 1)))],
        "runs": len(ordered),
    }


def memory_bandwidth() -> float:
    """Returns the bytes a second that a device reads and writes in `a = a + 3 b` of 64 MiB each (STREAM's triad).

    The result takes the place of a (donated), so that no page is touched for the first time while the clock runs.
    """
    import jax
    import jax.numpy as jnp

    size = _TRIAD_BYTES // 4
    triad = jax.jit(lambda a, b: a + 3.0 * b, donate_argnums=0)
    a, b = jnp.ones(size, jnp.float32), jnp.ones(size, jnp.float32)
    best = float("inf")
    for _ in range(_TRIAD_RUNS):
        start = time.perf_counter()
        a = jax.block_until_ready(triad(a, b))
        best = min(best, time.perf_counter() - start)
    return 3 * _TRIAD_BYTES / best


def peak_memory(device: "jax.Device") -> dict[str, object]:
    """Returns the most bytes in use so far, {"bytes": ..., "of": "device" or "process"}.

    It is the device's own count where it keeps one, else the resident memory of the process.
    """
    statistics_ = device.memory_stats()
    if statistics_ and "peak_bytes_in_use" in statistics_:
        return {"bytes": statistics_["peak_bytes_in_use"], "of": "device"}
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes on macOS, KiB elsewhere
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of": "process"}


def program_memory(compiled: "jax.stages.Compiled") -> int | None:
    """Returns the bytes that the program needs on a device, temporaries included; None where XLA does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
    )


def bytes_moved(compiled: "jax.stages.Compiled") -> float | None:
    """Returns the bytes that the program's operations read and write as if nothing were cached; None where unknown."""
    analysis = compiled.cost_analysis()
    return None if not analysis else analysis.get("bytes accessed")


# --- Latencies ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Which network a figure belongs to."""

    model: str
    width: float = 1.0
    width_rule: str = "tf"
    image_size: int

    @property
    def title(self) -> str:
        """Returns "v1 x0.25 128 px"; width and size are left out where they are the architecture's own."""
        name = self.model if self.width == 1 else f"{self.model} x{self.width:g}"
        own = self.image_size == SPECS[self.model].image_size
        return name if own else f"{name} {self.image_size} px"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Median time of one image through a network in JAX."""

    network: Network
    threads: int
    milliseconds: float
    machine: str  # its processor


def measure_latency(network: Network, module: "MobileNet") -> Latency:
    """Returns the median time of one image through a network with random weights, compiled, on all cores.

    `module` is the network as a Flax module.
    """
    import jax
    import jax.numpy as jnp

    from mnet_jax.models.variables import initial_variables

    variables = jax.device_put(initial_variables(module.list_variables(), 0))
    images = jnp.zeros((1, network.image_size, network.image_size, 3))
    compiled = jax.jit(module.apply).lower(variables, images).compile()
    times = timings(lambda: compiled(variables, images), warmup=_WARMUP, seconds=_SECONDS)
    median = spread(times)["median_ms"]
    return Latency(network=network, threads=num_cores(), milliseconds=median, machine=_processor())


def read_latencies(path: str | os.PathLike | None = None) -> list[Latency]:
    """Returns the latencies of a file (None: this machine's); none if there is no file.

    Raises:
      ValueError: if the file is something else.
    """
    path = pathlib.Path(path or LATENCIES).expanduser()
    if not path.exists():
        return []
    try:
        return [
            Latency(
                network=Network(**row["network"]),
                threads=row["threads"],
                milliseconds=row["milliseconds"],
                machine=row["machine"],
            )
            for row in json.loads(path.read_text())["latencies"]
        ]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a file of measurements ({error!r}): delete it or give another one") from error


def add_latency(latency: Latency, *, path: str | os.PathLike | None = None) -> None:
    """Adds a latency to a file; it takes the place of an older one of the same network, threads and machine."""
    path = pathlib.Path(path or LATENCIES).expanduser()
    kept = {(old.network, old.threads, old.machine): old for old in (*read_latencies(path), latency)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"latencies": [dataclasses.asdict(one) for one in kept.values()]}, indent=1))


def _processor() -> str:
    """Returns the processor's name, where the system tells it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "this machine"
