"""The averages of `models/pools.py` that take a stride over from a convolution."""

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.models import pools


def pool(x: jax.Array, kind: str, stride: int) -> jax.Array:
    """Returns the average float32 [N, H', W', C] of a map [N, H, W, C]; `kind`: of `pools.POOLS`."""
    around = pools.padding(kind)
    x = x.astype(jnp.float32)
    windows = pools.WINDOWS[kind]
    for number in range(windows):
        step = stride if number == windows - 1 else 1
        low = around if number == 0 else 0
        zeros = ((0, 0), (low, low), (low, low), (0, 0))
        x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, step, step, 1), zeros) * 0.25
    return x
