"""timm's files on the hub: .safetensors, and the config.json beside it that says how images are prepared."""

import json
import pathlib
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from mnet_jax.pretrained import sources


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of a file, by name. Raises ValueError if it is broken."""
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a whole .safetensors file: {error}") from error


def read_config(path: pathlib.Path, name: str) -> tuple[sources.Source, list[str] | None]:
    """timm's config.json: what the weights are and how their images are prepared, and the classes' names if it has any.

    Args:
      path: the file.
      name: what to call the weights.

    Raises:
      ValueError: if it is not of one of timm's MobileNets, or lacks a field.
    """
    try:
        about: dict[str, Any] = json.loads(path.read_text())
        # the fields of `pretrained_cfg` lay at the top in the first versions
        known = about | about.get("pretrained_cfg", {})
        channels, height, width = known["input_size"]
        mean, std = (tuple(round(255 * value, 4) for value in known[key]) for key in ("mean", "std"))
        architecture, crop, interpolation = about["architecture"], known["crop_pct"], known["interpolation"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no config.json of timm's: {error!r}") from error
    statistics = next((key for key, value in sources.STATISTICS.items() if value == (mean, std)), None)
    if statistics is None or channels != 3 or height != width or interpolation not in ("bilinear", "bicubic"):
        raise ValueError(
            f"{path} asks for what mnet_jax does not have: input {channels}x{height}x{width}, mean {mean}, std {std}, "
            f"{interpolation}"
        )
    source = sources.timm_source(
        name,
        architecture,
        num_classes=about.get("num_classes"),
        image_size=height,
        statistics=statistics,
        eval_crop=sources.timm_crop(height, crop),
        interpolation=interpolation,
    )
    labels = about.get("label_names") or known.get("label_names")
    return source, [str(label) for label in labels] if labels else None
