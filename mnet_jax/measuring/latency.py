"""Median time of one image through a network with random weights, in each runtime that the chart knows."""

import os
from collections.abc import Callable

from mnet_jax.measuring import clock as clock
from mnet_jax.measuring.measurements import Latency, Network, machine
from mnet_jax.models import MobileNet
from mnet_jax.models.variables import initial_variables

_SECONDS, _WARMUP = 2.0, 5


def measure(network: Network, module: MobileNet, runtime: str) -> Latency:
    """Compiles or exports the network, whose module is given, and times it on all cores."""
    times = clock.timings(_RUNTIMES[runtime](module, network.image_size), warmup=_WARMUP, seconds=_SECONDS)
    return Latency(
        network=network,
        runtime=runtime,
        threads=_threads(),
        milliseconds=clock.spread(times)["median_ms"],
        machine=machine(),
    )


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _jax(module: MobileNet, image_size: int) -> Callable[[], object]:
    import jax
    import jax.numpy as jnp

    variables = jax.device_put(initial_variables(module.list_variables(), 0))
    images = jnp.zeros((1, image_size, image_size, 3))
    compiled = jax.jit(module.apply).lower(variables, images).compile()
    return lambda: compiled(variables, images)


_RUNTIMES = {"jax": _jax}
