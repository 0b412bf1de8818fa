"""Networks of segmenters against numbers counted and computed elsewhere: torchvision 0.28, the papers, LiteRT."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnet_jax.models.compute import Compute
from mnet_jax.models.count import summarize
from mnet_jax.models.dilation import dilated
from mnet_jax.models.heads.mask_tables import SEGMENTERS, find_mask_head, find_segmenter, resolve_segmenter
from mnet_jax.models.heads.masks import resolve_mask_head
from mnet_jax.models.heads.taps import find_first
from mnet_jax.models.ops.bilinear import upsample
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import find_spec
from mnet_jax.pretrained import mask_layouts
from mnet_jax.pretrained.convert import as_tree
from mnet_jax.pretrained.layouts import TORCHVISION
from mnet_jax.pretrained.load import load_pretrained
from mnet_jax.tasks.segmentation.network import Segmenter, create_segmenter

CITY = (1024, 2048)
# Segmenter, classes, whether with the auxiliary head, parameters as published; billion multiply-adds at a size.
COUNTS = (
    ("lraspp_v3_large", 21, False, 3_221_538, 520, 2.086),  # torchvision, the weights' meta
    ("deeplab_v3_large", 21, False, 11_025_477, 520, 10.452),
    ("deeplab_v3_large", 21, True, 11_029_328, None, None),
    ("deeplab_aspp_v1_tf", 21, False, 11.15e6, None, None),  # V2 paper, table 7
    ("deeplab_aspp_v2_tf", 21, False, 4.52e6, None, None),
    ("deeplab_v2_tf", 21, False, 2.11e6, 513, 2.75),
    ("deeplab_v2_tf", 19, False, 2.11e6, CITY, 21.29),  # V3 paper, table 7, row 1
    ("deeplab_v3_large_tf", 19, False, 3.60e6, CITY, 18.43),  # row 5
    ("lraspp_v3_large_tf", 19, False, 1.51e6, CITY, 9.74),  # row 8
    ("lraspp_v3_small_tf", 19, False, 0.47e6, CITY, 2.90),  # row 11
    ("lraspp_v2_tf", 19, False, 0.98e6, CITY, 12.57),  # row 4
)


@pytest.mark.parametrize(("name", "num_classes", "auxiliary", "params", "size", "billions"), COUNTS)
def test_counts(name, num_classes, auxiliary, params, size, billions):
    """Parameters exactly, or as a paper rounds them. The papers count more than products: within a tenth."""
    plan, head = resolve_segmenter(find_segmenter(name), num_classes, auxiliary=auxiliary)
    size = size or 520
    _, totals = summarize(plan, size, head.placed(size))
    extra = (layer for layer in head.layers if layer.name.startswith("auxiliary"))
    found = totals.params + sum(
        variable.size for layer in extra for variable in layer.variables(head.norm) if variable.collection == "params"
    )
    # V2's as a paper prints them are cut off, not rounded.
    assert found == params if isinstance(params, int) else -5e3 <= found - params < 1e4
    assert billions is None or abs(totals.multiply_adds / 1e9 - billions) < 0.1 * billions


@pytest.mark.parametrize(
    ("name", "width", "output_stride", "size"),
    [
        ("lraspp_v3_large", 0.35, 16, (65, 97)),
        ("lraspp_v3_small_tf", 1.0, 8, (1000, 840)),  # large enough for windows of the gate
        ("lraspp_v1_tf", 0.25, 32, 96),
        ("lraspp_v4_conv_small_tf", 0.5, 8, 96),
        ("deeplab_v3_large", 0.5, 16, 96),
        ("deeplab_aspp_v2_tf", 0.35, 8, (97, 65)),
    ],
)
def test_network_is_as_its_plan_says(name, width, output_stride, size):
    """Variables and outputs (traced, not run)."""
    network = create_segmenter(name, num_classes=7, width=width, output_stride=output_stride)
    shape = (size, size) if isinstance(size, int) else size
    images = jax.ShapeDtypeStruct((2, *shape, 3), jnp.float32)
    outputs, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), images)
    leaves = {tuple(k.key for k in path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(variables)}
    assert leaves == {(variable.collection, *variable.path): variable.shape for variable in network.list_variables()}
    head = network.head_plan
    assert outputs["classes"].shape == (2, *head.map_size(size), 7)
    assert outputs["classes"].dtype == jnp.float32
    assert ("auxiliary" in outputs) == head.has_auxiliary
    finest = 8 if name.startswith("lraspp") else output_stride
    assert head.map_size(size) == tuple(-(-side // finest) for side in shape)


@pytest.mark.parametrize("segmenter", SEGMENTERS.values(), ids=lambda segmenter: segmenter.name)
def test_output_strides_of_every_segmenter(segmenter):
    """No block strides beyond it, and blocks see as far as before: rates times strides stay what they were."""
    whole, _ = resolve_segmenter(segmenter, 3, output_stride=32)
    for output_stride in (8, 16):
        plan, head = resolve_segmenter(segmenter, 3, output_stride=output_stride)
        reduction = full = plan.stem.stride
        for block, before in zip(plan.blocks, whole.blocks, strict=True):
            entered, reduction, full = full, reduction * block.stride, full * before.stride
            for layer in block.layers:
                if getattr(layer, "depthwise", False) and layer.name not in ("key_depthwise", "value_depthwise"):
                    wanted = full if head.dilation == "new" and block.stride < before.stride else entered
                    assert layer.dilation == max(wanted // reduction, 1) or layer.name == "start_depthwise"
        assert reduction == output_stride
        assert head.high.size((321, 640)) == tuple(-(-side // output_stride) for side in (321, 640))


def test_both_rules_of_dilation():
    """Those of torchvision's V3 (blocks 12 to 14) and of the published deeplabv3.tflite (facts, section 6)."""
    plan = dilated(resolve(find_spec("v3_large")), 16, "new")
    assert [block.depthwise.dilation for block in plan.blocks] == [1] * 12 + [2] * 3
    plan = dilated(resolve(find_spec("v2")), 8, "previous")
    assert [block.depthwise.dilation for block in plan.blocks] == [1] * 7 + [2] * 7 + [4] * 3
    assert dilated(plan, 8, "previous") is plan
    assert [stride for stride, _ in plan.map_blocks] == [4, 8]
    hybrid = dilated(resolve(find_spec("v4_hybrid_medium")), 8, "new")
    shrinking = {block.key_depthwise.stride for block in hybrid.blocks if getattr(block, "key_depthwise", None)}
    assert shrinking == {2}


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("given", "wanted"), [((5, 7), (40, 33)), ((1, 3), (6, 3)), ((9, 8), (4, 1))])
def test_upsample(given, wanted, align_corners):
    """Against the formula, position by position, and linear in its input: its gradient is the transpose."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *given, 3)).astype(np.float32)
    expected = np.zeros((2, *wanted, 3))
    for row in range(wanted[0]):
        for column in range(wanted[1]):
            ends = []
            for index, n, m in zip((row, column), given, wanted, strict=True):
                place = index * (n - 1) / max(m - 1, 1) if align_corners else (index + 0.5) * n / m - 0.5
                place = min(max(place, 0), n - 1)
                low = math.floor(place)
                ends.append(((low, 1 - place + low), (min(low + 1, n - 1), place - low)))
            expected[:, row, column] = sum(p * q * x[:, i, j] for i, p in ends[0] for j, q in ends[1])
    found, pull = jax.vjp(jax.jit(lambda x: upsample(x, wanted, align_corners=align_corners)), x)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    dy = rng.standard_normal(expected.shape).astype(np.float32)
    np.testing.assert_allclose((pull(dy)[0] * x).sum(), (dy * expected).sum(), rtol=1e-4, atol=1e-4)


def test_pooled_branch_and_batches_of_one():
    """Refused in one line, where its norm would erase the branch; right with two images, or with frozen norms."""
    plan, head = resolve_segmenter(find_segmenter("deeplab_v2_tf"), 3, width=0.25)
    images = jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.float32)
    key = jax.random.key(0)

    def step(compute, images):
        network = Segmenter.for_plan(plan, compute, head)
        variables = jax.eval_shape(network.init, key, images)
        return jax.eval_shape(
            lambda v, x: network.apply(v, x, train=True, mutable=["batch_stats"], rngs={"dropout": key})[0],
            variables,
            images,
        )

    with pytest.raises(ValueError, match=r"^the pooled branch of the head deeplab .* at least 2 images"):
        step(Compute(), images)
    assert step(Compute(norm_frozen=True), images)["classes"].shape == (1, 5, 5, 3)
    assert step(Compute(), jax.ShapeDtypeStruct((2, 65, 65, 3), jnp.float32))["classes"].shape == (2, 5, 5, 3)


def test_mistakes_are_one_line():
    plan, spec = resolve(find_spec("v2")), find_mask_head("lraspp")
    for call in (
        lambda: find_mask_head("lrasp"),
        lambda: find_segmenter("lraspp_v3"),
        lambda: resolve_mask_head(spec, plan, 0),
        lambda: resolve_mask_head(spec, plan, True),
        lambda: resolve_mask_head(spec, plan, 3, output_stride=4),
        lambda: resolve_mask_head(spec, plan, 3, auxiliary=True),
        lambda: resolve_mask_head(spec, resolve(find_spec("v2"), quantize_range_decay=0.9), 3),
        lambda: dilated(plan, 16, "old"),
        lambda: find_first(plan, 7),
        lambda: upsample(jnp.ones((2, 3, 4)), (8, 8), align_corners=True),
    ):
        with pytest.raises(ValueError, match=r"^[^\n]{20,}$"):
            call()


# --- torchvision's networks, with a rule in place of weights ---

GOLDEN = {"lraspp_v3_large": "lraspp_mobilenet_v3_large", "deeplab_v3_large": "deeplabv3_mobilenet_v3_large"}


def state_dict(real_data, name):
    """[(name, shape)] of torchvision's own instance, in its order."""
    tail = "_aux" if name.startswith("deeplab") else ""
    lines = (real_data / "golden" / f"state_dict_{GOLDEN[name]}{tail}.txt").read_text().splitlines()
    pairs = (line.split("\t")[:2] for line in lines)
    return [(theirs, tuple(json.loads(f"[{shape.strip('()').rstrip(',')}]"))) for theirs, shape in pairs]


def filled(real_data, name):
    """Arrays by the rule of the facts: a function of the place in torchvision's state dict."""
    arrays = {}
    for t, (theirs, shape) in enumerate(state_dict(real_data, name)):
        i = np.arange(math.prod(shape), dtype=np.float64)
        u = np.sin(0.7 * i + 0.13 * t + 0.05 * (i % 97)).reshape(shape).astype(np.float32)
        if theirs.endswith("running_var"):
            u = 1 + 0.2 * u
        elif len(shape) == 4:
            u = u * np.float32(math.sqrt(2 / math.prod(shape[1:])))
        elif theirs.endswith("weight"):
            u = 1 + 0.1 * u
        else:
            u = 0.05 * u
        arrays[theirs] = np.float32(u)
    return arrays


@pytest.mark.parametrize("name", GOLDEN)
def test_every_array_of_torchvision_has_a_place(name, real_data):
    plan, head = resolve_segmenter(find_segmenter(name), 21)
    ours = {theirs for _, theirs in mask_layouts.names(plan, head)}
    assert ours == {theirs for theirs, _ in state_dict(real_data, name) if not theirs.endswith("num_batches_tracked")}


@pytest.mark.parametrize("size", [(129, 161), pytest.param((224, 224), marks=pytest.mark.long)])
@pytest.mark.parametrize("name", GOLDEN)
def test_torchvision_network(name, size, real_data):
    """Logits: shape, mean, deviation, extremes and twelve values to 1e-5 of the deviation; the same classes."""
    network = create_segmenter(name, num_classes=21)
    head, arrays = network.head_plan, filled(real_data, name)
    variables = as_tree(
        (variable, TORCHVISION.view(arrays[theirs], variable))
        for variable, theirs in mask_layouts.names(network.plan, head)
    )
    y, x, c = np.meshgrid(*map(np.arange, (*size, 3)), indexing="ij")
    images = 0.5 + 0.5 * np.sin(0.05 * y + 0.03 * x + 1.1 * c + 0.0002 * x * y)
    images = (images - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)

    @jax.jit
    def run(variables, images):
        outputs = network.apply(variables, images, auxiliary=True)
        return {name: upsample(x, size, align_corners=head.align_corners) for name, x in outputs.items()}

    outputs = run(variables, images[None].astype(np.float32))
    golden = json.loads((real_data / "golden" / "torchvision_golden.json").read_text())[GOLDEN[name]]
    golden = golden[f"{size[0]}x{size[1]}"]
    wanted = [(outputs["classes"], golden["out"])]
    wanted += [(outputs["auxiliary"], golden["aux"])] if head.has_auxiliary else []
    for array, expected in wanted:
        array = np.asarray(array).transpose(0, 3, 1, 2)
        assert list(array.shape) == expected["shape"]
        close = 1e-5 * expected["std"]
        np.testing.assert_allclose(array.reshape(-1)[expected["index"]], expected["value"], atol=close, rtol=0)
        numbers = (array.mean(dtype=np.float64), array.std(dtype=np.float64), array.min(), array.max())
        np.testing.assert_allclose(
            numbers, [expected[key] for key in ("mean", "std", "min", "max")], atol=close, rtol=0
        )
    classes = np.bincount(np.asarray(outputs["classes"]).argmax(-1).reshape(-1), minlength=21)
    assert classes.tolist() == golden["argmax_histogram"]


# --- TensorFlow's deeplabv3.tflite ---


def test_the_published_deeplab(real_data):
    """V2 x0.5 at output stride 8: every pixel of the mask, logits within 1e-4, and the published image and mask."""
    from PIL import Image

    place = real_data / "weights" / "segmentation"
    trained = load_pretrained(place / "deeplabv3.tflite", log=lambda line: None)
    section = trained.config
    assert (section.model.name, section.model.width, section.task.output_stride) == ("v2", 0.5, 8)
    assert (section.task.head, section.data.image_size) == ("deeplab", 257)
    assert trained.class_names[:2] == ("background", "aeroplane")
    network = create_segmenter("deeplab_v2_dm05_tf", num_classes=21)
    golden = np.load(real_data / "golden" / "deeplabv3_257.npz")
    images = (golden["image"].astype(np.float32) - section.data.mean) / section.data.std

    @jax.jit
    def run(variables, images):
        return upsample(network.apply(variables, images)["classes"], (257, 257), align_corners=True)[0]

    logits = np.asarray(run(trained.variables, images[None].astype(np.float32)))
    np.testing.assert_array_equal(logits.argmax(-1), golden["argmax"])
    np.testing.assert_allclose(logits[::8, ::8], golden["logits_every8"], atol=1e-4)
    published = np.asarray(Image.open(place / "segmentation_golden_rotation0.png").convert("L"))
    np.testing.assert_array_equal(logits.argmax(-1) * 10, published)
