"""V5's fusion of maps against NumPy in float64, and folded into a graph; its root mean square norm in training."""

import math
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "deploy"))
from networks import fold, random_variables

from mnet_jax.deploy import interpret
from mnet_jax.models import blocks, plans
from mnet_jax.models.fusion import Fusion
from mnet_jax.models.layers import Shared
from mnet_jax.models.resolve import resolve
from mnet_jax.models.specs import Fusion as FusionSpec
from mnet_jax.models.specs import ModelSpec
from mnet_jax.models.widths import WidthRule
from mnet_jax.tasks.classification.network import Classifier

EPSILON, SIDE = 1e-3, 4
NORM = plans.RmsNorm(epsilon=EPSILON)


def spec(**changes):
    """A network of three strides whose last two maps are fused to SIDE x SIDE."""
    strided = {"expand": 2, "stride": 2, "activation": "gelu_tanh"}
    fields = {
        "name": "toy",
        "source": "",
        "image_size": 64,
        "stem": blocks.Conv(kernel=3, features=8, stride=2, activation="gelu_tanh", bias=True),
        "blocks": tuple(blocks.FusedInvertedBottleneck(features=features, **strided) for features in (8, 16, 24)),
        "fusion": FusionSpec(maps=2, expand=2, features=32, size=SIDE, activation="gelu_tanh"),
        "dropout": 0.0,
        "norm": NORM,
        "width_rules": {"tf": WidthRule()},
    }
    return ModelSpec(**fields | changes)


def rms(x, scale):
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + EPSILON) * scale


def nearest(x, size):
    """PyTorch's rule: position i takes floor(i h / height)."""
    rows, columns = (np.arange(wanted) * given // wanted for given, wanted in zip(x.shape[1:3], size, strict=True))
    return x[:, rows][:, :, columns]


def resized(x, side):
    """Averages of whole windows, or PyTorch's bilinear, value by value."""
    height, width = x.shape[1:3]
    y = np.zeros((len(x), side, side, x.shape[3]))
    for row in range(side):
        for column in range(side):
            if height % side == width % side == 0:
                down, across = height // side, width // side
                window = x[:, row * down : (row + 1) * down, column * across : (column + 1) * across]
                y[:, row, column] = window.mean((1, 2))
                continue
            above, left = (max((i + 0.5) * n / side - 0.5, 0) for i, n in ((row, height), (column, width)))
            top, first = math.floor(above), math.floor(left)
            bottom, last = min(top + 1, height - 1), min(first + 1, width - 1)
            upper = x[:, top, first] * (1 - left + first) + x[:, top, last] * (left - first)
            lower = x[:, bottom, first] * (1 - left + first) + x[:, bottom, last] * (left - first)
            y[:, row, column] = upper * (1 - above + top) + lower * (above - top)
    return y


def reference(maps, params):
    size = maps[0].shape[1:3]
    x = np.concatenate([nearest(x, size) for x in maps], -1)
    for layer in ("expand", "project"):
        x = rms(x @ params[layer]["kernel"], params[layer]["norm"]["scale"])
        if layer == "expand":
            x = x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return rms(resized(x, SIDE), params["norm"]["scale"])


# As large as the result, whole windows of it, one side of each, smaller, and larger by no whole number.
@pytest.mark.parametrize("size", [(4, 4), (12, 8), (4, 7), (3, 3), (9, 5)])
def test_fusion_is_the_reference(size):
    plan = resolve(spec()).fusion
    draw = np.random.default_rng(0)
    halves = tuple(-(-side // 2) for side in size)
    maps = [draw.normal(size=(2, *sides, features)) for sides, features in ((size, 16), (halves, 24))]
    module = Fusion(plan, Shared("float32", "same", NORM))
    single = [jnp.float32(x) for x in maps]
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), single, train=False))
    params = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape) + 0.5, shapes["params"])
    found = jax.jit(lambda p: module.apply({"params": p}, single, train=False))(jax.tree.map(jnp.float32, params))
    np.testing.assert_allclose(found, reference(maps, params), rtol=2e-4, atol=2e-5)


def test_maps_of_other_strides_are_of_other_blocks():
    plan = resolve(spec())
    assert plan.fusion.blocks == ("block_01", "block_02")
    assert (plan.fusion.in_features, plan.fusion.expand.features, plan.embedding_features) == (40, 80, 32)
    assert resolve(spec(), width=0.5, stem_stride=2).fusion.blocks == ("block_01", "block_02")


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (75, 97)])
def test_the_graph_of_a_fused_network_gives_its_logits(size):
    plan = resolve(spec(), num_classes=3)
    variables, model = random_variables(plan), Classifier(plan)
    images = jax.random.normal(jax.random.key(0), (2, *size, 3))
    expected, taps = jax.jit(lambda v: (model.apply(v, images), model.apply(v, images, ("fusion",), method="taps")))(
        variables
    )
    assert taps["fusion"].shape == (2, SIDE, SIDE, 32)
    graph = fold(plan, variables, image_size=size)
    found = jax.jit(lambda images: interpret.interpret(graph, images))(images)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    embedded = np.asarray(taps["fusion"]).mean((1, 2))
    classifier = variables["params"]["classifier"]
    np.testing.assert_allclose(embedded @ classifier["kernel"] + classifier["bias"], expected, rtol=1e-4, atol=1e-5)


def test_a_network_on_maps_has_no_fusion():
    from mnet_jax.models.heads.taps import find_tap, trimmed

    plan = resolve(spec())
    bare = trimmed(plan, (find_tap(plan, "last", 0),))
    assert bare.fusion is None
    assert bare.embedding_features == 24


def test_bfloat16_normalises_in_float32():
    plan = resolve(spec()).fusion
    module = Fusion(plan, Shared("bfloat16", "same", NORM))
    maps = [jnp.ones((1, 4, 4, 16), jnp.bfloat16), jnp.ones((1, 2, 2, 24), jnp.bfloat16)]
    found, variables = module.init_with_output(jax.random.key(0), maps, train=True)
    assert found.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(np.square(np.float32(found)).mean(-1), 1, rtol=0.02)  # what the norm is for
