"""Blocks against a NumPy reference in float64, written from the papers and independent of plans and modules."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnet_jax.models import blocks, plans, pools
from mnet_jax.models.blocks.modules import MODULES
from mnet_jax.models.layers import Shared
from mnet_jax.models.resolve import resolve
from mnet_jax.models.specs import ModelSpec
from mnet_jax.models.widths import WidthRule

CHANNELS = 16  # of every block's input
DECAY, EPSILON = 0.9, 1e-3
BATCH_NORM, RMS_NORM = plans.BatchNorm(decay=DECAY, epsilon=EPSILON), plans.RmsNorm(epsilon=EPSILON)

CASES = {
    "conv": blocks.Conv(kernel=3, features=24, stride=2, activation="relu"),
    "conv_1x1": blocks.Conv(kernel=1, features=24, activation="relu"),
    "conv_bias": blocks.Conv(kernel=3, features=24, activation="gelu_tanh", bias=True),
    "separable": blocks.Separable(features=CHANNELS, activation="relu6"),
    "separable_strided": blocks.Separable(features=24, stride=2, activation="relu6"),
    "v2": blocks.InvertedResidual(expanded=96, features=CHANNELS, activation="relu6"),
    "v2_no_expansion": blocks.InvertedResidual(expanded=CHANNELS, features=8, activation="relu6"),
    "v2_strided": blocks.InvertedResidual(expanded=96, features=CHANNELS, stride=2, activation="relu6"),
    "v3": blocks.InvertedResidual(kernel=5, expanded=40, features=CHANNELS, activation="hard_swish"),
    "v3_se": blocks.InvertedResidual(
        kernel=5, expanded=72, features=CHANNELS, squeeze_excite=True, activation="hard_swish"
    ),
    "v3_se_no_expansion": blocks.InvertedResidual(
        expanded=CHANNELS, features=CHANNELS, stride=2, squeeze_excite=True, activation="relu"
    ),
    "v3_rw": blocks.InvertedResidual(
        expanded=72,
        features=CHANNELS,
        squeeze_excite=True,
        squeeze_divisor=1,
        squeeze_activation="hard_swish",
        activation="hard_swish",
        residual=False,
    ),
    "fused_ib": blocks.FusedInvertedBottleneck(expand=4, features=24, stride=2, activation="relu"),
    "fused_ib_residual": blocks.FusedInvertedBottleneck(expand=2, features=CHANNELS, activation="relu"),
    "fused_ib_groups": blocks.FusedInvertedBottleneck(
        expand=4, features=CHANNELS, activation="relu", group_features=16
    ),
    "fused_ib_groups_strided": blocks.FusedInvertedBottleneck(
        kernel=5, expand=2, features=24, stride=2, activation="relu", group_features=16
    ),
    **{
        f"fused_ib_{pool}": blocks.FusedInvertedBottleneck(
            expand=4, features=24, stride=2, activation="relu", pool=pool
        )
        for pool in pools.POOLS
    },
    **{
        f"uib_{start}{middle}_{pool}": blocks.UniversalInvertedBottleneck(
            start_kernel=start, middle_kernel=middle, expand=3, features=24, stride=2, activation="relu", pool=pool
        )
        for start, middle in ((3, 5), (5, 0))
        for pool in pools.POOLS
    },
    **{
        f"uib_{start}{middle}_s{stride}_{activation}": blocks.UniversalInvertedBottleneck(
            start_kernel=start,
            middle_kernel=middle,
            expand=3,
            features=CHANNELS,
            stride=stride,
            activation=activation,
            layer_scale=0.5 if activation == "gelu" else None,
        )
        for start, middle, stride, activation in (
            (5, 3, 1, "relu"),
            (3, 5, 2, "gelu"),
            (3, 0, 1, "gelu"),
            (5, 0, 2, "relu"),
            (0, 3, 1, "relu"),
            (0, 5, 2, "relu"),
            (0, 0, 1, "gelu"),
        )
    },
    "mqa": blocks.MultiQueryAttention(heads=3, key_features=8, features=CHANNELS, layer_scale=0.5),
    "mqa_strided": blocks.MultiQueryAttention(
        heads=2, key_features=8, key_value_stride=2, features=CHANNELS, layer_scale=0.5
    ),
}
CASES |= {  # V5's
    "rms_conv_bias": blocks.Conv(kernel=3, features=24, stride=2, activation="gelu_tanh", bias=True),
    "rms_fused_ib": blocks.FusedInvertedBottleneck(expand=2, features=CHANNELS, activation="gelu_tanh"),
    "rms_uib": blocks.UniversalInvertedBottleneck(
        start_kernel=3, middle_kernel=5, expand=3, features=24, stride=2, activation="gelu_tanh", layer_scale=0.5
    ),
    "rms_mqa": CASES["mqa"],
    "rms_mqa_strided": CASES["mqa_strided"],
}

# --- The reference: x is [N, H, W, C], p a scope's parameters, s its statistics ---

ACTIVATIONS = {
    None: lambda x: x,
    "relu": lambda x: np.where(x > 0, x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
}


def in_groups(x, kernel):
    """[..., I] by a kernel [I / groups, O]: a piece of the features from each piece of the channels."""
    groups = x.shape[-1] // kernel.shape[0]
    pairs = zip(np.split(x, groups, -1), np.split(kernel, groups, -1), strict=True)
    return np.concatenate([piece @ weights for piece, weights in pairs], -1)


def pooled(x, pool, stride):
    """timm's avg, AvgPool2d(2), and blurpc, binomial of size 3 with zeros around: position by position."""
    weights, zeros = {"average": ([1, 1], 0), "blur": ([1, 2, 1], 1)}[pool]
    weights = np.outer(weights, weights) / np.sum(weights) ** 2
    x = np.pad(x, ((0, 0), (zeros, zeros), (zeros, zeros), (0, 0)))
    rows, columns = ((side - len(weights)) // stride + 1 for side in x.shape[1:3])
    y = np.zeros((len(x), rows, columns, x.shape[3]))
    for row in range(rows):
        for column in range(columns):
            window = x[:, row * stride :, column * stride :][:, : len(weights), : len(weights)]
            y[:, row, column] = np.einsum("nijc,ij->nc", window, weights)
    return y


class Reference:
    """Runs layers over one block's variables and keeps what batch norm does to the statistics."""

    def __init__(self, variables, padding, train):
        self.params, self.stats = variables["params"], variables["batch_stats"]
        self.padding, self.train = padding, train
        self.new_stats = {}

    def norm(self, x, params, path):
        if "bias" not in params:
            return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + EPSILON) * params["scale"]
        stats = self.stats
        for scope in path:
            stats = stats[scope]
        mean, var = stats["mean"], stats["var"]
        if self.train:
            rows = x.reshape(-1, x.shape[-1])
            keep = {"mean": mean * DECAY, "var": var * DECAY}
            self.new_stats[path] = {
                "mean": keep["mean"] + (1 - DECAY) * rows.mean(0),
                "var": keep["var"] + (1 - DECAY) * rows.var(0, ddof=1),
            }
            mean, var = rows.mean(0), rows.var(0)
        return (x - mean) / np.sqrt(var + EPSILON) * params["scale"] + params["bias"]

    def conv(self, x, name, stride, activation, pool=None):
        """k x k, depthwise, pointwise or in groups, by what the scope holds; then norm, activation, and the average."""
        if pool is not None and stride > 1:
            return pooled(self.conv(x, name, 1, activation), pool, stride)
        scope = self.params[name]
        depthwise = "depthwise_kernel" in scope
        kernel = scope["depthwise_kernel" if depthwise else "kernel"]
        kernel = kernel if kernel.ndim == 4 else kernel[None, None]
        k = kernel.shape[0]
        pads, out = [], []
        for size in x.shape[1:3]:
            out.append(math.ceil(size / stride))
            total = max((out[-1] - 1) * stride + k - size, 0)
            pads.append((k // 2, k // 2) if self.padding == "symmetric" else (total // 2, total - total // 2))
        x = np.pad(x, ((0, 0), *pads, (0, 0)))
        y = 0
        for i in range(k):
            for j in range(k):
                patch = x[:, i : i + (out[0] - 1) * stride + 1 : stride, j : j + (out[1] - 1) * stride + 1 : stride]
                y = y + (patch * kernel[i, j, 0] if depthwise else in_groups(patch, kernel[i, j]))
        if "bias" in scope:
            y = y + scope["bias"]
        if "norm" in scope:
            y = self.norm(y, scope["norm"], (name, "norm"))
        return ACTIVATIONS[activation](y)

    def squeeze_excite(self, x, activation):
        scope = self.params["se"]
        gate = x.mean((1, 2))
        gate = ACTIVATIONS[activation](gate @ scope["reduce"]["kernel"] + scope["reduce"]["bias"])
        gate = np.clip((gate @ scope["expand"]["kernel"] + scope["expand"]["bias"] + 3) / 6, 0, 1)
        return x * gate[:, None, None]

    def attention(self, x, block):
        y = self.norm(x, self.params["norm"], ("norm",))
        key = value = y
        if block.key_value_stride > 1:
            key = self.conv(y, "key_depthwise", block.key_value_stride, None)
            value = self.conv(y, "value_depthwise", block.key_value_stride, None)
        query = self.conv(y, "query", 1, None)
        key, value = self.conv(key, "key", 1, None), self.conv(value, "value", 1, None)
        n, h, w, _ = x.shape
        query = query.reshape(n, h * w, block.heads, block.key_features)
        key, value = key.reshape(n, -1, block.key_features), value.reshape(n, -1, block.key_features)
        out = np.zeros_like(query)
        for example in range(n):
            for head in range(block.heads):
                scores = query[example, :, head] @ key[example].T / math.sqrt(block.key_features)
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                out[example, :, head] = weights / weights.sum(-1, keepdims=True) @ value[example]
        return self.conv(out.reshape(n, h, w, -1), "output", 1, None)

    def block(self, x, block):
        match block:
            case blocks.Conv():
                return self.conv(x, "conv", block.stride, block.activation)
            case blocks.Separable():
                y = self.conv(x, "depthwise", block.stride, block.activation)
                return self.conv(y, "pointwise", 1, block.activation)
            case blocks.InvertedResidual():
                y = x if block.expanded == CHANNELS else self.conv(x, "expand", 1, block.activation)
                y = self.conv(y, "depthwise", block.stride, block.activation)
                y = self.squeeze_excite(y, block.squeeze_activation) if block.squeeze_excite else y
            case blocks.FusedInvertedBottleneck():
                y = self.conv(x, "expand", block.stride, block.activation, block.pool)
            case blocks.UniversalInvertedBottleneck():
                y, start_stride = x, 1 if block.middle_kernel else block.stride
                if block.start_kernel:
                    y = self.conv(y, "start_depthwise", start_stride, None, block.pool)
                y = self.conv(y, "expand", 1, block.activation)
                if block.middle_kernel:
                    y = self.conv(y, "middle_depthwise", block.stride, block.activation, block.pool)
            case blocks.MultiQueryAttention():
                y = self.attention(x, block)
        if not isinstance(block, blocks.MultiQueryAttention):
            y = self.conv(y, "project", 1, None)
        y = y * self.params["layer_scale"] if "layer_scale" in self.params else y
        return x + y if y.shape == x.shape and getattr(block, "residual", True) else y


def build(block, padding, dtype="float32", norm=BATCH_NORM):
    """The module of one block behind a stem of CHANNELS features, and float64 variables with nothing at rest."""
    model = ModelSpec(
        name="one",
        source="",
        image_size=32,
        stem=blocks.Conv(kernel=3, features=CHANNELS, stride=1, activation="relu"),
        blocks=(block,),
        dropout=0.0,
        norm=norm,
        width_rules={"tf": WidthRule()},
    )
    plan = resolve(model, padding=padding)
    module = MODULES[type(plan.blocks[0])](plan.blocks[0], Shared(dtype, padding, plan.norm))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8, 8, CHANNELS)), train=False))
    draw = np.random.default_rng(7)

    def value(path, leaf):
        noise = draw.normal(size=leaf.shape)
        match path[-1].key:
            case "var":
                return np.exp(0.3 * noise)
            case "scale" | "layer_scale":
                return 1 + 0.3 * noise
            case "kernel" | "depthwise_kernel":
                return noise * math.sqrt(2 / max(math.prod(leaf.shape[:-1]), 1))
        return 0.3 * noise

    variables = jax.tree_util.tree_map_with_path(value, shapes)
    return module, {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


@pytest.mark.parametrize("padding", plans.PADDINGS)
@pytest.mark.parametrize("name", CASES)
def test_block_is_the_reference(name, padding):
    module, variables = build(CASES[name], padding, norm=RMS_NORM if name.startswith("rms_") else BATCH_NORM)
    images = np.random.default_rng(3).normal(size=(3, 8, 7, CHANNELS))
    single = jax.tree.map(jnp.float32, (variables, images))

    @jax.jit
    def both(variables, images):
        return (
            module.apply(variables, images, train=False),
            module.apply(variables, images, train=True, mutable=["batch_stats"]),
        )

    evaluated, (trained, updates) = both(*single)
    reference = Reference(variables, padding, train=False)
    np.testing.assert_allclose(evaluated, reference.block(images, CASES[name]), rtol=2e-4, atol=2e-5)
    reference = Reference(variables, padding, train=True)
    np.testing.assert_allclose(trained, reference.block(images, CASES[name]), rtol=2e-4, atol=2e-4)
    leaves = jax.tree_util.tree_leaves_with_path(updates.get("batch_stats", {}))
    assert len(leaves) == 2 * len(reference.new_stats)
    for path, leaf in leaves:
        *scope, statistic = (key.key for key in path)
        np.testing.assert_allclose(leaf, reference.new_stats[tuple(scope)][statistic], rtol=1e-4, atol=1e-5)


def test_reference_sees_padding():
    """The two paddings differ where stride meets an even size, so that the test above can tell them apart."""
    block = CASES["v2_strided"]
    images = np.random.default_rng(3).normal(size=(1, 8, 7, CHANNELS))
    _, variables = build(block, "same")
    same, symmetric = (Reference(variables, padding, train=False).block(images, block) for padding in plans.PADDINGS)
    assert np.abs(same - symmetric).max() > 0.1
