"""What a file holds, as a trained model: with its config, its classes, and how its images are prepared."""

import dataclasses
from collections.abc import Callable

import numpy as np

from mnet_jax import schema
from mnet_jax.data import catalog
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.pretrained import convert, sources
from mnet_jax.pretrained.layouts import TIMM, TORCHVISION, Layout
from mnet_jax.trained import Trained

Log = Callable[[str], None]


def assumed_source(layout: Layout, name: str, converted: convert.Converted, size: int | None) -> sources.Source:
    """Returns what is true of every file that Keras applications or torchvision wrote."""
    if layout is TIMM:
        raise ValueError(
            f"{name} does not say how its images are prepared, and timm's weights differ in that: put timm's "
            "config.json beside it, or say whose weights it has (--like NAME, a name of `mnet weights`)"
        )
    make = sources.torchvision_source if layout is TORCHVISION else sources.keras_source
    known = {} if size is None else {"image_size": size}
    return make(name, converted.model, converted.width, num_classes=None, **known)


def build_trained(
    source: sources.Source,
    width_rule: str,
    converted: convert.Converted,
    labels: list[str] | None,
    path: str,
    log: Log,
    pixels: catalog.Statistics | None = None,
) -> Trained:
    """Returns the model of a file, with ImageNet's classes where they can be those.

    Args:
      source: how its images are prepared.
      width_rule: how its layers' widths are rounded.
      converted: its variables.
      labels: names of its classes, if it has any.
      path: what to call it.
      log: is told of a background that is left out.
      pixels: mean and deviation of pixels in 0..255 where the file says them itself; None: those of `source`.
    """
    variables, num_classes = converted.variables, converted.num_classes
    if num_classes == catalog.PUBLISHED["imagenet2012"].num_classes + 1 and labels is None:
        log(f"{path} has 1,001 outputs: the first, the background, is left out")
        classifier = variables["params"]["classifier"]
        variables["params"]["classifier"] = {leaf: array[..., 1:].copy() for leaf, array in classifier.items()}
        num_classes -= 1
    mean, std = sources.STATISTICS[source.statistics] if pixels is None else pixels
    config = schema.get_config()
    config.model.name, config.model.width = converted.model, converted.width
    config.model.width_rule, config.model.padding = width_rule, source.padding
    config.model.norm_epsilon, config.model.norm_decay = source.norm_epsilon, source.norm_decay
    config.data.image_size = source.image_size
    config.data.eval_crop, config.data.interpolation = source.eval_crop, source.interpolation
    config.data.mean, config.data.std = mean, std
    config.ema.decay = 0.0
    return Trained(
        variables=variables,
        config=config,
        info=_info(num_classes, labels, (mean, std)),
        step=0,
        metrics=None,
        path=path,
        published=True,
        accuracy=source.accuracy,
    )


def as_softmax(converted: convert.Converted, activation: str, name: str) -> convert.Converted:
    """Returns the model with logits of a softmax: one sigmoid is a softmax of two classes, the first of which has 0.

    Raises:
      ValueError: if its outputs are something else.
    """
    if not converted.num_classes or activation in ("softmax", "linear"):
        return converted
    if activation == "sigmoid" and converted.num_classes == 1:
        params = converted.variables["params"]
        params["classifier"] = {
            leaf: np.concatenate([np.zeros_like(array), array], -1) for leaf, array in params["classifier"].items()
        }
        return dataclasses.replace(converted, num_classes=2)
    raise ValueError(
        f"{name} ends with {activation} over {converted.num_classes} outputs, where classification has a softmax: "
        "save the network without its last layer to fine-tune it"
    )


def _info(num_classes: int, labels: list[str] | None, statistics: catalog.Statistics) -> DatasetInfo:
    """Returns ImageNet where the classes can be its own, else a set of which nothing is known but these."""
    sizes = catalog.PUBLISHED["imagenet2012"]
    if num_classes == sizes.num_classes and labels is None:
        return DatasetInfo.made_up(
            num_classes,
            name="imagenet2012",
            class_names=catalog.imagenet_classes(),
            num_train=sizes.num_train,
            num_eval=sizes.num_eval,
            statistics=statistics,
        )
    named = labels is not None and len(labels) == num_classes
    names = tuple(labels) if named else tuple(f"class {index}" for index in range(num_classes))
    return DatasetInfo.made_up(
        num_classes, name="unknown", class_names=names, num_train=0, num_eval=0, statistics=statistics
    )
