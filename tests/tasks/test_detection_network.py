"""Networks and anchors of detectors, against numbers counted and computed elsewhere (torchvision 0.28, TensorFlow)."""

import dataclasses
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnet_jax.models.compute import Compute
from mnet_jax.models.count import summarize
from mnet_jax.models.heads.boxes import resolve_head
from mnet_jax.models.heads.tables import DETECTORS, find_detector, find_head, resolve_detector
from mnet_jax.models.heads.taps import find_tap
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import find_spec
from mnet_jax.pretrained.box_layouts import TORCHVISION_BOXES
from mnet_jax.tasks.detection.anchors import anchors
from mnet_jax.tasks.detection.network import Detector, create_detector

GOLDEN = json.loads((pathlib.Path(__file__).parent / "detection_golden.json").read_text())

# Detector, classes without the background, parameters; of torchvision's own instance, and of the definitions in
# TensorFlow's extractors and predictors (counted outside this repository). Million multiply-adds as published, or None.
COUNTS = (
    ("ssdlite320_v3_large", 90, 3_440_060, 583),  # torchvision, the weights' meta: .583 G
    ("ssdlite320_v3_large_tf", 90, 3_248_255, 510),  # V3 paper, table 6: 3.22 M, .51 G
    ("ssdlite320_v3_small_tf", 80, None, 160),  # .16 G
    ("ssdlite320_v2_tf", 90, 4_500_543, 800),  # V2 paper, table 6: .8 G
    ("ssdlite320_v2_tf", 80, 4_337_013, None),  # 4.3 M
    ("ssdlite320_v1_tf", 90, 5_246_911, 1300),  # 1.3 G
    ("ssdlite320_v1_tf", 80, 5_100_661, None),  # 5.1 M
    ("ssd300_v1", 90, 6_819_839, 1200),  # V1 paper, table 13: 6.8 M, 1.2 G
    ("ssd300_v2", 90, 6_066_431, None),
)


@pytest.mark.parametrize(("name", "num_classes", "params", "millions"), COUNTS)
def test_counts(name, num_classes, params, millions):
    plan, head = resolve_detector(find_detector(name), num_classes)
    size = DETECTORS[name].image_size
    _, totals = summarize(plan, size, head.placed(size))
    assert params in (None, totals.params)
    assert millions is None or abs(totals.multiply_adds / 1e6 - millions) < 0.04 * millions


def test_count_of_a_detector_with_the_narrow_map():
    """mmdetection's SSDLite on V2 takes 96 channels, not the expansion, and has six anchors everywhere."""
    spec = dataclasses.replace(find_head("ssdlite_torchvision"), first_map="output")
    plan = resolve(find_spec("v2"))
    head = resolve_head(spec, plan, 80)
    _, totals = summarize(dataclasses.replace(plan, classifier=None), 320, head.placed(320))
    assert [tap.features for tap in head.taps] == [96, 1280]
    assert totals.params == 4_228_788


@pytest.mark.parametrize(
    ("model", "head", "width", "size"),
    [
        ("v1", "ssd_tf", 0.75, 300),
        ("v3_small", "ssdlite_torchvision", 0.35, (200, 136)),
        ("v4_hybrid_medium", "ssdlite_tf", 1.0, 128),
    ],
)
def test_network_is_as_its_plan_says(model, head, width, size):
    """Variables, outputs and anchors (traced, not run)."""
    plan = resolve(find_spec(model), width=width, num_classes=9)
    head = resolve_head(find_head(head), plan, 7)
    network = Detector.for_plan(plan, Compute(), head)
    shape = (size, size) if isinstance(size, int) else size
    images = jax.ShapeDtypeStruct((2, *shape, 3), jnp.float32)
    outputs, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), images)
    leaves = {tuple(k.key for k in path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(variables)}
    assert leaves == {(variable.collection, *variable.path): variable.shape for variable in network.list_variables()}
    number = head.num_anchors(size)
    assert outputs["boxes"].shape == (2, number, 4)
    assert outputs["classes"].shape == (2, number, 8)
    assert anchors(head, size).shape == (number, 4)


SSD = [detector for detector in DETECTORS.values() if resolve_detector(detector, 3)[1].neck is None]


@pytest.mark.parametrize("detector", SSD, ids=lambda detector: detector.name)
def test_maps_of_every_detector_without_a_pyramid(detector):
    """The first has stride 16, each following half of it, at any width and size; six of them end at 1 x 1 or above."""
    for width in (0.35, 1.0, 1.4):
        _, head = resolve_detector(detector, 3, width=width)
        for size in (128, 300, 321, (640, 384)):
            height, across = (size, size) if isinstance(size, int) else size
            wanted = [(-(-height // (16 << k)), -(-across // (16 << k))) for k in range(6)]
            assert head.map_sizes(size) == wanted


def test_mistakes_are_one_line():
    plan = resolve(find_spec("v2"))
    spec = find_head("ssd_tf")
    for call in (
        lambda: find_head("ssdlit_tf"),
        lambda: find_detector("ssdlite320"),
        lambda: resolve_head(spec, plan, 0),
        lambda: resolve_head(spec, plan, True),
        lambda: anchors(resolve_head(spec, plan, 3), 96),
        lambda: find_tap(plan, "expansion", 7),
        lambda: find_tap(plan, "expanded", 1),
    ):
        with pytest.raises(ValueError, match=r"^[^\n]{20,}$"):
            call()


# --- Anchors ---


def test_anchors_of_torchvision():
    _, head = resolve_detector(find_detector("ssdlite320_v3_large"), 90)
    found = anchors(head, 320)
    assert found.shape == (3234, 4)
    assert found.dtype == np.float32
    wanted = {  # y1, x1, y2, x2
        0: (-24, -24, 40, 40),
        1: (-34.33202, -34.33202, 50.33202, 50.33202),
        2: (-14.627419, -37.254837, 30.627419, 53.254837),
        3: (-37.254837, -14.627419, 53.254837, 30.627419),
        4: (-10.475208, -47.425621, 26.475208, 63.425629),
        2400: (-40, -40, 72, 72),
        3000: (-48, -48, 112, 112),
        3150: (-50.66666, -50.66666, 157.33334, 157.33334),
        3228: (8, 8, 312, 312),
        3233: (0, 72.242752, 320, 247.757248),
    }
    np.testing.assert_allclose(found[list(wanted)], list(wanted.values()), atol=2e-5)
    sums = (370975.71884, 370975.71884, 663904.278343, 663904.278343)
    np.testing.assert_allclose(found.sum(0, dtype=np.float64), sums, atol=0.01)


def test_anchors_of_tensorflow():
    """Counts of 300 and 320 pixels; the first map's three, and the first position of the second map, in their order."""
    _, head = resolve_detector(find_detector("ssd300_v1"), 90)
    found = anchors(head, 300) / 300
    assert (len(found), head.num_anchors(320)) == (1917, 2034)
    sizes = found[:, 2:] - found[:, :2]
    wide, tall = 0.2 * math.sqrt(2), 0.2 / math.sqrt(2)
    np.testing.assert_allclose(sizes[:3], [(0.1, 0.1), (tall, wide), (wide, tall)], atol=1e-6)
    second = [(0.35 / math.sqrt(r), 0.35 * math.sqrt(r)) for r in (1, 2, 0.5, 3, 0.3333)]
    np.testing.assert_allclose(sizes[1083:1089], [*second, (math.sqrt(0.35 * 0.5),) * 2], atol=1e-6)
    np.testing.assert_allclose(found[1080:1083].reshape(3, 2, 2).mean(1), np.full((3, 2), 18.5 / 19), atol=1e-6)


# --- torchvision's network, with a rule in place of weights ---


def filled(network):
    """Variables by the rule of `detection_golden.json`: a function of the place in torchvision's state dict."""
    head, variables = network.head_plan, {"params": {}, "batch_stats": {}}
    classes = {layer.name for layers in head.classes for layer in layers}
    boxes = {layer.name for layers in head.boxes for layer in layers}
    names = list(TORCHVISION_BOXES.names(network.plan, head))
    names.sort(key=lambda pair: (pair[0].path[0] in boxes) * 2 + (pair[0].path[0] in classes))  # stable
    t = 0
    for variable, name in names:
        shape = variable.shape
        if variable.path[-1].endswith("kernel"):
            shape = (1, 1, *shape) if len(shape) == 2 else shape
            shape = tuple(shape[axis] for axis in (3, 2, 0, 1))
        i = np.arange(math.prod(shape), dtype=np.float64)
        u = np.sin(0.7 * i + 0.13 * t + 0.05 * (i % 97)).reshape(shape).astype(np.float32)
        if name.endswith("running_var"):
            u = 1 + 0.2 * u
        elif len(shape) == 4:
            u = u * np.float32(math.sqrt(2 / math.prod(shape[1:])))
        elif name.endswith("weight"):
            u = 1 + 0.1 * u
        else:
            u = 0.05 * u
        t += 2 if name.endswith("running_var") else 1  # a counter of batches follows
        scope = variables[variable.collection]
        for part in variable.path[:-1]:
            scope = scope.setdefault(part, {})
        scope[variable.path[-1]] = TORCHVISION_BOXES.array(np.float32(u), variable, head)
    return variables


def test_torchvision_network():
    """Maps, logits and codes: shape, mean, deviation, extremes and twelve values each, to 1e-5 of the deviation."""
    network = create_detector("ssdlite320_v3_large", num_classes=90)
    y, x, c = np.meshgrid(np.arange(320), np.arange(320), np.arange(3), indexing="ij")
    images = np.sin(0.05 * y + 0.03 * x + 1.1 * c + 0.0002 * x * y).astype(np.float32)[None]

    def run(variables, images):
        maps = network.apply(variables, images, method="head_maps")
        return maps, network.apply(variables, images)

    maps, outputs = jax.jit(run)(filled(network), images)
    found = {str(number): np.asarray(x).transpose(0, 3, 1, 2) for number, x in enumerate(maps)}
    found["cls_logits"] = np.asarray(outputs["classes"])
    found["bbox_regression"] = np.asarray(outputs["boxes"])[..., (1, 0, 3, 2)]
    for name, golden in GOLDEN.items():
        array = found[name]
        assert list(array.shape) == golden["shape"]
        close = 1e-5 * golden["std"]
        np.testing.assert_allclose(array.reshape(-1)[golden["index"]], golden["value"], atol=close, rtol=0)
        numbers = (array.mean(dtype=np.float64), array.std(dtype=np.float64), array.min(), array.max())
        wanted = [golden[what] for what in ("mean", "std", "min", "max")]
        np.testing.assert_allclose(numbers, wanted, atol=close, rtol=0)
