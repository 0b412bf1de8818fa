"""Time, memory and bandwidth of compiled programs."""

import resource
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

_TRIAD_BYTES = 64 * 2**20  # an array: beyond the last-level cache of the machines we know, and soon done
_TRIAD_RUNS = 20


def timings(run: Callable[[], object], *, warmup: int, seconds: float, least: int = 5) -> list[float]:
    """Seconds of each call of `run`, whose result is waited for.

    Args:
      run: what is measured.
      warmup: calls before, not measured.
      seconds: goes on until this much time has passed ...
      least: ... and this many calls were made.
    """
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
    """Median, fastest and the nine-in-ten of a list of seconds, in milliseconds, and how many there were."""
    ordered = sorted(times)
    return {
        "median_ms": 1e3 * statistics.median(ordered),
        "fastest_ms": 1e3 * ordered[0],
        "p90_ms": 1e3 * ordered[min(len(ordered) - 1, round(0.9 * (len(ordered) - 1)))],
        "runs": len(ordered),
    }


def memory_bandwidth() -> float:
    """Bytes a second that one device reads and writes in `a = a + 3 b` over arrays of 64 MiB (STREAM's triad).

    The result takes the place of a (donated), so that no page is touched for the first time while the clock runs.
    """
    size = _TRIAD_BYTES // 4
    triad = jax.jit(lambda a, b: a + 3.0 * b, donate_argnums=0)
    a, b = jnp.ones(size, jnp.float32), jnp.ones(size, jnp.float32)
    best = float("inf")
    for _ in range(_TRIAD_RUNS):
        start = time.perf_counter()
        a = jax.block_until_ready(triad(a, b))
        best = min(best, time.perf_counter() - start)
    return 3 * _TRIAD_BYTES / best


def peak_memory(device: jax.Device) -> dict[str, object]:
    """The most bytes in use so far: the device's own count where it keeps one, else the process's resident memory."""
    statistics_ = device.memory_stats()
    if statistics_ and "peak_bytes_in_use" in statistics_:
        return {"bytes": statistics_["peak_bytes_in_use"], "of": "device"}
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes on macOS, KiB elsewhere
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of": "process"}


def program_memory(compiled: jax.stages.Compiled) -> int | None:
    """Bytes that the program needs on a device: arguments, results and its temporaries; None where XLA does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
    )


def bytes_moved(compiled: jax.stages.Compiled) -> float | None:
    """Bytes that the program's operations read and write, each counted as if nothing were cached; None if unknown."""
    analysis = compiled.cost_analysis()
    return None if not analysis else analysis.get("bytes accessed")
