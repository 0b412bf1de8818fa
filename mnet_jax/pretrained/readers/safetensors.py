"""timm's files on the hub: .safetensors, and the config.json beside it that says how images are prepared."""

import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import safetensors

from mnet_jax.pretrained import sources

_PADDINGS = {"same": "same", "": "symmetric"}  # timm's argument pad_type


def read(path: pathlib.Path, select: Callable[[Iterable[str]], set[str]]) -> dict[str, np.ndarray]:
    """Returns arrays of a file by name: those that `select` takes of all names; no others are read.

    Raises:
      ValueError: if the file is broken.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in sorted(select(file.keys()))}
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a whole .safetensors file: {error}") from error


def read_config(path: pathlib.Path, name: str) -> tuple[sources.Source, list[str] | None]:
    """Returns what a config.json says: what the weights are, how their images are prepared, the names of the classes.

    It is timm's, or of a language model whose vision tower is one of timm's MobileNets, as Gemma 3n's is.

    Args:
      path: the file.
      name: what to call the weights.

    Raises:
      ValueError: if it is not of one of timm's MobileNets, or lacks a field.
    """
    try:
        about: dict[str, Any] = json.loads(path.read_text())
        if "vision_config" in about:
            return _tower(name, about["vision_config"]["architecture"]), None
        # the fields of `pretrained_cfg` lay at the top in the first versions
        known = about | about.get("pretrained_cfg", {})
        channels, height, width = known["input_size"]
        mean, std = (tuple(round(255 * value, 4) for value in known[key]) for key in ("mean", "std"))
        architecture, crop, interpolation = about["architecture"], known["crop_pct"], known["interpolation"]
        padding = _PADDINGS[about["model_args"]["pad_type"]] if "pad_type" in about.get("model_args", {}) else None
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
        padding=padding or sources.timm_padding(architecture, f"{architecture}.{known.get('tag')}"),
    )
    labels = about.get("label_names") or known.get("label_names")
    return source, [str(label) for label in labels] if labels else None


def _tower(name: str, architecture: str) -> sources.Source:
    """Returns the vision tower of a language model: whole images squeezed to the size, as Gemma 3n's processor does."""
    return sources.timm_source(
        name,
        architecture,
        num_classes=0,
        image_size=768,
        statistics="unit",
        eval_crop=1.0,
        interpolation="bilinear",
    )
