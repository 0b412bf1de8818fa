"""Steps that do not fit into the memory of a device: what to type then."""

import contextlib
from collections.abc import Iterator

import jax
import ml_collections

from mnet_jax.training.run_plan import RunPlan, fewest_parts


def advice(least: float, device_batch: int, devices: int, parts: int) -> str:
    """Equal parts one after the other, or a smaller batch.

    Args:
      least: by what factor there are too many images at a time, at least.
      device_batch: images a device in a step.
      devices: of the run.
      parts: of a device's batch as it is.
    """
    more = fewest_parts(device_batch, parts * max(1, least))
    images = int(device_batch / parts / least)
    smaller = parts * 2 ** max(0, images.bit_length() - 1) * devices
    text = f"type --config.train.batch_size={smaller}"
    if more is not None:
        text = f"type --config.train.accumulate_steps={more} (the same batch in {more} parts, one by one) or {text}"
    return text


@contextlib.contextmanager
def advised(config: ml_collections.ConfigDict, run: RunPlan) -> Iterator[None]:
    """Says what to type where the step that is compiled or run inside does not fit.

    Raises:
      ValueError: in place of JAX's error.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ValueError(
            f"a step of {run.device_batch} images a device does not fit into its memory: "
            + advice(2, run.device_batch, run.num_devices, run.num_parts)  # how much is not known here
        ) from error
