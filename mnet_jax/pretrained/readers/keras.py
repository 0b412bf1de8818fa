"""Keras' files, by h5py: weights and whole models as .h5 (Keras 2 and 3), .weights.h5 and .keras (Keras 3)."""

import dataclasses
import io
import pathlib
import re
import zipfile
from collections.abc import Iterator

import h5py
import numpy as np

from mnet_jax.pretrained.readers.keras_config import KerasConfig, read_config

# What Keras 3 numbers inside a layer, in the order in which the layer makes it.
_NUMBERED = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
_STATE = ("optimizer", "seed_generator", "metrics", "_trainer")  # of training, not of the network
# Weights hardly compress; a file that declares more than this many times its size (and 64 MiB) is no file of weights.
_MOST, _LEAST = 8, 64 * 2**20
_INPUT = re.compile(r'"batch(?:_input)?_shape": \[null, (\d+), (\d+), 3\]')


@dataclasses.dataclass(frozen=True, kw_only=True)
class KerasFile:
    """All arrays of a model, under "layer/leaf", in lower case, "/" within a layer's name as "_"."""

    arrays: dict[str, np.ndarray]
    numbered: bool  # layers are called by kind and number, as "conv2d_3": the file does not hold their names
    image_size: int | None  # what the model was built for, if it says so
    config: KerasConfig  # what it says about its pixels and its outputs


def read(path: pathlib.Path) -> KerasFile:
    """Reads a file of any of the layouts.

    Raises:
      ValueError: if it is none of them, breaks off, declares far more values than it has bytes, or prepares its pixels
        in a way that cannot be taken over.
    """
    room = max(_MOST * path.stat().st_size, _LEAST)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                parts = [archive.getinfo(name) for name in ("config.json", "model.weights.h5")]
                _check_room(path, sum(part.file_size for part in parts), room)
                config, weights = (archive.read(part) for part in parts)
                with h5py.File(io.BytesIO(weights), "r") as file:
                    return _read(file, path, room, config.decode())
        with h5py.File(path, "r") as file:
            return _read(file, path, room, _text(file.attrs.get("model_config", "")))
    except (OSError, KeyError, RuntimeError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a whole Keras file (.h5, .weights.h5 or .keras): {reason}") from error


def read_paths(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of the network in Keras 3's .weights.h5 by their places, "layers/conv2d_3/vars/0".

    Raises:
      ValueError: if it is no such file, breaks off, or declares far more values than it has bytes.
    """
    try:
        with h5py.File(path, "r") as file:
            _check_sizes(file, path, max(_MOST * path.stat().st_size, _LEAST))
            groups = sorted(_variable_groups(file), key=lambda group: group.name)
            return {f"{group.name[1:]}/{leaf}": np.asarray(group[leaf]) for group in groups for leaf in group}
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a whole file of Keras' weights: {reason}") from error


def _check_room(path: pathlib.Path, needed: int, room: int) -> None:
    if needed > room:
        raise ValueError(f"{path} declares {needed / 2**20:,.0f} MiB in a file of {path.stat().st_size / 2**20:,.1f}")


def _check_sizes(file: h5py.File, path: pathlib.Path, room: int) -> None:
    sizes: list[int] = []
    file.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
    _check_room(path, sum(sizes), room)


def _read(file: h5py.File, path: pathlib.Path, room: int, config: str) -> KerasFile:
    _check_sizes(file, path, room)
    found = _INPUT.search(config)
    size = int(found[1]) if found and found[1] == found[2] else None
    weights = file.get("model_weights", file)
    numbered = False
    if "layer_names" in weights.attrs or "layer_names0" in weights.attrs:
        arrays = dict(_by_name(weights))
    else:
        groups = list(_variable_groups(file))
        if not groups:
            raise ValueError(f"{path} holds no layers of Keras")
        numbered = not any("name" in group.attrs for group in groups)
        arrays = dict(_by_number(groups))
    try:
        said = read_config(config, arrays)
    except ValueError as error:
        raise ValueError(f"{path} cannot be taken over: {error}") from error
    arrays = {name: array for name, array in arrays.items() if name.partition("/")[0] not in said.normalisations}
    return KerasFile(arrays=arrays, numbered=numbered, image_size=size, config=said)


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
