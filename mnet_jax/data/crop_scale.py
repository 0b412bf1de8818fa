"""The crops of segmentation: the picture larger or smaller by chance, and a window of it, padded where it is smaller.

The jitter of the recipes of torchvision and of TensorFlow: a factor from 0.5 to 2, a crop of the size of the input, the
image's mean and void beside a picture that is smaller. Factor 1 is the size in which the evaluation shows the whole
picture, so that what is learned has the shape of what is judged.
"""

from __future__ import annotations

from mnet_jax.data.tensorflow_setup import tf

NUM_DRAWS = 3  # the factor, and where the window is, down and right


def windowed(
    shape: tf.Tensor, draws: tf.Tensor, size: tuple[int, int], scale: tuple[float, float]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the part of a picture that a random window shows, and its place in the window, int32 [4] each.

    Args:
      shape: height and width of the picture, int32 [2].
      draws: float32 [3], uniform in [0, 1).
      size: height and width of the window, the network's input.
      scale: lowest and highest factor.
    """
    sides, window = tf.cast(shape, tf.float64), tf.constant(size, tf.float64)
    draws = tf.cast(draws, tf.float64)
    factor = scale[0] + (scale[1] - scale[0]) * draws[0]
    # Along each axis either the part is shorter than the picture and fills the window, or the other way round.
    length = tf.maximum(tf.round(tf.minimum(sides, sides / factor)), 1.0)
    extent = tf.maximum(tf.round(tf.minimum(window, window * factor)), 1.0)
    start = tf.floor((sides - length + 1.0) * draws[1:])
    placed = tf.floor((window - extent + 1.0) * draws[1:])
    part, place = tf.concat([start, length], 0), tf.concat([placed, extent], 0)
    return tf.cast(part, tf.int32), tf.cast(place, tf.int32)
