"""Median time of one image through a network with random weights, in each runtime that the chart knows."""

import os
from collections.abc import Callable

from mnet_jax.measuring import clock as clock
from mnet_jax.measuring.measurements import Latency, Network, machine
from mnet_jax.models import plans
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.models.variables import initial_variables, list_variables

_SECONDS, _WARMUP = 2.0, 5


def measure(network: Network, runtime: str) -> Latency:
    """Compiles or exports the network, and times it on all cores."""
    plan = resolve(SPECS[network.model], num_classes=1000, width=network.width, width_rule=network.width_rule)
    times = clock.timings(_RUNTIMES[runtime](plan, network.image_size), warmup=_WARMUP, seconds=_SECONDS)
    return Latency(
        network=network,
        runtime=runtime,
        threads=_threads(),
        milliseconds=clock.spread(times)["median_ms"],
        machine=machine(),
    )


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _jax(plan: plans.ModelPlan, image_size: int) -> Callable[[], object]:
    import jax
    import jax.numpy as jnp

    from mnet_jax.tasks.classification.network import Classifier

    variables = jax.device_put(initial_variables(list_variables(plan), 0))
    images = jnp.zeros((1, image_size, image_size, 3))
    compiled = jax.jit(Classifier(plan).apply).lower(variables, images).compile()
    return lambda: compiled(variables, images)


_RUNTIMES = {"jax": _jax}
