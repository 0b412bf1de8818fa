"""What the tests of several tasks share: a program on two devices, and a step's gradients over parts and devices."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(place, *command):
    """Runs Python on two devices, with programs that are compiled fast and run slowly."""
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path}
    line = [sys.executable, *map(str, command)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, cwd=place, timeout=280)
    assert done.returncode == 0, done.stderr
    return done


def gradients(task, network, params, batch, shares):
    """Gradients of a step, as training/step.py makes them, for each (devices, parts of a batch) of `shares`."""

    def gradient(batch, parts):
        inputs, targets = task.train_inputs(
            jax.random.key(0), batch, jnp.arange(len(batch["mask"])), lambda x: jax.lax.psum(x, "devices")
        )
        loss = lambda params, inputs, targets: jnp.mean(task.loss(network(params, inputs), targets))  # noqa: E731
        split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), (inputs, targets))
        grads = [jax.grad(loss)(params, *jax.tree.map(lambda x, i=i: x[i], split)) for i in range(parts)]
        return jax.lax.pmean(jax.tree.map(lambda *x: sum(x) / parts, *grads), "devices")

    for devices, parts in shares:
        shared = {name: value.reshape(devices, -1, *value.shape[1:]) for name, value in batch.items()}
        step = jax.jit(jax.vmap(lambda batch, parts=parts: gradient(batch, parts), axis_name="devices"))
        yield jax.tree.map(lambda x: np.asarray(x[0]), step(shared))
