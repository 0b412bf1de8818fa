"""Detectors with a feature pyramid, against counts of others, anchors by hand, and the pyramid in plain TensorFlow."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnet_jax import schema
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.made_up import make_batch
from mnet_jax.models.compute import Compute
from mnet_jax.models.count import summarize
from mnet_jax.models.heads.boxes import resolve_head
from mnet_jax.models.heads.tables import DETECTORS, find_detector, find_head, resolve_detector
from mnet_jax.models.heads.taps import trimmed
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import find_spec
from mnet_jax.models.variables import initial_variables
from mnet_jax.tasks.detection.anchors import anchors
from mnet_jax.tasks.detection.network import Detector
from mnet_jax.trained import build_model, build_task

PYRAMIDS = ("fpnlite_tf", "fpn_tf", "retinanet_garden")


# V4 paper, table 7: million parameters and billion multiply-adds of whole detectors. It counts every variable of the
# model, batch statistics and the layers above the last map too, which no detection needs.
@pytest.mark.parametrize(
    ("model", "width", "millions", "billions"),
    [
        ("v4_conv_medium", 1.0, 9.79, 5.06),
        ("v4_hybrid_medium", 1.0, 11.15, 5.62),
        ("v1", 1.5, 9.05, 6.68),
        ("v2", 2.0, 10.15, 5.81),
        ("v3_large", 2.0, 17.92, 4.99),
    ],
)
def test_counts_of_the_v4_paper(model, width, millions, billions):
    plan = resolve(find_spec(model), width=width, num_classes=1000)
    head = resolve_head(find_head("retinanet_garden"), plan, 90)
    _, totals = summarize(trimmed(plan, head.taps), 384, head.placed(384))
    rows, _ = summarize(plan, 384)
    unused = sum(row.params + row.batch_statistics for row in rows if row.name in ("last_conv", "head"))
    assert abs((totals.variables + unused) / 1e6 - millions) < 0.007
    assert abs(totals.multiply_adds / 1e9 - billions) < 0.015 * billions


def test_counts_of_fpnlite_by_hand():
    """V2 without classifier; three laterals with bias; smoothing, P6, P7; a tower with five norms; two predictors."""
    plan, head = resolve_detector(find_detector("fpnlite320_v2"), 90)
    _, totals = summarize(plan, 320, head.placed(320))
    separable = 9 * 128 + 128 * 128
    laterals = (32 + 96 + 1280) * 128 + 3 * 128
    tower = 4 * (separable + 5 * 2 * 128)
    predictors = sum(9 * 128 + (128 + 1) * numbers for numbers in (6 * 91, 6 * 4))
    assert totals.params == 2_223_872 + laterals + 4 * (separable + 2 * 128) + tower + predictors
    assert totals.batch_statistics == 2 * (17_056 + 4 * 128 + 4 * 5 * 128)


def test_anchors_of_tensorflow():
    """12,804 and 51,150, as the published files have; 32 px at stride 8, centred, but on the edge at 128 in 320."""
    _, head = resolve_detector(find_detector("fpnlite320_v2"), 90)
    found = anchors(head, 320)
    assert found.shape == (12_804, 4)
    assert head.num_anchors(640) == 51_150
    wanted = []
    for ratio in (1, 2, 0.5):
        for scale in (1, math.sqrt(2)):
            height, width = 32 * scale / math.sqrt(ratio), 32 * scale * math.sqrt(ratio)
            wanted.append((4 - height / 2, 4 - width / 2, 4 + height / 2, 4 + width / 2))
    np.testing.assert_allclose(found[:6], wanted, atol=1e-5)
    np.testing.assert_allclose(found[6], (-12, -4, 20, 28), atol=1e-5)  # the next position
    last = 6 * (1600 + 400 + 100 + 25)
    np.testing.assert_allclose(found[last], (-256, -256, 256, 256), atol=1e-4)
    np.testing.assert_allclose(found[last + 6], (-256, -128, 256, 384), atol=1e-4)
    np.testing.assert_allclose(anchors(head, 640)[6 * 8500], (-192, -192, 320, 320), atol=1e-4)


def test_anchors_of_the_model_garden():
    """At 384 px 9 at each of 2304 + 576 + 144 + 36 + 9 positions; 24 px at stride 8, wide ones last."""
    _, head = resolve_detector(find_detector("retinanet384_v4_conv_medium"), 90)
    found = anchors(head, 384)
    assert found.shape == (9 * 3069, 4)
    tall, wide = 24 * math.sqrt(2), 24 / math.sqrt(2)
    wanted = [(tall, wide), (24, 24), (wide, tall)]
    wanted = [(factor * h, factor * w) for factor in (1, 2 ** (1 / 3), 2 ** (2 / 3)) for h, w in wanted]
    np.testing.assert_allclose(found[:9, 2:] - found[:9, :2], wanted, atol=1e-4)
    np.testing.assert_allclose(found[:9, 2:] + found[:9, :2], np.full((9, 2), 8.0), atol=1e-4)
    np.testing.assert_allclose(found[-9:, 2:] + found[-9:, :2], np.full((9, 2), 2 * 320.0), atol=1e-3)


# --- The pyramid in TensorFlow ---


class Plain:
    """Layers of both libraries by the names of our variables, in TensorFlow."""

    def __init__(self, variables, epsilon):
        self.params, self.stats, self.epsilon = variables["params"], variables["batch_stats"], epsilon

    def conv(self, name, x, stride=1):
        import tensorflow as tf

        if f"{name}_depthwise" in self.params:
            kernel = self.params[f"{name}_depthwise"]["depthwise_kernel"][:, :, 0, :, None]
            x = tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME")
            stride = 1
        kernel = self.params[name]["kernel"]
        kernel = kernel[None, None] if kernel.ndim == 2 else kernel
        x = tf.nn.conv2d(x, kernel, stride, "SAME")
        return x + self.params[name].get("bias", 0.0)

    def norm(self, name, x):
        import tensorflow as tf

        params, stats = self.params[name], self.stats[name]
        return tf.nn.batch_normalization(x, stats["mean"], stats["var"], params["bias"], params["scale"], self.epsilon)

    def block(self, name, x, norm=None, stride=1):
        import tensorflow as tf

        return tf.nn.relu6(self.norm(norm or f"{name}_norm", self.conv(name, x, stride)))


def twice(x):
    import tensorflow as tf

    return tf.image.resize(x, [2 * x.shape[1], 2 * x.shape[2]], "nearest")


def object_detection(net, taps):
    p5 = net.conv("lateral_5", taps[2])
    p4 = net.block("smooth_4", net.conv("lateral_4", taps[1]) + twice(p5))
    p3 = net.block("smooth_3", net.conv("lateral_3", taps[0]) + twice(p4))
    p6 = net.block("coarser_6", p5, stride=2)
    return [p3, p4, p5, p6, net.block("coarser_7", p6, stride=2)]


def model_garden(net, taps):
    import tensorflow as tf

    lateral = [net.conv(f"lateral_{3 + index}", x) for index, x in enumerate(taps)]
    p4 = lateral[1] + twice(lateral[2])
    p3, p4, p5 = (net.conv(f"smooth_{3 + i}", x) for i, x in enumerate((lateral[0] + twice(p4), p4, lateral[2])))
    p6 = net.conv("coarser_6", p5, 2)
    p7 = net.conv("coarser_7", tf.nn.relu6(p6), 2)
    return [net.norm(f"pyramid_{3 + index}_norm", x) for index, x in enumerate((p3, p4, p5, p6, p7))]


@pytest.mark.parametrize("name", PYRAMIDS)
def test_pyramid_equals_tensorflow(name):
    plan = resolve(find_spec("v2"), width=0.25, norm_epsilon=1e-3)
    head = resolve_head(find_head(name), plan, 2)
    network = Detector.for_plan(plan, Compute(), head)
    rng = np.random.default_rng(0)
    variables = initial_variables(network.list_variables(), 0)
    for layer in head.layers:  # kernels that leave something of the image, and norms and biases that do something
        for leaf, value in variables["params"][layer.name].items():
            spread = 1.5 / math.sqrt(np.prod(value.shape[:-1])) if "kernel" in leaf else 0.3
            variables["params"][layer.name][leaf] = np.float32(
                rng.normal(1.0 if leaf == "scale" else 0.0, spread, value.shape)
            )
        for leaf, value in variables["batch_stats"].get(layer.name, {}).items():
            variables["batch_stats"][layer.name][leaf] = np.float32(rng.uniform(0.2, 0.6, value.shape))
    taps = [rng.normal(size=(2, *tap.size((128, 256)), tap.features)).astype(np.float32) for tap in head.taps]

    class Taken(Detector):
        def taps(self, images, paths, *, train=False):
            return dict(zip(paths, taps, strict=True))

    taken = Taken.for_plan(plan, Compute(), head)
    ours = jax.jit(lambda variables: taken.apply(variables, jnp.zeros((2, 128, 256, 3))))(variables)

    net = Plain(variables, 1e-3)
    maps = (model_garden if name == "retinanet_garden" else object_detection)(net, taps)
    for what, numbers in (("boxes", 4), ("classes", 3)):
        rows = []
        for level, x in enumerate(maps, 3):
            tower = "tower" if name == "fpnlite_tf" else f"{what}_tower"
            for index in range(4):
                x = net.block(f"{tower}_{index}", x, f"{tower}_{index}_norm_{level}")
            rows.append(np.asarray(net.conv(f"{what}_all", x)).reshape(2, -1, numbers))
        wanted = np.concatenate(rows, 1)
        assert wanted.std() > 0.05
        np.testing.assert_allclose(ours[what], wanted, atol=1e-4 * wanted.std(), rtol=1e-4)


# --- The task ---


@pytest.mark.parametrize(
    ("name", "size"),
    [("fpnlite320_v2", 200), ("fpn640_v1", (128, 136)), ("retinanet384_v4_hybrid_medium", 128)],
)
def test_network_is_as_its_plan_says(name, size):
    """Variables, outputs and anchors at sizes that no stride divides (traced, not run)."""
    plan, head = resolve_detector(find_detector(name), 7, width=0.5)
    network = Detector(plan, Compute(), head)
    shape = (size, size) if isinstance(size, int) else size
    images = jax.ShapeDtypeStruct((2, *shape, 3), jnp.float32)
    outputs, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), images)
    leaves = {tuple(k.key for k in path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(variables)}
    assert leaves == {(variable.collection, *variable.path): variable.shape for variable in network.list_variables()}
    assert outputs["boxes"].shape == (2, head.num_anchors(size), 4)
    assert outputs["classes"].shape == (2, head.num_anchors(size), 8)
    assert anchors(head, size).shape == (head.num_anchors(size), 4)
    scopes = {path[1] for path in leaves}
    assert set(head.scopes) <= scopes
    assert set(head.class_scopes) == {"classes_all"}


@pytest.mark.long
def test_losses_and_detections_of_a_pyramid():
    """The task, with no line of its own: the loss of a fresh network, a gradient in every layer, detections."""
    config = schema.get_config()
    config.update_from_flattened_dict(DETECTORS["fpnlite320_v2"].settings)
    config.model.width, config.data.image_size, config.task.box_weight = 0.1, 128, 0.25
    info = DatasetInfo.made_up(3)
    task = build_task(config, info)
    network = build_model(config, info, task=task)
    variables = initial_variables(network.list_variables(), 0)
    batch = make_batch(task.annotations, 3, (128, 128), 2)

    params = variables["params"]
    head = {scope: params.pop(scope) for scope in task.own_scopes if scope in params}

    def run(head):
        images, targets = task.train_inputs(jax.random.key(0), batch, jnp.arange(2), lambda x: x)
        outputs = network.apply({**variables, "params": {**params, **head}}, images)
        return task.loss(outputs, targets).mean(), (task.detect(outputs), targets)

    (loss, (found, targets)), gradients = jax.jit(jax.value_and_grad(run, has_aux=True))(head)
    positive = (targets["classes"] > 0).sum()
    assert positive >= 14  # every object has an anchor
    # -alpha log(.01) for each positive anchor is most of the classes' loss; codes of 0 are off by some
    assert 0.25 * 4.6 * 0.9 < loss < 0.25 * 4.6 * 0.9 + 4
    for scope in task.own_scopes:
        assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients[scope])), scope
    assert found["boxes"].shape == (2, 100, 4)
    assert float(found["scores"].max()) < 0.2


def test_what_cannot_be_is_one_line():
    plan = resolve(find_spec("v2"), quantize_range_decay=0.99)
    with pytest.raises(ValueError, match=r"^the head fpn_tf is not trained with int8 rounding[^\n]*$"):
        resolve_head(find_head("fpn_tf"), plan, 3)
