"""KerasHub's presets of MobileNet (V3) and MobileNetV5: a directory, whose arrays become those of timm's networks.

KerasHub's networks are timm's, rebuilt in Keras: the same layers in the same stages. Layouts here are those of
keras_hub 0.32 (models/mobilenet, models/mobilenetv5), by the places of arrays in the .h5 files, not by names of layers.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mnet_jax.models import blocks, plans
from mnet_jax.pretrained.readers import keras

CONFIG, WEIGHTS, TASK, TASK_WEIGHTS = "config.json", "model.weights.h5", "task.json", "task.weights.h5"
CONVERTER = "image_converter.json"
V3, V5 = "MobileNetBackbone", "MobileNetV5Backbone"

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_CONV = ("weight", "bias")
_SE = {"conv_reduce": "se.conv_reduce", "conv_expand": "se.conv_expand"}
# A kind of block and a layer in it -> timm's layer; norms with batch statistics end in .bn<number>.
_V3_BLOCKS = {
    "depthwise_conv_block": {
        "conv1": "conv_dw",
        "batch_normalization1": "bn1",
        **{f"se_layer/{ours}": theirs for ours, theirs in _SE.items()},
        "conv2": "conv_pw",
        "batch_normalization2": "bn2",
    },
    "inverted_residual_block": {
        "conv1": "conv_pw",
        "batch_normalization1": "bn1",
        "conv2": "conv_dw",
        "batch_normalization2": "bn2",
        **{f"squeeze_excite/{ours}": theirs for ours, theirs in _SE.items()},
        "conv3": "conv_pwl",
        "batch_normalization3": "bn3",
    },
}
_V5_UIB = ("dw_start", "pw_exp", "dw_mid", "pw_proj")
_V5_BLOCKS = {
    "edge_residual": {
        "conv_exp/conv": "conv_exp",
        "conv_exp/norm": "bn1",
        "conv_pwl/conv": "conv_pwl",
        "conv_pwl/norm": "bn2",
    },
    "universal_inverted_residual": {
        **{f"{layer}/conv": f"{layer}.conv" for layer in _V5_UIB},
        **{f"{layer}/norm": f"{layer}.bn" for layer in _V5_UIB},
        "layer_scale": "layer_scale",
    },
    "mobile_attention": {
        "norm": "norm",
        "layer_scale": "layer_scale",
        "attn/query_layers/conv2d": "attn.query.proj",
        "attn/output_proj_layers/conv2d": "attn.output.proj",
        **{f"attn/{part}_layers/depthwise_conv2d": f"attn.{part}.down_conv" for part in ("key", "value")},
        **{f"attn/{part}_layers/rms_norm2d": f"attn.{part}.norm" for part in ("key", "value")},
        **{f"attn/{part}_layers/conv2d": f"attn.{part}.proj" for part in ("key", "value")},
    },
}
_V5_KINDS = {"er": "edge_residual", "uir": "universal_inverted_residual", "mqa": "mobile_attention"}
_FUSION = "mobile_net_v5_multi_scale_fusion_adapter"
_V3_TOP = {"conv2d": "conv_head", "dense": "classifier"}  # of task.weights.h5
_V5_TOP = {"dense": "classifier"}
_V5_BIASED = ("conv_stem.conv.bias", "classifier.bias")
_CROP = 0.9999  # the centre square of the short side; 1.0 is the whole picture, squeezed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a preset's images are prepared."""

    image_size: int
    mean: tuple[float, ...]  # of pixels in 0..255, per channel
    std: tuple[float, ...]
    eval_crop: float
    interpolation: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """What a directory holds."""

    kind: str  # V3 or V5
    config: Mapping[str, Any]  # of its backbone
    arrays: dict[str, np.ndarray]  # under timm's names, with timm's axes
    preparation: Preparation | None


def is_preset(path: pathlib.Path) -> bool:
    """Returns whether a directory is a preset of KerasHub, of whatever model."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def read(path: pathlib.Path) -> Preset:
    """Reads a directory that `save_to_preset` wrote, or that KerasHub downloaded.

    Raises:
      ValueError: if it is of another model, breaks off, or has what the networks here have not.
    """
    about = _json(path / CONFIG)
    kind, config = about.get("class_name"), about.get("config")
    if kind not in (V3, V5) or not isinstance(config, dict):
        raise ValueError(f"{path} is a preset of KerasHub's {kind}: those of its {V3} and {V5} are read")
    try:
        places = _v3_places(config) if kind == V3 else _v5_places(config)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path / CONFIG} is no config of KerasHub's {kind}: {error!r}") from error
    arrays = _translated(keras.read_paths(path / WEIGHTS), places, path / WEIGHTS)
    if (path / TASK_WEIGHTS).is_file():
        if (head := _json(path / TASK).get("class_name")) not in (
            "MobileNetImageClassifier",
            "MobileNetV5ImageClassifier",
        ):
            raise ValueError(f"{path} is a preset of KerasHub's task {head}, of which only classifiers are read")
        top = _V3_TOP if kind == V3 else _V5_TOP
        arrays |= _translated(keras.read_paths(path / TASK_WEIGHTS), top, path / TASK_WEIGHTS)
    if kind == V5:
        arrays = _without_biases(arrays, path)
    converter = path / CONVERTER
    preparation = _preparation(converter) if converter.is_file() else None
    return Preset(kind=kind, config=config, arrays=arrays, preparation=preparation)


def check_config(preset: Preset, plan: plans.ModelPlan, origin: str) -> None:
    """Raises ValueError unless a preset computes what the plan does, beyond what shapes of arrays say."""
    expected = _v3_config(plan) if preset.kind == V3 else _v5_config(plan)
    for field, ours in expected.items():
        theirs = preset.config.get(field)
        if _flat(theirs) != _flat(ours):
            raise ValueError(f"{origin} has {field} {theirs}, where {plan.name} x{plan.width:g} has {ours}")


# --- Where arrays are ---


def _v3_places(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns timm's module for each place in the file."""
    stages = [int(length) for length in config["stackwise_num_blocks"]]
    places = {"conv2d": "conv_stem", "batch_normalization": "bn1"}
    last = f"blocks.{len(stages) + 1}.0"
    places |= {"conv_bn_act_block/conv": f"{last}.conv", "conv_bn_act_block/batch_normalization": f"{last}.bn1"}
    kinds = [["depthwise_conv_block"], *(["inverted_residual_block"] * length for length in stages)]
    return places | _block_places(kinds, _V3_BLOCKS)


def _v5_places(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns timm's module for each place in the file."""
    places = {
        "conv_norm_act/conv": "conv_stem.conv",
        "conv_norm_act/norm": "conv_stem.bn",
        f"{_FUSION}/norm": "msfa.norm",
    }
    for layer in ("pw_exp", "pw_proj"):
        places |= {f"{_FUSION}/ffn/{layer}/{ours}": f"msfa.ffn.{layer}.{theirs}" for ours, theirs in _NORMED.items()}
    kinds = [[_V5_KINDS[kind] for kind in stage] for stage in config["stackwise_block_types"]]
    return places | _block_places(kinds, _V5_BLOCKS)


_NORMED = {"conv": "conv", "norm": "bn"}


def _block_places(stages: list[list[str]], known: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Returns places of the layers of blocks; Keras numbers the layers of each kind through all stages."""
    places: dict[str, str] = {}
    counts: dict[str, int] = {}
    for stage, kinds in enumerate(stages):
        for index, kind in enumerate(kinds):
            number = counts.get(kind, 0)
            counts[kind] = number + 1
            folder = f"{kind}_{number}" if number else kind
            places |= {f"{folder}/{ours}": f"blocks.{stage}.{index}.{theirs}" for ours, theirs in known[kind].items()}
    return places


def _translated(
    arrays: Mapping[str, np.ndarray], places: Mapping[str, str], path: pathlib.Path
) -> dict[str, np.ndarray]:
    """Returns arrays of a file, "layers/<place>/vars/<number>", under timm's names and with PyTorch's axes."""
    found = {}
    for name, array in arrays.items():
        parts = re.fullmatch(r"(?:layers|_layer_checkpoint_dependencies)/(.+)/vars/(\d+)", name)
        module = places.get(parts[1]) if parts else None
        if parts is None or module is None:
            raise ValueError(f"{path} has {name}, which is no array of a MobileNet")
        last = module.rpartition(".")[2]
        if array.ndim == 1 and last == "layer_scale":
            leaves: tuple[str, ...] = ("gamma",)
        else:
            leaves = _BATCH_NORM if last.startswith("bn") and len(last) == 3 else _CONV
        number = int(parts[2])
        if number >= len(leaves):
            raise ValueError(f"{path} has {name}, which is no array of a MobileNet")
        if array.ndim == 4:  # [k, k, in, out], of a DepthwiseConv2D [k, k, C, 1]
            array = array.transpose((2, 3, 0, 1) if array.shape[3] == 1 and last == "down_conv" else (3, 2, 0, 1))
        elif array.ndim == 2:
            array = array.T
        found[f"{module}.{leaves[number]}"] = array
    return found


def _without_biases(arrays: dict[str, np.ndarray], path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns V5's arrays without the biases that KerasHub adds to timm's network, which are 0 as it publishes them.

    Raises:
      ValueError: if they are something else: no place here has them.
    """
    added = [
        name
        for name, array in arrays.items()
        if name.endswith(".bias") and name not in _V5_BIASED and arrays[name.removesuffix("bias") + "weight"].ndim == 4
    ]
    if any(np.any(arrays[name]) for name in added):
        raise ValueError(
            f"{path} has biases before its norms that were trained in KerasHub ({added[0]}, ...), which MobileNetV5 "
            "has not: the weights as published are read"
        )
    return {name: array for name, array in arrays.items() if name not in added}


# --- What a config says ---


def _v3_config(plan: plans.ModelPlan) -> dict[str, Any]:
    first, *rest = plan.blocks
    return {
        "stackwise_kernel_size": [block.depthwise.kernel for block in rest],
        "stackwise_padding": [block.depthwise.kernel // 2 for block in rest],
        "stackwise_num_strides": [block.stride for block in rest],
        "stackwise_activation": [block.depthwise.activation for block in rest],
        "depthwise_stride": first.stride,
        "depthwise_residual": first.residual,
        "input_activation": plan.stem.activation,
    }


def _v5_config(plan: plans.ModelPlan) -> dict[str, Any]:
    attention = [block if isinstance(block, blocks.MultiQueryAttentionPlan) else None for block in plan.blocks]
    return {
        "stackwise_strides": [block.stride for block in plan.blocks],
        "stackwise_act_layers": ["gelu"] * len(plan.blocks),
        "stackwise_num_heads": [0 if block is None else block.heads for block in attention],
        "stackwise_key_dims": [0 if block is None else block.key_features for block in attention],
        "stackwise_kv_strides": [_memory_stride(block) for block in attention],
        "stackwise_use_cpe": [False] * len(plan.blocks),
        "act_layer": "gelu",
        "norm_layer": "rms_norm",
        "pad_type": "same",
        "use_msfa": True,
        "msfa_indices": [-2, -1],
        "msfa_output_resolution": plan.fusion.size[0] if plan.fusion else None,
    }


def _memory_stride(block: blocks.MultiQueryAttentionPlan | None) -> int:
    if block is None:
        return 0
    return 1 if block.key_depthwise is None else block.key_depthwise.stride


def _flat(value: Any) -> list[Any]:
    """Returns the values of lists in lists, one after the other."""
    return [leaf for item in value for leaf in _flat(item)] if isinstance(value, list | tuple) else [value]


def _preparation(path: pathlib.Path) -> Preparation:
    """Reads the layer that prepares images: a size, pixels * scale + offset.

    Raises:
      ValueError: if it does something else.
    """
    config = _json(path).get("config", {})
    try:
        height, width = config["image_size"]
        scale = np.broadcast_to(np.asarray(1.0 if config["scale"] is None else config["scale"], np.float64), 3)
        offset = np.broadcast_to(np.asarray(0.0 if config["offset"] is None else config["offset"], np.float64), 3)
        interpolation, crop = config["interpolation"], config["crop_to_aspect_ratio"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not say how images are prepared: {error!r}") from error
    padded = config.get("pad_to_aspect_ratio")
    usable = height == width and interpolation in ("bilinear", "bicubic") and not padded and bool(np.all(scale > 0))
    if not usable:
        raise ValueError(
            f"{path} asks for what mnet_jax does not have: {height}x{width} px, {interpolation}, scale {scale}"
            f"{', padded to its shape' if padded else ''}"
        )
    mean, std = -offset / scale, 1 / scale
    return Preparation(
        image_size=int(height),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        eval_crop=_CROP if crop else 1.0,
        interpolation=interpolation,
    )


def _json(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        read = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no whole file of JSON: {error}") from error
    if not isinstance(read, dict):
        raise ValueError(f"{path} is no config of Keras")
    return read
