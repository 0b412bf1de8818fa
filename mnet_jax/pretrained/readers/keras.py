"""Keras' files, by h5py: weights and whole models as .h5 (Keras 2 and 3), .weights.h5 and .keras (Keras 3)."""

import dataclasses
import io
import pathlib
import re
import zipfile
from collections.abc import Iterator

import h5py
import numpy as np

# What Keras 3 numbers inside a layer, in the order in which the layer makes it.
_NUMBERED = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
_STATE = ("optimizer", "seed_generator", "metrics", "_trainer")  # of training, not of the network
_INPUT = re.compile(r'"batch(?:_input)?_shape": \[null, (\d+), (\d+), 3\]')


@dataclasses.dataclass(frozen=True, kw_only=True)
class KerasFile:
    """All arrays of a model, under "layer/leaf", in lower case, "/" within a layer's name as "_"."""

    arrays: dict[str, np.ndarray]
    numbered: bool  # layers are called by kind and number, as "conv2d_3": the file does not hold their names
    image_size: int | None  # what the model was built for, if it says so


def read(path: pathlib.Path) -> KerasFile:
    """Reads a file of any of the layouts.

    Raises:
      ValueError: if it is none of them, or breaks off.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config = archive.read("config.json").decode()
                with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
                    return _read(file, config)
        with h5py.File(path, "r") as file:
            return _read(file, _text(file.attrs.get("model_config", "")))
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a whole Keras file (.h5, .weights.h5 or .keras): {reason}") from error


def _read(file: h5py.File, config: str) -> KerasFile:
    found = _INPUT.search(config)
    size = int(found[1]) if found and found[1] == found[2] else None
    weights = file.get("model_weights", file)
    if "layer_names" in weights.attrs or "layer_names0" in weights.attrs:
        return KerasFile(arrays=dict(_by_name(weights)), numbered=False, image_size=size)
    groups = list(_variable_groups(file))
    if not groups:
        raise ValueError(f"{file.filename} holds no layers of Keras")
    numbered = not any("name" in group.attrs for group in groups)
    return KerasFile(arrays=dict(_by_number(groups)), numbered=numbered, image_size=size)


def _by_name(weights: h5py.Group) -> Iterator[tuple[str, np.ndarray]]:
    """Keras 2's way (and Keras 3's .h5): each layer lists its arrays; a model within a model is one such layer."""
    for layer in _names(weights, "layer_names"):
        for name in _names(weights[layer], "weight_names"):
            module, _, leaf = name.removesuffix(":0").rpartition("/")
            if module.endswith(layer):  # Keras 3 puts the model's name before it
                module = layer
            leaf = "kernel" if leaf == "depthwise_kernel" else leaf
            yield f"{_plain(module)}/{leaf}", np.asarray(weights[layer][name])


def _by_number(groups: list[h5py.Group]) -> Iterator[tuple[str, np.ndarray]]:
    """Keras 3's way: groups "layers/<kind>_<number>/vars" with arrays 0, 1, ..."""
    for group in groups:
        kind_and_number = group.name.split("/")[-2]
        kind = re.sub(r"_\d+$", "", kind_and_number)
        module = _plain(_text(group.attrs.get("name", kind_and_number)))
        for number in sorted(group, key=int):
            leaves = _NUMBERED.get(kind, ())
            leaf = leaves[int(number)] if int(number) < len(leaves) else number
            yield f"{module}/{leaf}", np.asarray(group[number])


def _variable_groups(file: h5py.File) -> Iterator[h5py.Group]:
    found: list[h5py.Group] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        parts = name.split("/")
        if parts[-1] == "vars" and len(item) and len(parts) > 1 and not any(part in _STATE for part in parts):
            found.append(item)

    file.visititems(visit)
    return iter(found)


def _plain(module: str) -> str:
    return module.replace("/BatchNorm", "_bn").replace("/", "_").lower()


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names, which Keras splits over several attributes when it is long."""
    if attribute in group.attrs:
        return [_text(name) for name in group.attrs[attribute]]
    names, number = [], 0
    while f"{attribute}{number}" in group.attrs:
        names += [_text(name) for name in group.attrs[f"{attribute}{number}"]]
        number += 1
    return names


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
