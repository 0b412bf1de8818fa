"""From what to what each tensor of an int8 network reaches: observed on images, or learnt in training."""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.int8.rewrite import Int8Graph
from mnet_jax.deploy.interpret import interpret

Ranges = dict[str, tuple[float, float]]

ESTIMATORS = ("mse", "percentile", "minmax")
_SAMPLE = 1024  # values of each tensor that are kept of each image
_SHARES = np.linspace(0.2, 1.0, 33)  # of the extremes: what "mse" tries


def observe(target: Int8Graph, batches: Iterable[np.ndarray], *, estimator: str = "mse") -> Ranges:
    """Returns the ranges of all tensors over images.

    Args:
      target: the network.
      batches: uint8 [n, H, W, 3], all of one size.
      estimator: "minmax": the extremes. "percentile": leaves out a hundred-thousandth at each end. "mse": the part of
        the extremes whose 256 levels have the smallest mean squared error, clipping included.
    """

    @jax.jit
    def run(images: jax.Array) -> dict[str, tuple[jax.Array, ...]]:
        seen = {}

        def note(node: g.Node, value: jax.Array) -> jax.Array:
            rows = value.reshape(value.shape[0], -1)
            step = -(-rows.shape[1] // _SAMPLE) | 1  # odd: not always the same channels
            seen[node.name] = (jnp.min(value), jnp.max(value), rows[:, ::step])
            return value

        interpret(target.graph, images, note)
        return seen

    extremes: Ranges = {}
    samples: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        for name, (low, high, sample) in jax.device_get(run(batch)).items():
            before = extremes.get(name, (np.inf, -np.inf))
            extremes[name] = (min(before[0], float(low)), max(before[1], float(high)))
            samples.setdefault(name, []).append(sample.astype(np.float16 if estimator == "minmax" else np.float32))
    return {
        name: _estimate(estimator, extreme, np.concatenate([s.ravel() for s in samples[name]]))
        for name, extreme in extremes.items()
    }


def _estimate(estimator: str, extreme: tuple[float, float], sample: np.ndarray) -> tuple[float, float]:
    low, high = min(extreme[0], 0.0), max(extreme[1], 0.0)
    if estimator == "minmax" or high == low:
        return low, high
    if estimator == "percentile":
        return min(float(np.percentile(sample, 0.001)), 0.0), max(float(np.percentile(sample, 99.999)), 0.0)
    few = sample[:: max(1, sample.size // 100_000)]
    errors = []
    for share in _SHARES:
        scale = share * (high - low) / 255
        zero = round(-share * low / scale)
        levels = np.clip(np.round(few / scale) + zero, 0, 255)
        errors.append(np.mean(np.square((levels - zero) * scale - few)))
    best = float(_SHARES[int(np.argmin(errors))])
    return best * low, best * high


def learnt(target: Int8Graph, batch_stats: Mapping[str, Mapping]) -> Ranges:
    """Returns the ranges that quantised training observed (`models/fake_quantization.py`); {} if there are none."""
    ranges: Ranges = {}
    for node in target.graph.nodes:
        value = _find(batch_stats, _variable(node.name))
        if value is not None:
            # a gate was folded 6 times as large as the model has it (`fold.py`)
            factor = target.factors[node.name] * (6.0 if node.name.endswith("/multiply") else 1.0)
            ranges[node.name] = (float(value[0]) * factor, float(value[1]) * factor)
    if not ranges:
        return {}
    for node in target.graph.nodes:
        if isinstance(node, g.Conv) and node.activation == "relu6" and node.name not in ranges:
            ranges[node.name] = (0.0, 6.0)  # a gate
    return ranges


def _variable(name: str) -> tuple[str, ...]:
    """Returns where the model keeps the range of a node."""
    *scope, last = name.split("/")
    match last:
        case "pool":
            return (*scope, "pool_range")
        case "multiply" | "add":
            return (*scope, "output_range")
        case _ if last.endswith(":linear"):
            return (*scope, last.removesuffix(":linear"), "linear_range")
    return (*scope, last, "output_range")


def _find(tree: Mapping, path: tuple[str, ...]) -> np.ndarray | None:
    for name in path:
        if not isinstance(tree, Mapping) or name not in tree:
            return None
        tree = tree[name]
    return np.asarray(tree)
