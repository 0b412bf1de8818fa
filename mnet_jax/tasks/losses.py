"""Losses that several tasks share."""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns the softmax cross entropy float32 [...] of logits [..., C] and classes int [...].

    Finite for a class beyond C too: that is for the caller to leave out.
    """
    logits = logits.astype(jnp.float32)
    chosen = jax.nn.one_hot(classes, logits.shape[-1], dtype=bool)
    return jax.nn.logsumexp(logits, -1) - jnp.sum(jnp.where(chosen, logits, 0), -1)
