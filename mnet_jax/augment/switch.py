"""A switch for each image of a batch: different functions on different images, each run on its own images only."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# Images a round. Fewer make more rounds, more leave larger parts of the last rounds idle.
_GROUP = 4


def apply_by_kind(
    functions: Sequence[Callable[[jax.Array, Any], jax.Array]], images: jax.Array, kind: jax.Array, arguments: Any
) -> jax.Array:
    """Returns images [B, H, W, C], each changed by the function of its kind; one whose kind has no function stays.

    A `lax.switch` under `vmap` would run every function on every image. Here the images are sorted by kind and worked
    on in groups of one kind each, as many rounds as it takes: the price is that of the functions that were asked for.

    Args:
      functions: each takes a group of images [G, H, W, C] and their arguments, and returns new images of that shape;
        what becomes of an image must not depend on the others of its group.
      images: [B, H, W, C].
      kind: int32 [B], a place in `functions`, or any other number.
      arguments: arrays [B, ...], in any tree.
    """
    batch = images.shape[0]
    group = min(_GROUP, batch)
    members = kind[None, :] == jnp.arange(len(functions))[:, None]
    counts = jnp.sum(members, axis=1)
    last_round = jnp.cumsum(-(-counts // group))  # of each kind, exclusive
    key = jnp.where(jnp.any(members, axis=0), kind, len(functions))
    order = jnp.argsort(key, stable=True)
    first_place = jnp.cumsum(counts) - counts  # in `order`, of each kind

    def one_round(number: jax.Array, images: jax.Array) -> jax.Array:
        current = jnp.searchsorted(last_round, number, side="right")
        done = group * (number - jnp.where(current > 0, last_round[current - 1], 0))
        place = done + jnp.arange(group)
        rows = jnp.where(place < counts[current], order[first_place[current] + place], batch)
        # Row `batch` does not exist: it is read as the last one and never written.
        picked, picked_arguments = jax.tree.map(lambda array: array.at[rows].get(mode="clip"), (images, arguments))
        return images.at[rows].set(lax.switch(current, functions, picked, picked_arguments), mode="drop")

    return lax.fori_loop(0, last_round[-1], one_round, images)
