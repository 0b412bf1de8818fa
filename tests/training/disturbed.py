"""`train.py`, disturbed as the environment says.

WIDE: every float32 of the network, its variables and the optimizer is a float64.
LATE: the second process takes so many seconds longer to compile its first program of several devices.
PACE: seconds that each batch takes longer.
NOTES: begins the names of two files: .pid, which process this is on its machine, and .compiled, a line for each program
of several devices that it compiled because the cache had none.
"""

import os
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import compiler

if os.environ.get("WIDE"):
    jax.config.update("jax_enable_x64", True)
    jnp.float32 = jnp.float64

from mnet_jax.models import compute, layers, mobilenet
from mnet_jax.training import batches, command, initial


def widen() -> None:
    """Lets networks compute in float64, from variables in float64."""
    told, first_variables = layers.Shared.of, initial.first_variables
    compute.DTYPES = (*compute.DTYPES, "float64")
    mobilenet.Shared.of = lambda *args: layers.dataclasses.replace(told(*args), dtype="float64")
    initial.first_variables = lambda *args: jax.tree.map(np.float64, first_variables(*args))


def disturb() -> None:
    """Puts what disturbs in the place of what it disturbs."""
    compile_and_load, train = compiler.backend_compile_and_load, batches.ImageBatches.train
    compiled, notes = [], os.environ["NOTES"]
    pathlib.Path(f"{notes}.pid").write_text(str(os.getpid()))
    pathlib.Path(f"{notes}.compiled").write_text("")

    def compile_late(backend, module, *args):
        if "_fun" in str(module.operation.attributes["sym_name"]):  # what pmap calls all that it maps
            compiled.append("a program\n")
            pathlib.Path(f"{notes}.compiled").write_text("".join(compiled))
            if len(compiled) == 1 and jax.process_index() == 1:
                time.sleep(float(os.environ.get("LATE", "0")))
        return compile_and_load(backend, module, *args)

    def train_slowly(*args, **kwargs):
        for batch in train(*args, **kwargs):
            time.sleep(float(os.environ.get("PACE", "0")))
            yield batch

    compiler.backend_compile_and_load, batches.ImageBatches.train = compile_late, train_slowly


if __name__ == "__main__":
    disturb()
    if os.environ.get("WIDE"):
        widen()
    sys.exit(command.main())
