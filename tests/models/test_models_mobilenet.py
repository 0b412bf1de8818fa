"""The networks as a whole: shapes, gradients, dtypes, randomness, multiply-adds and the errors of `create_model`."""

import dataclasses
import functools
import math

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params

import mnet_jax
from mnet_jax.models import layers, list_models, plans
from mnet_jax.models.blocks import Separable
from mnet_jax.models.blocks.modules import MODULES
from mnet_jax.models.compute import Compute
from mnet_jax.models.count import summarize
from mnet_jax.models.mobilenet import MobileNet
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS, VARIANTS
from mnet_jax.models.variables import initial_variables, list_variables
from mnet_jax.tasks.classification.network import Classifier, create_model

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # compile time, not run time


def outputs(model, height, width):
    """Shapes and dtypes of logits and features of two images, without computing them."""
    variables = {"params": {}, "batch_stats": {}}
    for variable in model.list_variables():
        scope = variables[variable.collection]
        for name in variable.path[:-1]:
            scope = scope.setdefault(name, {})
        scope[variable.path[-1]] = jax.ShapeDtypeStruct(variable.shape, jnp.float32)
    images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    return jax.eval_shape(
        lambda variables, images: (model.apply(variables, images), model.apply(variables, images, method="maps")),
        variables,
        images,
    )


# --- Shapes ---


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == "v5_300m" else ()) for name in list_models()]
)
def test_logits_and_features_at_any_size(name):
    model = create_model(name, num_classes=7, width=0.5)
    sizes = [(224, 224), (33, 47)]
    if name in ("v3_small", "v4_hybrid_medium"):
        sizes += [(32, 32), (97, 250), (256, 32)]
    for height, width in sizes:
        logits, features = outputs(model, height, width)
        assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
        assert list(features) == [4, 8, 16, 32]
        for stride, feature in features.items():
            down = any(block.pool == "average" for block in SPECS[name].blocks)  # but for the stem's own stride
            sides = [
                math.ceil(side / 2) // (stride // 2) if down else math.ceil(side / stride) for side in (height, width)
            ]
            assert feature.shape[:3] == (2, *sides)
        rows, _ = summarize(model.plan, (height, width))
        shapes = {row.name: row.output_shape for row in rows}
        named = [(stride, shapes[block]) for stride, block in model.plan.map_blocks]
        assert named == [(stride, feature.shape[1:]) for stride, feature in features.items()]


@pytest.mark.parametrize(("stem_stride", "side"), [(4, 1), (2, 2), (1, 4)])
@pytest.mark.parametrize("name", list_models())
def test_stem_stride_for_small_images(name, stem_stride, side):
    plan = create_model(name, num_classes=10, stem_stride=stem_stride).plan
    assert [stride for stride, _ in plan.map_blocks] == [stem_stride * factor for factor in (1, 2, 4, 8)]
    rows, totals = summarize(plan, 32)
    assert {row.name: row.output_shape[:2] for row in rows}[plan.blocks[-1].name] == (side, side)
    assert totals.params == summarize(create_model(name, num_classes=10).plan, 32)[1].params  # weights fit each other


@pytest.mark.parametrize("stem_stride", [2, 1])
def test_stem_stride_of_the_module_is_that_of_the_plan(stem_stride):
    logits, features = outputs(create_model("v3_small", num_classes=10, stem_stride=stem_stride), 32, 40)
    assert logits.shape == (2, 10)
    assert {stride: feature.shape[1:3] for stride, feature in features.items()} == {
        stride: (32 // stride, 40 // stride if 40 % stride == 0 else 3) for stride in features
    }


class Pyramid(MobileNet):
    """A head on the maps alone, as detection has it."""

    @nn.compact
    def __call__(self, images, *, train=False):
        maps = self.maps(images, train=train)
        return {stride: nn.Dense(2, name=f"head_{stride}")(x) for stride, x in maps.items()}

    def list_variables(self):
        variables = list_variables(self.plan, embedding=False)
        features = {block.name: block.features for block in self.plan.blocks}
        for stride, name in self.plan.map_blocks:
            shapes = {"kernel": (features[name], 2), "bias": (2,)}
            variables += [
                plans.Variable(collection="params", path=(f"head_{stride}", leaf), shape=shape)
                for leaf, shape in shapes.items()
            ]
        return variables


@pytest.mark.parametrize("range_decay", [None, 0.9])
def test_a_network_on_the_maps_has_its_layers_beside_the_backbones_and_none_above(range_decay):
    plan = resolve(SPECS["v3_small"], width=0.25, quantize_range_decay=range_decay)
    model = Pyramid(plan)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 64, 64, 3)))
    leaves = {tuple(key.key for key in path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    assert leaves == {(variable.collection, *variable.path): variable.shape for variable in model.list_variables()}
    heads = [f"head_{stride}" for stride in (4, 8, 16, 32)]
    assert set(shapes["params"]) == {"stem", *(block.name for block in plan.blocks), *heads}
    variables = initial_variables(model.list_variables(), seed=0)
    found = jax.eval_shape(lambda: model.apply(variables, jnp.zeros((2, 64, 64, 3))))
    assert {stride: x.shape for stride, x in found.items()} == {
        stride: (2, 64 // stride, 64 // stride, 2) for stride in (4, 8, 16, 32)
    }


@pytest.mark.parametrize(("name", "same"), [("v3_small", False), ("v1", True)])
def test_the_last_map_can_be_that_after_the_last_convolution(name, same):
    model = MobileNet(resolve(SPECS[name], width=0.25))
    variables = initial_variables(model.list_variables(), seed=0)
    images = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    paths = ("last_conv",) if not same else (model.plan.blocks[-1].name,)

    @jax.jit
    def run(variables):
        before, after = (model.apply(variables, images, last_conv=last, method="maps") for last in (False, True))
        return before, after, model.apply(variables, images, paths, method="taps")[paths[0]]

    before, after, tapped = run(variables)
    np.testing.assert_array_equal(after[32], tapped)
    assert (before[32].shape == after[32].shape) is same
    assert all(np.array_equal(before[stride], after[stride]) for stride in (4, 8, 16))


def test_a_backbone_gives_its_embedding_and_has_no_classes():
    plan = resolve(SPECS["v4_conv_small"], width=0.25)
    assert (plan.classifier, plan.num_classes) == (None, 0)
    whole = plans.with_classifier(plan, 7)
    assert (whole.num_classes, whole.classifier.in_features) == (7, plan.embedding_features)
    model = MobileNet(plan)
    variables = initial_variables(model.list_variables(), seed=0)
    images = jax.ShapeDtypeStruct((2, 64, 48, 3), jnp.float32)
    embedding = jax.eval_shape(lambda images: model.apply(variables, images), images)
    assert (embedding.shape, embedding.dtype) == ((2, plan.embedding_features), jnp.float32)
    names = {variable.path for variable in model.list_variables()}
    assert {variable.path for variable in list_variables(whole)} - names == {
        ("classifier", "kernel"),
        ("classifier", "bias"),
    }


# --- Running for real ---


def shortened(model: MobileNet) -> MobileNet:
    """The same network without the shape-preserving blocks that repeat an earlier one but for their width."""
    seen, blocks = set(), []
    for block in model.plan.blocks:
        layers_of_block = tuple((layer.name, getattr(layer, "activation", None)) for layer in block.layers)
        key = (block.kind, layers_of_block)
        if key in seen and block.stride == 1 and block.in_features == block.features:
            continue
        seen.add(key)
        blocks.append(block)
    kept = {block.name for block in blocks}
    maps = tuple((stride, name) for stride, name in model.plan.map_blocks if name in kept)
    fusion = model.plan.fusion
    if fusion is not None:  # the blocks whose maps it takes are as wide as those that are left
        fusion = dataclasses.replace(fusion, blocks=tuple(last_kept(model.plan, kept, name) for name in fusion.blocks))
        maps += tuple((0, name) for name in fusion.blocks)
    return model.clone(plan=dataclasses.replace(model.plan, blocks=tuple(blocks), map_blocks=maps, fusion=fusion))


def last_kept(plan, kept, name):
    """The last block up to `name` that is still there."""
    return [block.name for block in plan.blocks if block.name in kept and block.name <= name][-1]


def plain_conv(x, kernel, stride, padding, dilation=1):
    """XLA's own, depthwise or dense, which compiles faster and can be read off a jaxpr."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name == "v5_base" else ())
        for name in list_models()
        if name not in VARIANTS or name in ("v3_rw", "v4_conv_blur_medium", "edgetpu_v2_xs", "v5_base")
    ],
)
def test_every_parameter_gets_a_gradient(name, monkeypatch):
    monkeypatch.setattr(layers, "depthwise_conv", plain_conv)
    model = shortened(create_model(name, num_classes=3, width=0.25, drop_path=0.1))
    variables = initial_variables(model.list_variables(), seed=0)
    side = 48 if "hybrid" in name or "v5" in name else 32  # keys get no gradient where attention sees a single position
    images = jax.random.normal(jax.random.key(1), (4, side, side, 3))

    def loss(params):
        variables_here = {**variables, "params": params}
        rngs = {"dropout": jax.random.key(2)}
        logits, _ = model.apply(variables_here, images, train=True, mutable=["batch_stats"], rngs=rngs)
        return -jax.nn.log_softmax(logits)[:, 0].mean()

    grads = jax.jit(jax.grad(loss), compiler_options=FAST)(variables["params"])
    silent = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
        if not (np.all(np.isfinite(leaf)) and np.any(leaf != 0))
    ]
    assert silent == []


def test_bfloat16_compute_keeps_float32_params_and_logits():
    settings = {"num_classes": 6, "width": 0.25, "stem_stride": 2}
    model = shortened(create_model("v3_small", **settings, dtype="bfloat16"))
    variables = initial_variables(model.list_variables(), seed=0)
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))

    @functools.partial(jax.jit, compiler_options=FAST)
    def run(variables):
        rngs = {"dropout": jax.random.key(2)}
        return (
            model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs),
            model.apply(variables, images),
            model.clone(compute=Compute("float32")).apply(variables, images),
        )

    (logits, updates), half, full = run(variables)
    assert logits.dtype == half.dtype == full.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, updates))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(half, full, atol=0.05 * np.abs(full).max())
    assert np.any(half != full)  # it did compute in bfloat16
    features = jax.eval_shape(lambda: model.apply(variables, images, method="maps"))
    assert {leaf.dtype for leaf in features.values()} == {jnp.dtype("bfloat16")}


def test_dropout_is_off_in_evaluation_and_keeps_its_rate_in_training():
    """Every feature made 1 and every weight of the classifier too: a logit counts the features that were kept."""
    rate, examples = 0.25, 64
    spec = dataclasses.replace(SPECS["v1"], blocks=(Separable(features=256, activation="relu6"),))
    model = Classifier(resolve(spec, num_classes=1, dropout=rate))
    variables = initial_variables(model.list_variables(), seed=0)
    params = variables["params"]
    norm = params["block_00"]["pointwise"]["norm"]
    norm["scale"][:], norm["bias"][:], params["classifier"]["kernel"][:] = 0, 1, 1
    features = len(norm["bias"])

    @jax.jit
    def train(key):
        images = jnp.zeros((examples, 32, 32, 3))
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})[0]

    assert model.apply(variables, jnp.zeros((2, 32, 32, 3))).tolist() == [[features], [features]]
    logits = train(jax.random.key(0))
    kept = logits * (1 - rate)
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-3)
    deviation = math.sqrt(rate * (1 - rate) / (examples * features))
    assert abs(kept.mean() / features - (1 - rate)) < 4 * deviation
    assert np.array_equal(logits, train(jax.random.key(0)))
    assert not np.array_equal(logits, train(jax.random.key(1)))


def test_drop_path_rates_grow_linearly_over_residual_blocks():
    blocks = create_model("v3_small", drop_path=0.5).plan.blocks
    assert [block.drop_path for block in blocks] == [
        pytest.approx(0.5 * index / 10) if block.residual else 0.0 for index, block in enumerate(blocks)
    ]
    assert blocks[-1].drop_path == 0.5


def test_drop_path_drops_whole_branches_of_examples():
    rate, examples = 0.4, 200
    dropping, steady = (create_model("v3_small", width=0.1, drop_path=drop_path).plan for drop_path in (rate, 0.0))
    compute = layers.Shared("float32", "same", dropping.norm)
    x = jax.random.normal(jax.random.key(0), (examples, 2, 2, dropping.blocks[-1].features))
    variables = {kind: tree["block_10"] for kind, tree in initial_variables(list_variables(dropping), seed=0).items()}

    def branch(plan, train):
        module = MODULES[type(plan.blocks[-1])](plan.blocks[-1], compute)
        rngs = {"dropout": jax.random.key(1)}
        y = jax.jit(lambda x: module.apply(variables, x, train=train, mutable=["batch_stats"], rngs=rngs)[0])(x)
        return np.asarray(y - x)

    assert np.array_equal(branch(dropping, False), branch(steady, False))
    dropped, whole = branch(dropping, True), branch(steady, True)
    kept = np.any(dropped != 0, axis=(1, 2, 3))
    np.testing.assert_allclose(dropped[kept], whole[kept] / (1 - rate), rtol=1e-3, atol=1e-5)
    assert abs(kept.mean() - (1 - rate)) < 4 * math.sqrt(rate * (1 - rate) / examples)


def test_statistics_move_in_training_only():
    model = shortened(create_model("v1", num_classes=2, width=0.25, norm_decay=0.5))
    variables = initial_variables(model.list_variables(), seed=0)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    with pytest.raises(flax.errors.ModifyScopeVariableError):
        model.apply(variables, images, train=True, rngs={"dropout": jax.random.key(0)})
    _, same = jax.jit(lambda v: model.apply(v, images, mutable=["batch_stats"]))(variables)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, same["batch_stats"], variables["batch_stats"])))


# --- Fresh variables ---


@pytest.mark.parametrize("name", ["v3_small", "v4_hybrid_medium"])
def test_initial_variables_are_distributed_as_those_of_flax(name):
    """Means and deviations of NumPy's draw and of the modules' own initialisers, leaf by leaf."""
    model = create_model(name, num_classes=10, width=0.5)
    ours = initial_variables(model.list_variables(), seed=3)
    again, other = initial_variables(model.list_variables(), seed=3), initial_variables(model.list_variables(), seed=4)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, ours, again)))
    assert not np.array_equal(ours["params"]["stem"]["kernel"], other["params"]["stem"]["kernel"])
    for variable in model.list_variables():
        leaf = ours[variable.collection]
        for key in variable.path:
            leaf = leaf[key]
        assert (leaf.shape, leaf.dtype) == (variable.shape, np.float32)
        error = 5 * variable.deviation / math.sqrt(variable.size) + 1e-6 * variable.mean
        assert abs(leaf.mean() - variable.mean) <= error
        assert abs(leaf.std() - variable.deviation) <= error


@pytest.mark.parametrize(
    "layer",
    [
        plans.ConvPlan("pointwise", 100, 200),
        plans.ConvPlan("full", 30, 60, kernel=3),
        plans.ConvPlan("depthwise", 400, 400, kernel=5, depthwise=True),
        plans.ConvPlan("query", 100, 200, init="xavier"),
        plans.ConvPlan("classifier", 200, 100, norm=False, bias=True, init="classifier"),
    ],
    ids=lambda layer: layer.name,
)
def test_initialisers_of_the_modules_have_the_plans_deviation(layer):
    module = layers.Conv(layer, layers.Shared("float32", "same", plans.BatchNorm(decay=0.9, epsilon=1e-3)))
    images = jnp.zeros((1, 3, 3, layer.in_features))
    kernel = jax.jit(lambda key: module.init(key, images, train=False))(jax.random.key(0))["params"][layer.kernel_name]
    error = 5 * layer.kernel_deviation / math.sqrt(kernel.size)
    assert abs(kernel.mean()) <= error
    assert abs(kernel.std() - layer.kernel_deviation) <= error


# --- Multiply-adds ---


def multiply_adds(jaxpr):
    """Of all convolutions and matrix products that a program of one image contains."""
    total = 0
    for equation in jaxpr.eqns:
        outputs = math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += outputs * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            *window, inputs, _ = equation.invars[1].aval.shape
            total += outputs * math.prod(window) * inputs
        elif equation.primitive.name == "cond":  # a pointwise layer's forms for other backends
            (each,) = {multiply_adds(branch.jaxpr) for branch in equation.params["branches"]}
            total += each
            continue
        for inner in jaxprs_in_params(equation.params):
            total += multiply_adds(inner)
    return total


@pytest.mark.parametrize("name", ["v1", "v2", "v3_small", "v4_conv_small", "v4_hybrid_medium"])
def test_multiply_adds_are_those_of_the_traced_program(name, monkeypatch):
    monkeypatch.setattr(layers, "depthwise_conv", plain_conv)
    monkeypatch.setattr(layers, "dense_conv", plain_conv)
    for settings, size in (({}, (224, 224)), ({"width": 0.6, "stem_stride": 2, "num_classes": 9}, (65, 100))):
        model = create_model(name, **settings)
        variables = initial_variables(model.list_variables(), seed=0)
        program = jax.make_jaxpr(model.apply)(variables, jnp.zeros((1, *size, 3)))
        assert multiply_adds(program.jaxpr) == summarize(model.plan, size)[1].multiply_adds


# --- Errors ---


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("v3_larg", {}, r"unknown model 'v3_larg'.* v4_hybrid_large, .*\. Did you mean 'v3_large'\?"),
        ("resnet50", {}, "unknown model 'resnet50'; choose one of: v1, v2"),
        ("v1", {"width": 0}, "width must be a number above 0, got 0"),
        ("v1", {"width": math.nan}, "width must be a number above 0, got nan"),
        ("v1", {"width": "1.0"}, "width must be a number above 0, got '1.0'"),
        ("v1", {"num_classes": 0}, "num_classes must be a whole number of at least 1, got 0"),
        ("v1", {"num_classes": 10.0}, "num_classes must be a whole number of at least 1, got 10.0"),
        ("v1", {"padding": "valid"}, "unknown padding 'valid'; choose one of: same, symmetric"),
        ("v1", {"padding": "Same"}, "Did you mean 'same'"),
        ("v1", {"width_rule": "torchvision"}, "unknown width_rule of v1 'torchvision'; choose one of: tf, timm"),
        ("v3_small", {"width_rule": "torch"}, "choose one of: tf, timm, torchvision. Did you mean 'torchvision'"),
        ("v1", {"stem_stride": 3}, "unknown stem_stride 3; choose one of: 1, 2, 4"),
        ("v1", {"dtype": "float16"}, "unknown dtype 'float16'; choose one of: float32, bfloat16"),
        ("v1", {"dropout": 1.0}, "dropout must be a number at least 0 and below 1, got 1.0"),
        ("v1", {"drop_path": -0.1}, "drop_path must be a number at least 0 and below 1, got -0.1"),
        ("v1", {"norm_decay": 1}, "norm_decay must be a number at least 0 and below 1, got 1"),
        ("v1", {"norm_epsilon": 0}, "norm_epsilon must be a number above 0, got 0"),
    ],
)
def test_errors_say_what_is_allowed(name, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        create_model(name, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "images",
    [jnp.zeros((1, 32, 32, 1)), jnp.zeros((32, 32, 3)), jnp.zeros((1, 32, 32, 3), jnp.uint8)],
    ids=["grey", "one", "uint8"],
)
def test_images_of_another_form_are_refused(images):
    model = create_model("v1", width=0.25)
    with pytest.raises(ValueError, match=r"images must be floating point \[N, height, width, 3\], normalised; got"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images))


def test_public_names_are_lazy_and_helpful():
    assert mnet_jax.create_model is create_model
    assert mnet_jax.list_models() == list_models()
    with pytest.raises(
        AttributeError, match="create_model, export, list_models, load_checkpoint, load_exported, load_pretrained"
    ):
        mnet_jax.make_model  # noqa: B018
    with pytest.raises(AttributeError, match="MobileNet, list_models"):
        mnet_jax.models.make_model  # noqa: B018
