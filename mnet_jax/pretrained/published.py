"""A converted file of a task's network -> a trained model, with the settings that go with the network."""

from collections.abc import Mapping
from typing import Any

from mnet_jax import schema
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.pretrained.convert import Converted
from mnet_jax.trained import Trained


def published(
    converted: Converted,
    settings: Mapping[str, Any],
    class_names: tuple[str, ...],
    *,
    dataset: str,
    path: str,
    pixels: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    image_size: int | tuple[int, int] | None = None,
    norm_frozen: bool = False,
) -> Trained:
    """Returns the trained model of a file.

    Args:
      converted: what the file holds.
      settings: the fields of a config that make the network, by their full names.
      class_names: of its classes, all different.
      dataset: the name of the set that has these classes, or "unknown".
      path: what to call the file.
      pixels: mean and deviation of pixels, where the file says so; None: those of the settings.
      image_size: the same of the size.
      norm_frozen: whether the norms are folded, so that training must leave them as they are.
    """
    config = schema.get_config()
    config.update_from_flattened_dict(dict(settings))
    if pixels is not None:
        config.data.mean, config.data.std = pixels
    if image_size is not None:
        config.data.image_size = image_size
    config.model.norm_frozen = norm_frozen
    config.ema.decay = 0.0
    return Trained(
        variables=converted.variables,
        config=config,
        info=DatasetInfo.made_up(
            converted.num_classes,
            name=dataset,
            class_names=class_names,
            num_train=0,
            num_eval=0,
            statistics=(config.data.mean, config.data.std),
        ),
        step=0,
        metrics=None,
        path=path,
        published=True,
    )
