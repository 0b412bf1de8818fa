"""Weights and images by rule, the same here and at the peers: an array depends on its name and shape alone. NumPy."""

import zlib

import numpy as np

# The cases whose logits are stored for the suite, and pixels: small networks, one for each way in which layouts differ.
GOLDEN: dict[tuple[str, str], int | tuple[int, int]] = {
    ("torchvision", "mobilenet_v3_small x0.75"): 64,
    ("timm", "mobilenetv4_conv_small_035"): 64,
    ("timm", "mobilenetv4_hybrid_medium"): 96,  # attention over more than one position
    ("timm", "mobilenetv3_rw"): (75, 97),
    ("timm", "mobilenetv4_conv_aa_medium"): (75, 97),  # averages round down where strides round up
    ("timm", "mobilenetv4_conv_blur_medium"): (75, 97),
    ("timm", "mobilenet_edgetpu_v2_xs"): (75, 97),
    ("keras", "MobileNet x0.25"): 64,
    ("keras", "MobileNetV2 x0.35"): 64,
}
# Narrow networks of timm's MobileNetV5, with the padding of Gemma's; of the 300m, keys and values are strided.
GOLDEN_V5: dict[tuple[str, str], tuple[int, int]] = {
    ("timm", "mobilenetv5_base x0.1"): (75, 97),
    ("timm", "mobilenetv5_300m x0.05"): (128, 96),
}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 array: kernels that keep the size of activations, norms with a variance and a mean of their own.

    `name` is the library's; its last part, as torch or Keras call it, says what the array is.
    """
    generator = np.random.default_rng(zlib.crc32(name.lower().encode()))
    values = generator.standard_normal(shape, np.float32)
    leaf = name.replace("/", ".").split(".")[-1]
    if leaf in ("running_var", "moving_variance"):
        return np.exp(0.5 * values)
    if leaf in ("running_mean", "moving_mean"):
        return 0.5 * values
    if len(shape) == 4 or (len(shape) == 2):
        # Keras: [k, k, in, out], depthwise [k, k, C, 1]; torch: [out, in, k, k], depthwise [C, 1, k, k]
        keras = "/" in name
        if len(shape) == 2:
            inputs = shape[0] if keras else shape[1]
        elif keras:
            inputs = shape[0] * shape[1] * (1 if shape[3] == 1 else shape[2])
        else:
            inputs = shape[1] * shape[2] * shape[3]
        return values * np.float32(np.sqrt(2 / inputs))
    if leaf in ("weight", "gamma"):
        return 1 + np.float32(0.2) * values  # of a norm, or a layer scale
    return np.float32(0.2) * values  # biases


# KerasHub's presets, and pixels; its V5 resizes maps of odd sides otherwise than timm's, and is compared at even ones.
GOLDEN_HUB: dict[tuple[str, float], tuple[int, int]] = {("v3_small", 0.5): (75, 97), ("v5_base", 0.05): (64, 96)}


def draw_hub(place: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 array at a place in a file of KerasHub, "layers/conv2d/vars/0".

    Biases before the norms of MobileNetV5 are 0, as in what KerasHub publishes.
    """
    layer, _, number = place.rpartition("/vars/")
    last = layer.rpartition("/")[2]
    if last.startswith("batch_normalization"):
        leaf = ("gamma", "beta", "moving_mean", "moving_variance")[int(number)]
    elif last.startswith(("norm", "rms_norm", "layer_scale")):
        leaf = "gamma"
    else:
        leaf = ("kernel", "bias")[int(number)]
    if leaf == "bias" and last == "conv" and layer != "layers/conv_norm_act/conv":
        return np.zeros(shape, np.float32)
    return draw(f"{layer}/{leaf}", shape)


def images(size: int | tuple[int, int]) -> np.ndarray:
    """Float32 [2, size, size, 3], or of (height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(size).standard_normal((2, height, width, 3), np.float32)
