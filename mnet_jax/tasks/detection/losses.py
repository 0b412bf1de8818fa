"""What an image's anchors cost: their classes and, where they have an object, its box.

All functions are of one image or of many: leading axes of the arguments are leading axes of the results. Sums, not
means: the task divides by the positive anchors of the whole step.
"""

import jax
import jax.numpy as jnp

from mnet_jax.tasks.losses import cross_entropy

NEGATIVES = 3  # anchors without an object that count, for each one with an object (SSD, section 2.2)


def huber(codes: jax.Array, targets: jax.Array, *, delta: float = 1.0) -> jax.Array:
    """Returns Huber's loss, summed over the four numbers of a code: [..., A] of [..., A, 4] each.

    With a `delta` of 1 it is the smooth L1 loss with beta 1.
    """
    error = jnp.abs(codes.astype(jnp.float32) - targets)
    return jnp.sum(jnp.where(error < delta, 0.5 * jnp.square(error), delta * (error - 0.5 * delta)), -1)


def hardest(losses: jax.Array, allowed: jax.Array, count: jax.Array) -> jax.Array:
    """Returns the `count` anchors of the highest loss among those allowed, bool [..., A]; of equals the first.

    Args:
      losses: float32 [..., A].
      allowed: bool [..., A].
      count: int [...], how many; all that are allowed, where there are fewer.
    """
    losses = jnp.where(allowed, jax.lax.stop_gradient(losses), -jnp.inf)
    falling = -jnp.sort(-losses, axis=-1)
    last = jnp.clip(count - 1, 0, losses.shape[-1] - 1)[..., None]
    limit = jnp.take_along_axis(falling, last, -1)  # the loss of the last one that is taken
    above, equal = losses > limit, allowed & (losses == limit)
    room = count[..., None] - jnp.sum(above, -1, keepdims=True)
    return (above | (equal & (jnp.cumsum(equal, -1) <= room))) & (count > 0)[..., None]


def softmax_loss(logits: jax.Array, classes: jax.Array, counted: jax.Array, *, min_negatives: int = 0) -> jax.Array:
    """Returns the classes' loss of an image, float32 [...]: softmax, with its hardest negatives, as in SSD.

    Args:
      logits: [..., A, C]; class 0 is the background.
      classes: int32 [..., A], 0 where the anchor has no object.
      counted: bool [..., A]; others are neither positive nor negative.
      min_negatives: so many count in an image with few objects or none; 0 as in torchvision, where such an image
        teaches nothing.
    """
    losses = cross_entropy(logits, classes)
    positive = counted & (classes > 0)
    count = jnp.maximum(NEGATIVES * positive.sum(-1), min_negatives)
    negative = hardest(losses, counted & ~positive, count)
    return jnp.sum(jnp.where(positive | negative, losses, 0), -1)


def focal_loss(logits: jax.Array, classes: jax.Array, counted: jax.Array, *, alpha: float, gamma: float) -> jax.Array:
    """Returns the classes' loss of an image, float32 [...]: the focal loss of sigmoids (arXiv 1708.02002), all anchors.

    The slot of the background, class 0, is trained to stay low, as TensorFlow does (`encode_background_as_zeros`).

    Args:
      logits: [..., A, C].
      classes: int32 [..., A], 0 where the anchor has no object.
      counted: bool [..., A].
      alpha: weight of what is to be high, 1 - alpha of what is to be low; 0.25 in the paper, 0.75 in TensorFlow's SSD.
      gamma: how much less counts what is nearly right; 2 in the paper.
    """
    logits = logits.astype(jnp.float32)
    high = jax.nn.one_hot(classes, logits.shape[-1], dtype=bool) & (classes[..., None] > 0)
    signed = jnp.where(high, logits, -logits)  # -log(p) of what is true, and 1 - p
    losses = -jax.nn.log_sigmoid(signed) * jax.nn.sigmoid(-signed) ** gamma * jnp.where(high, alpha, 1 - alpha)
    return jnp.sum(jnp.where(counted, losses.sum(-1), 0), -1)
