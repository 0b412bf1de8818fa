"""Programs that are compiled before their first call, and steps that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnet_jax import schema
from mnet_jax.data import catalog
from mnet_jax.training.parallel import Devices, memory_errors
from mnet_jax.training.run_plan import derive


def compiled(caplog):
    """What a log says of programs that were compiled."""
    return [line for line in caplog.messages if line.startswith("Finished XLA compilation of")]


def summing(devices, scale):
    def step(state, batch):
        total = jax.lax.psum(batch["x"].sum() * scale(state), "batch")
        return {"total": state["total"] + total, "step": state["step"] + 1}, total

    return devices.pmap(step, donate_state=True)


SHAPES = {"x": jax.ShapeDtypeStruct((2, 4), np.float32)}


def test_the_first_call_finds_the_program_that_was_compiled_ahead(caplog):
    devices = Devices(2)
    step = summing(devices, lambda state: state["step"])
    state = devices.replicate({"total": jnp.zeros(()), "step": jnp.asarray(3)})
    batch = next(devices.feed([{"x": np.arange(8, dtype=np.float32)}]))
    jax.config.update("jax_log_compiles", True)  # the context manager is for one thread
    try:
        devices.compile_ahead(step, state, SHAPES).wait()
        assert len(compiled(caplog)) == 1
        state, total = step(state, batch)
        assert len(compiled(caplog)) == 1
    finally:
        jax.config.update("jax_log_compiles", False)
    assert float(total) == 28 * 3
    assert int(state["step"]) == 4


def test_what_goes_wrong_in_the_compiler_is_raised_where_it_is_awaited():
    def fail(state):
        raise RuntimeError("no such program")

    devices = Devices(2)
    program = devices.compile_ahead(summing(devices, fail), devices.replicate({"total": jnp.zeros(())}), SHAPES)
    with pytest.raises(RuntimeError, match="no such program"):
        program.wait()


def test_a_step_that_does_not_fit_says_what_to_type():
    config = schema.get_config()
    config.train.num_steps = 10
    run = derive(config, catalog.published(config.data), 2)
    with pytest.raises(ValueError, match=r"512 images.*accumulate_steps=2 .*batch_size=512"), memory_errors(run):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory_errors(run):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
