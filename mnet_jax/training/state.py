"""What a training run carries from one step to the next."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

Tree = Any  # a nested dict of arrays


class TrainState(struct.PyTreeNode):
    """A pure pytree. There is no random state: randomness is a function of (seed, step)."""

    step: jax.Array  # int32, completed updates
    params: Tree
    batch_stats: Tree
    opt_state: optax.OptState
    ema: Tree | None  # {"params", "batch_stats"} averaged over the steps, or None

    def variables(self, *, ema: bool) -> Tree:
        """What `model.apply` takes: the averaged weights if there are any and `ema`, else those of the last step."""
        if ema and self.ema is not None:
            return self.ema
        return {"params": self.params, "batch_stats": self.batch_stats}


def new_state(variables: Tree, optimizer: optax.GradientTransformation, *, ema: bool) -> TrainState:
    """The state before the first step of a run that starts from `variables`."""
    variables = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        opt_state=optimizer.init(variables["params"]),
        ema=jax.tree.map(jnp.copy, variables) if ema else None,
        **variables,
    )
