"""What a Keras model's own configuration says about its pixels and its outputs."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mnet_jax.data.catalog import Statistics

_NETWORK = ("Conv2D", "ZeroPadding2D", "DepthwiseConv2D", "SeparableConv2D", "BatchNormalization")  # it begins here
_NOTHING = ("InputLayer", "Dropout", "SpatialDropout2D", "GaussianNoise", "Identity", "Resizing", "CenterCrop")
# Keras 3's operations and Keras 2's TFOpLambda on the pixels and a number, and their place in scale and offset.
_OPERATIONS = {
    "TrueDivide": "divide",
    "Divide": "divide",
    "math.truediv": "divide",
    "Multiply": "multiply",
    "math.multiply": "multiply",
    "Subtract": "subtract",
    "math.subtract": "subtract",
    "Add": "add",
    "math.add": "add",
    "__operators__.add": "add",
}


@dataclasses.dataclass(frozen=True)
class KerasConfig:
    """What is read off a configuration; of a file without one nothing is known."""

    pixels: Statistics | None = None  # mean and deviation that its first layers make of pixels in 0..255
    activation: str | None = None  # of its last layer
    normalisations: tuple[str, ...] = ()  # layers among the first whose arrays are part of `pixels`


def read_config(text: str, arrays: Mapping[str, np.ndarray]) -> KerasConfig:
    """Reads the JSON of a model.

    Args:
      text: the JSON; "" where the file has none.
      arrays: of the file: a Normalization that was adapted to data has its mean and variance there.

    Raises:
      ValueError: if what it does to pixels cannot be done by a mean and a deviation a channel, or it is no JSON.
    """
    if not text:
        return KerasConfig()
    layers = list(_layers(json.loads(text)))
    scale, offset, names = np.ones(3), np.zeros(3), []
    for layer in layers:
        kind, config = layer["class_name"], layer["config"]
        if kind in _NETWORK:
            break
        if kind in _NOTHING or kind.startswith("Random"):
            continue
        if kind == "Rescaling":
            factor, shift = _number(config["scale"]), _number(config["offset"])
        elif kind == "Normalization":
            names.append(config["name"].lower())
            factor, shift = _normalization(config, arrays)
        elif (operation := _OPERATIONS.get(str(config.get("function", kind)))) is not None:
            factor, shift = _operation(operation, _operand(layer))
        else:
            raise ValueError(
                f"its layer {config.get('name', kind)!r} ({kind}) stands before the network, and what it does to "
                "pixels is not known: save the network without it"
            )
        scale, offset = scale * factor, offset * factor + shift
    if not np.all(np.isfinite([scale, offset])) or np.any(scale == 0):
        raise ValueError(f"its first layers make pixels * {scale} + {offset} of pixels")
    changed = not (np.all(scale == 1) and np.all(offset == 0))
    mean, std = (tuple(float(value) for value in values) for values in (-offset / scale, 1 / scale))
    activations = [layer["config"]["activation"] for layer in layers if "activation" in layer["config"]]
    last = activations[-1] if activations else None
    return KerasConfig((mean, std) if changed else None, last if isinstance(last, str) else None, tuple(names))


def _layers(model: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the layers of a model and of the models within it, in their order, which is that of computing."""
    for layer in model["config"]["layers"]:
        if "layers" in layer["config"]:
            yield from _layers(layer)
        else:
            yield layer


def _number(value: Any) -> np.ndarray:
    """Returns a number, or one a channel, which Keras may wrap in lists and records."""
    if isinstance(value, dict):
        value = value.get("config", value)
        value = value.get("value", value) if isinstance(value, dict) else value
    return np.broadcast_to(np.asarray(value, np.float64).reshape(-1), 3)


def _normalization(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns factor and shift of (x - mean) / deviation."""
    name = config["name"].lower()
    mean, variance = config.get("mean"), config.get("variance")
    if mean is None:
        found = [arrays.get(f"{name}/{leaf}", arrays.get(f"{name}/{k}")) for k, leaf in enumerate(("mean", "variance"))]
        if any(value is None for value in found):
            raise ValueError(f"its layer {name!r} (Normalization) has neither a mean nor one among its arrays")
        mean, variance = found
    deviation = np.maximum(np.sqrt(_number(variance)), 1e-7)  # keras.config.epsilon()
    if config.get("invert"):
        return deviation, _number(mean)
    return 1 / deviation, -_number(mean) / deviation


def _operation(operation: str, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if operation in ("multiply", "divide"):
        return (number if operation == "multiply" else 1 / number), np.zeros(3)
    return np.ones(3), (number if operation == "add" else -number)


def _operand(layer: Mapping[str, Any]) -> np.ndarray:
    """Returns the number that an operation takes beside the pixels."""
    (node, *_) = layer["inbound_nodes"]
    if isinstance(node, dict):  # Keras 3: {"args": [tensor, 127.5], "kwargs": {...}}
        values = [*node["args"][1:], *node["kwargs"].values()]
    else:  # Keras 2: [["input_1", 0, 0, {"y": 127.5}]] or ["input_1", 0, 0, {"y": 127.5}]
        inner = node[0] if isinstance(node[0], list) else node
        values = [value for key, value in inner[3].items() if key != "name"]
    numbers = [value for value in values if isinstance(value, int | float | list)]
    if len(numbers) != 1:
        raise ValueError(f"its layer {layer['config'].get('name')!r} takes something else than a number")
    return _number(numbers[0])
