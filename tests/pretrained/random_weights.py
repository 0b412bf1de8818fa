"""Weights and images by rule, the same here and at the peers: an array depends on its name and shape alone. NumPy."""

import zlib

import numpy as np

# The cases whose logits are stored for the suite: small networks, one for each way in which layouts differ.
GOLDEN = (
    ("torchvision", "mobilenet_v3_small x0.75"),
    ("timm", "mobilenetv4_conv_small_035"),
    ("timm", "mobilenetv4_hybrid_medium"),
    ("keras", "MobileNet x0.25"),
    ("keras", "MobileNetV2 x0.35"),
)


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


def images(size: int) -> np.ndarray:
    """Float32 [2, size, size, 3]."""
    return np.random.default_rng(size).standard_normal((2, size, size, 3), np.float32)
