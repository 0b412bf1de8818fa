"""Rounds the weights of an int8 network so that the results of its layers, not its weights, change least.

The error of a layer's result is a quadratic form of the errors of its weights, whose matrix is the covariance of the
layer's inputs; their mean is the bias' business. Weights are rounded one input after the other, and what each rounding
does is made good in the weights that are still to come: Frantar et al., "GPTQ", arXiv 2210.17323, after Hassibi and
Stork's optimal brain surgeon. The bias then takes the mean error: Nagel et al., arXiv 1906.04721, section 4.2.
"""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.int8.rewrite import Int8Graph
from mnet_jax.deploy.interpret import interpret

_DAMPING = 0.01  # of the mean variance, added to each input's (GPTQ's): few images do not tell a covariance exactly
_ATTEMPTS = 20  # at a damping, each ten times the one before
_SHARES = np.linspace(0.6, 1.0, 9)  # of the largest weight: what is tried for the scale
_POSITIONS = 256  # of a map that are looked at in each image, where the kernel is larger than 1 x 1
_LEVELS = 127  # weights are -127 to 127


@dataclasses.dataclass(frozen=True)
class Moments:
    """Of what a kernel is multiplied with, in the order of its flattened height, width and input channels."""

    mean: np.ndarray  # float64 [n], or [C, n] where depthwise
    covariance: np.ndarray  # float64 [n, n], or [C, n, n]


@dataclasses.dataclass(frozen=True)
class Rounded:
    """A convolution in whole numbers: int8 kernel [k, k, in, out] or [k, k, 1, C], its scale [out], its bias [out]."""

    kernel: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


def moments(target: Int8Graph, batches: Iterable[np.ndarray]) -> dict[str, Moments]:
    """Returns mean and covariance of the inputs of every convolution over images, uint8 [n, H, W, 3]."""

    @jax.jit
    def run(images: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        values, sums = {g.INPUT: images}, {}

        def note(node: g.Node, value: jax.Array) -> jax.Array:
            values[node.name] = value
            if isinstance(node, g.Conv):
                sums[node.name] = _sums(node, values[node.inputs[0]])
            return value

        interpret(target.graph, images, note)
        return sums

    totals: dict[str, list[np.ndarray]] = {}
    count = 0
    for batch in batches:
        count += len(batch)
        for name, parts in jax.device_get(run(batch)).items():
            totals[name] = [a + b.astype(np.float64) for a, b in zip(totals.get(name, (0, 0)), parts, strict=True)]
    found = {}
    for name, (first, second) in totals.items():
        mean = first / count
        found[name] = Moments(mean, second / count - mean[..., :, None] * mean[..., None, :])
    return found


def _sums(node: g.Conv, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns a layer's inputs and their products: means over positions, sums over images."""
    size, (height, width) = node.kernel.shape[0], node.shape[:2]
    step = 1 if size == 1 else int(np.ceil(np.sqrt(height * width / _POSITIONS)))
    rows, columns, stride = -(-height // step), -(-width // step), step * node.stride
    padded = jnp.pad(x, ((0, 0), *node.padding, (0, 0)))
    taps = range(0, size * node.dilation, node.dilation)
    parts = [
        padded[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in taps
        for j in taps
    ]
    patches = jnp.stack(parts, 3).reshape(-1, size * size, x.shape[-1])
    scale = 1 / (rows * columns)
    if node.depthwise:
        return scale * patches.sum(0).T, scale * jnp.einsum("mkc,mlc->ckl", patches, patches)
    flat = patches.reshape(len(patches), -1)
    return scale * flat.sum(0), scale * (flat.T @ flat)


def round_conv(node: g.Conv, scale: np.ndarray, least: np.ndarray, known: Moments | None) -> Rounded:
    """Rounds a layer's weights; each to the nearest where nothing is known of its inputs.

    Args:
      node: the layer.
      scale: of its output channels [out], with which their largest weights just fit.
      least: the smallest scales that they may have, [out].
      known: what is known of its inputs.
    """
    shape, bias, scale = node.kernel.shape, node.bias, np.maximum(scale, least)
    columns = node.kernel.reshape(-1, shape[-1]).astype(np.float64)
    if known is None:
        scale = scale.astype(np.float32)
        levels = _nearest(columns, scale)
    else:
        scale = np.maximum(_best_scale(columns, scale, known.covariance), least).astype(np.float32)
        levels = round_columns(columns, scale, known.covariance)
        error = columns - levels * scale.astype(np.float64)
        bias = bias + (np.einsum("cn,nc->c", known.mean, error) if node.depthwise else known.mean @ error)
    return Rounded(levels.reshape(shape).astype(np.int8), scale, bias.astype(np.float32))


def _nearest(columns: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip(np.round(columns / scale), -_LEVELS, _LEVELS)


def _best_scale(columns: np.ndarray, scale: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Returns the part of each scale with which weights rounded to the nearest do best; the largest may be cut."""
    parts = [scale.astype(np.float64) * share for share in _SHARES]
    errors = [result_variance(columns - _nearest(columns, part) * part, covariance) for part in parts]
    return np.choose(np.argmin(errors, 0), parts)


def result_variance(error: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Returns what errors [n, out] of weights do to each result; covariance [n, n], or [out, n, n] where depthwise."""
    if covariance.ndim == 3:
        return np.einsum("nc,cnm,mc->c", error, covariance, error)
    return np.sum(error * (covariance @ error), 0)


def round_columns(columns: np.ndarray, scale: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Returns weights [n, out] as whole numbers of `scale` [out]; covariance [n, n], or [out, n, n] where depthwise."""
    number = columns.shape[0]
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    # Inputs that vary most come first, while there are many weights left to make their errors good.
    order = np.argsort(-variance, -1, kind="stable")
    upper = _upper_factor(
        np.take_along_axis(np.take_along_axis(covariance, order[..., :, None], -2), order[..., None, :], -1)
    )
    places = np.broadcast_to(order.T if order.ndim == 2 else order[:, None], columns.shape)
    left = np.take_along_axis(columns.astype(np.float64), places, 0)
    levels = np.empty_like(left)
    for i in range(number):
        levels[i] = _nearest(left[i], scale)
        error = (left[i] - levels[i] * scale) / upper[..., i, i]
        rest = upper[..., i, i + 1 :]
        left[i + 1 :] -= rest.T * error if rest.ndim == 2 else np.outer(rest, error)
    result = np.empty_like(levels)
    np.put_along_axis(result, places, levels, 0)
    return result


def _upper_factor(covariance: np.ndarray) -> np.ndarray:
    """Returns U, upper triangular, with U'U the inverse of the damped covariance, float64 [..., n, n].

    Row i of U holds what the error of input i means for those after it. Sums in float32 give inputs that vary little
    around a large mean a covariance that no inputs have, and that has no factor: it is damped more, until it has one.
    """
    variance = np.abs(np.diagonal(covariance, axis1=-2, axis2=-1))
    damping = _DAMPING * variance.mean(-1)[..., None, None] + 1e-12
    for _ in range(_ATTEMPTS if np.all(np.isfinite(covariance)) else 0):
        try:
            lower = np.linalg.cholesky((covariance + damping * np.eye(covariance.shape[-1]))[..., ::-1, ::-1])
        except np.linalg.LinAlgError:
            damping = 10 * damping
        else:
            return np.linalg.inv(lower)[..., ::-1, ::-1]
    return np.broadcast_to(np.eye(covariance.shape[-1]), covariance.shape)  # each weight for itself
