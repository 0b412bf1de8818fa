"""int8: a trained model's folded graph -> a TFLite model that computes with whole numbers only."""

import os
from typing import TYPE_CHECKING

from mnet_jax.deploy import calibration, equalize, int8_graph, ranges
from mnet_jax.deploy import graph as g
from mnet_jax.deploy.metadata import About

if TYPE_CHECKING:
    from mnet_jax.training.trained import Trained


def int8_model(
    trained: "Trained",
    graph: g.Graph,
    about: About,
    *,
    folder: str | os.PathLike | None = None,
    num_images: int = calibration.NUM_IMAGES,
    estimator: str = "mse",
    equalized: bool = True,
) -> bytes:
    """The TFLite model. Its ranges are those that quantisation-aware training learnt, else observed on images.

    Args:
      trained: the model; its config says where its training images are.
      graph: what `fold.fold` made of it, for uint8 pixels.
      about: for the metadata.
      folder: images to calibrate on, instead of training images or learnt ranges.
      num_images: of them.
      estimator: see `ranges.observe`.
      equalized: whether channels are made to reach equally far first (`equalize.py`); not with learnt ranges.

    Raises:
      ValueError: in one line, if there are no such images, or the network has operations without int8 kernels.
    """
    from mnet_jax.deploy import tflite_int8

    target = int8_graph.rewrite(graph)
    known = ranges.learnt(target, trained.variables["batch_stats"]) if folder is None else {}
    if not known:
        batches = list(calibration.batches(trained, graph.input_shape[:2], folder=folder, num=num_images))
        if equalized:
            target = equalize.equalize(target, batches)
        known = ranges.observe(target, batches, estimator=estimator)
    return tflite_int8.convert(target, known, about)
