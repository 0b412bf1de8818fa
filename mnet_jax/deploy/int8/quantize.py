"""int8: a folded graph -> a TFLite model that computes with whole numbers only."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.int8 import ranges, rewrite
from mnet_jax.deploy.int8.rounding import moments
from mnet_jax.deploy.metadata import About


def int8_model(
    graph: g.Graph,
    about: About,
    batches: Callable[[], Iterable[np.ndarray]],
    *,
    batch_stats: Mapping[str, Mapping] | None = None,
    estimator: str = "mse",
    nearest: bool = False,
) -> bytes:
    """Returns the TFLite model. Its ranges are those that quantisation-aware training learnt, else observed on images.

    Args:
      graph: what `fold.fold` made, for uint8 pixels.
      about: for the metadata.
      batches: gives the images to calibrate on, uint8 [n, H, W, 3]; called only if they are needed.
      batch_stats: of the model, for the ranges that it learnt; None: observe them whatever it learnt.
      estimator: see `ranges.observe`.
      nearest: rounds each weight to the nearest, as training that knows of the rounding does, instead of so that the
        layers' results on the images change least (`rounding.py`).

    Raises:
      ValueError: in one line, if the network has operations without int8 kernels.
    """
    from mnet_jax.deploy.int8 import write

    target = rewrite.rewrite(graph)
    known = ranges.learnt(target, batch_stats or {})
    if known:
        return write.convert(target, known, about)
    images = list(batches())
    known = ranges.observe(target, images, estimator=estimator)
    return write.convert(target, known, about, None if nearest else moments(target, images))
