"""Kinds of blocks and of norms: what each one lacks, and that a new one needs no change in the code of the others."""

import dataclasses
import math
import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "models"))
sys.path.insert(0, str(pathlib.Path(__file__).parent / "deploy"))
from networks import fold, random_variables
from test_models_blocks import CASES
from test_models_mobilenet import multiply_adds, plain_conv

from mnet_jax.deploy import graph as g
from mnet_jax.deploy import interpret, norms
from mnet_jax.deploy.blocks import FOLDED
from mnet_jax.models import blocks, layers, plans
from mnet_jax.models.blocks import modules
from mnet_jax.models.count import summarize
from mnet_jax.models.resolve import resolve
from mnet_jax.models.specs import Head, ModelSpec
from mnet_jax.models.tables import SPECS
from mnet_jax.models.widths import WidthRule
from mnet_jax.pretrained.layouts import LAYOUTS, TIMM
from mnet_jax.tasks.classification.network import Classifier

# --- What a kind lacks ---


def networks(layout):
    """The plans of all architectures that a library has."""
    return [resolve(SPECS[name], width_rule=layout.width_rule) for name in layout.models]


def block_lacks(spec, plan):
    """What is missing of a kind of block, each in words that say where it belongs."""
    missing = []
    if plan not in modules.MODULES:
        missing.append("a module, in MODULES of models/blocks/modules.py")
    if plan not in FOLDED:
        missing.append("a folded form, in FOLDED of deploy/blocks.py")
    if not any(isinstance(case, spec) for case in CASES.values()):
        missing.append("a reference, in tests/models/test_models_blocks.py")
    for layout in LAYOUTS.values():
        has = any(isinstance(block, plan) for network in networks(layout) for block in network.blocks)
        if has and plan not in layout.blocks:
            missing.append(f"names in {layout.name}, in pretrained/layouts.py")
    return missing


def norm_lacks(norm):
    """The same of a kind of norm."""
    missing = []
    if norm not in layers.NORMS:
        missing.append("a module, in NORMS of models/layers.py")
    if norm not in norms.NORMS:
        missing.append("a folded form, in NORMS of deploy/norms.py")
    for layout in LAYOUTS.values():
        if any(isinstance(network.norm, norm) for network in networks(layout)) and norm not in layout.norms:
            missing.append(f"names in {layout.name}, in pretrained/layouts.py")
    return missing


def test_no_kind_of_block_lacks_anything():
    lacking = {spec.__name__: block_lacks(spec, plan) for spec, plan in blocks.KINDS.items()}
    assert {kind: missing for kind, missing in lacking.items() if missing} == {}
    used = {type(block) for spec in SPECS.values() for block in spec.blocks}
    assert used <= set(blocks.KINDS)


def test_no_kind_of_norm_lacks_anything():
    kinds = {type(spec.norm) for spec in SPECS.values()} | set(layers.NORMS) | set(norms.NORMS)
    assert {kind.__name__: missing for kind in kinds if (missing := norm_lacks(kind))} == {}


def test_what_lacks_is_told():
    assert block_lacks(Product, ProductPlan) == [
        "a module, in MODULES of models/blocks/modules.py",
        "a folded form, in FOLDED of deploy/blocks.py",
        "a reference, in tests/models/test_models_blocks.py",
    ]
    assert len(norm_lacks(MeanNorm)) == 2


def test_every_operation_runs_in_jax():
    assert {kind for kind in g.Node.__subclasses__() if kind.__module__ == g.__name__} == set(interpret.FORMS)


# --- A kind of block and a kind of norm that the package does not have ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product(blocks.BlockSpec):
    """The product of two convolutions of one map."""

    features: int
    stride: int = 1

    def resolve(self, place):
        features = place.widths.scale(self.features)
        left, right = (plans.ConvPlan(name, place.in_features, features, "relu") for name in ("left", "right"))
        return ProductPlan(left=left, right=right, **place.common("product", features))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProductPlan(plans.BlockPlan):
    left: plans.ConvPlan
    right: plans.ConvPlan

    def multiply_adds(self, size):  # the two read the same map; the default has one read what the other gives
        return self.left.multiply_adds(size) + self.right.multiply_adds(size)


class ProductModule(modules.Block):
    @nn.compact
    def __call__(self, x, *, train):
        y = self.conv(self.plan.left, x, train=train) * self.conv(self.plan.right, x, train=train)
        return self.merge(x, y, train=train)


def folded_product(builder, block, x):
    left, right = (builder.conv(layer, x, (block.name,)) for layer in (block.left, block.right))
    return builder.add(g.Multiply, f"{block.name}/product", (left, right), builder.shapes[left])


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanNorm(plans.Norm):
    """By the mean size of the channels of each position: no statistics, and no convolution can take it in."""

    epsilon: float

    def variables(self, features, scope):
        return [plans.Variable(collection="params", path=(*scope, "scale"), shape=(features,), mean=1.0)]


class MeanNormModule(nn.Module):
    norm: MeanNorm
    axis_name: str | None
    frozen: bool

    @nn.compact
    def __call__(self, x, *, train, kernel=None):
        x = (x if kernel is None else x @ kernel).astype(jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        return mean_norm(x, scale, self.norm.epsilon)


def mean_norm(x, scale, epsilon):
    scale = jnp.asarray(scale, jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
    return x / (jnp.abs(x).mean(-1, keepdims=True) + epsilon) * scale


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MeanNode(g.Node):
    scale: np.ndarray
    epsilon: float
    activation: str | None


def mean_nodes(builder, norm, x, scope, name, *, activation, after):
    scale = builder.value("params", scope, "scale") * after
    fields = {"scale": scale.astype(np.float32), "epsilon": norm.epsilon, "activation": activation}
    return builder.add(MeanNode, name, (x,), builder.shapes[x], **fields)


def run_mean(node, x):
    x = mean_norm(x, node.scale, node.epsilon)
    return x if node.activation is None else layers.ACTIVATIONS[node.activation](x)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(modules.MODULES, ProductPlan, ProductModule)
    monkeypatch.setitem(FOLDED, ProductPlan, folded_product)
    monkeypatch.setitem(layers.NORMS, MeanNorm, MeanNormModule)
    monkeypatch.setitem(norms.NORMS, MeanNorm, norms.FoldedNorm(nodes=mean_nodes))
    monkeypatch.setitem(interpret.FORMS, MeanNode, run_mean)


def network(norm):
    """The new block beside one of each kind that folding treats in its own way."""
    spec = ModelSpec(
        name="toy",
        source="",
        image_size=64,
        stem=blocks.Conv(kernel=3, features=16, stride=2, activation="hard_swish", bias=True),
        blocks=(
            Product(features=16),
            blocks.InvertedResidual(expanded=48, features=24, stride=2, squeeze_excite=True, activation="hard_swish"),
            blocks.UniversalInvertedBottleneck(
                start_kernel=3, middle_kernel=5, expand=2, features=24, activation="relu", layer_scale=0.1
            ),
            blocks.MultiQueryAttention(heads=2, key_features=8, features=24, layer_scale=0.1),
            blocks.MultiQueryAttention(heads=2, key_features=8, key_value_stride=2, features=24),
            Product(features=32),
        ),
        last_conv=blocks.Conv(kernel=1, features=40, activation="relu"),
        head=Head(features=48, norm=True, activation="relu"),
        dropout=0.0,
        norm=norm,
        width_rules={"tf": WidthRule()},
    )
    return resolve(spec, num_classes=3)


@pytest.mark.parametrize(
    "norm",
    [plans.BatchNorm(decay=0.9, epsilon=1e-3), plans.RmsNorm(epsilon=1e-3), MeanNorm(epsilon=1e-3)],
    ids=["batch", "rms", "mean"],
)
def test_new_kinds_go_all_the_way(norm, registered, monkeypatch):
    for name in ("depthwise_conv", "dense_conv"):
        monkeypatch.setattr(layers, name, plain_conv)  # can be read off a program
    plan, size = network(norm), (64, 48)
    model = Classifier(plan)
    images = jax.random.normal(jax.random.key(0), (2, *size, 3))

    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    leaves = {tuple(key.key for key in path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    assert leaves == {(variable.collection, *variable.path): variable.shape for variable in model.list_variables()}
    rows, totals = summarize(plan, size)
    assert [row.kind for row in rows[1:7]] == ["product", "inverted_residual", "extra_dw", "mqa", "mqa", "product"]
    assert totals.params == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))

    variables = random_variables(plan)
    program = jax.make_jaxpr(model.apply)(variables, images[:1])
    assert multiply_adds(program.jaxpr) == totals.multiply_adds
    expected = jax.jit(model.apply)(variables, images)
    graph = fold(plan, variables, image_size=size)
    found = jax.jit(lambda images: interpret.interpret(graph, images))(images)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())

    train = jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"])[0])
    assert np.all(np.isfinite(train(variables)))


def test_new_kinds_have_names_in_a_library_that_says_them(registered):
    plan = network(MeanNorm(epsilon=1e-3))
    layout = dataclasses.replace(
        TIMM,
        outside=lambda plan: (
            {name: name for name in ("stem", "stem/norm", "last_conv", "last_conv/norm", "head")}
            | {"head/norm": "norm_head", "classifier": "classifier"}
        ),
        places=lambda plan: [f"blocks.{number}" for number in range(len(plan.blocks))],
        blocks={
            **TIMM.blocks,
            ProductPlan: lambda plan, block, place: {
                f"{layer.name}{norm}": f"{place}.{layer.name}{norm.replace('/', '.')}"
                for layer in block.layers
                for norm in ("", "/norm")
            },
        },
        norms={MeanNorm: {"scale": "weight"}},
    )
    names = dict((("/".join(variable.path), theirs) for variable, theirs in layout.names(plan)))
    assert names["block_00/left/norm/scale"] == "blocks.0.left.norm.weight"
    assert names["block_02/layer_scale"] == "blocks.2.layer_scale.gamma"
    assert len(set(names.values())) == len(names)


def test_an_operation_that_a_format_does_not_know_is_refused_in_one_line(registered):
    onnx = pytest.importorskip("mnet_jax.deploy.onnx")
    from networks import about

    plan = network(MeanNorm(epsilon=1e-3))
    graph = fold(plan, random_variables(plan), image_size=64)
    with pytest.raises(ValueError, match="ONNX has no form of the operation MeanNode"):
        onnx.build(graph, about(plan, 64))


def test_a_setting_that_a_norm_does_not_have_is_refused():
    spec = dataclasses.replace(SPECS["v1"], norm=MeanNorm(epsilon=1e-3))
    assert resolve(spec, norm_epsilon=1e-5).norm == MeanNorm(epsilon=1e-5)
    with pytest.raises(ValueError, match="the norm of v1 has no decay: leave norm_decay out"):
        resolve(spec, norm_decay=0.9)
