"""The task for detection by itself: targets, loss over parts and devices, nasty annotations, metrics."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from on_devices import gradients

from mnet_jax import schema
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models.heads.tables import find_detector
from mnet_jax.tasks import face
from mnet_jax.tasks.detection import losses, matching, task
from mnet_jax.tasks.detection.suppression import Suppression
from mnet_jax.training import initial

SIZE, MOST, CLASSES = 64, 6, 3
INFO = DatasetInfo.made_up(CLASSES, class_names=("ant", "bee", "cat"))


def grid():
    """Anchors of two sizes on a grid, as a head has them."""
    centres = np.stack(np.meshgrid(*[np.arange(4, SIZE, 8)] * 2, indexing="ij"), -1).reshape(-1, 1, 2)
    halves = np.array([[6, 6], [10, 16]])
    return np.concatenate([centres - halves, centres + halves], -1).reshape(-1, 4).astype(np.float32)


def a_config(detector="ssdlite320_v3_large", **fields):
    config = schema.get_config()
    config.update_from_flattened_dict(find_detector(detector).settings)
    config.data.eval_crop, config.task.max_objects = 1.0, MOST
    config.update_from_flattened_dict(fields)
    return config


def a_task(detector="ssdlite320_v3_large", **fields):
    built = task.build(a_config(detector), INFO)
    return dataclasses.replace(built, anchors=grid(), image_size=(SIZE, SIZE), **fields)


def a_batch(rng, count=8):
    """Images with 0 to `MOST` objects, some to be ignored; the first has none."""
    low = rng.integers(0, SIZE - 20, (count, MOST, 2))
    boxes = np.concatenate([low, low + rng.integers(5, 20, (count, MOST, 2))], -1).astype(np.float32)
    number = np.minimum(np.arange(count), MOST)[:, None]
    mask = np.arange(MOST)[None] < number
    return {
        "image": rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8),
        "boxes": boxes * mask[..., None],
        "boxes_class": rng.integers(0, CLASSES, (count, MOST), np.int32) * mask,
        "boxes_mask": mask,
        "boxes_ignore": mask & (np.arange(MOST)[None] == 2),
        "boxes_area": np.full((count, MOST), 50, np.float32) * mask,
        "mask": np.ones(count, np.float32),
        "index": np.arange(count, dtype=np.int32),
        "crop": np.tile(np.int32([0, 0, 128, 96, 0, 0, SIZE, SIZE, 0, 128, 96]), (count, 1)),
    }


def a_network(params, images):
    """Outputs of each image from its mean colour: something with a gradient."""
    colour = images.mean((1, 2))[:, None]
    boxes = jnp.tanh(colour @ params["boxes"]).reshape(len(images), -1, 4)
    return {"boxes": boxes, "classes": (colour @ params["classes"]).reshape(len(images), -1, CLASSES + 1)}


def some_params():
    rng, anchors = np.random.default_rng(5), len(grid())
    shapes = {"boxes": (3, anchors * 4), "classes": (3, anchors * (CLASSES + 1))}
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


DETECTORS = ("ssdlite320_v3_large", "ssdlite320_v3_large_tf")


@pytest.mark.parametrize("detector", DETECTORS)
def test_parts_and_devices_give_the_same_gradient(detector):
    """The loss is divided by the positive anchors of the whole step: one part on one device learns what four learn."""
    ours, batch, params = a_task(detector, min_negatives=3), a_batch(np.random.default_rng(0)), some_params()
    found = list(gradients(ours, a_network, params, batch, ((1, 1), (2, 2), (4, 1))))
    for other in found[1:]:
        for name in params:
            np.testing.assert_allclose(other[name], found[0][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("detector", DETECTORS)
def test_nothing_is_ever_nan(detector):
    ours, rng = a_task(detector), np.random.default_rng(1)
    batch = a_batch(rng)
    boxes, ignore = batch["boxes"].copy(), batch["boxes_ignore"].copy()
    boxes[6] = boxes[6][:, [2, 1, 0, 3]]  # turned round
    boxes[7, 0], boxes[7, 1] = [3, 3, 3, 9], [-500, 10, 900, 11]  # without a height; far outside
    ignore[5] = True
    batch |= {"boxes": boxes, "boxes_ignore": ignore, "mask": np.float32([1, 1, 1, 0, 1, 1, 1, 1])}

    @jax.jit
    def both(params, batch):
        inputs, targets = ours.train_inputs(jax.random.key(0), batch, jnp.arange(8), lambda x: x)
        loss = lambda params: ours.loss(a_network(params, inputs), targets)  # noqa: E731
        measured = ours.measure(a_network(params, inputs), batch)
        grads = jax.grad(lambda params: loss(params).mean())(params)
        return loss(params), grads, (measured.sums, measured.rows)

    each, grads, measured = both(some_params(), batch)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((each, grads, measured)))
    assert each[3] == 0  # it only fills the batch
    none = {**batch, "boxes_mask": np.zeros_like(batch["boxes_mask"])}
    each, grads, _ = both(some_params(), none)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((each, grads)))
    if detector == DETECTORS[0]:
        assert not np.any(each)  # torchvision: where nothing is positive nothing is learned


def test_images_without_objects_teach_with_a_minimum_of_negatives():
    logits, classes = jnp.zeros((1, 10, 4)).at[0, 3, 2].set(5.0), jnp.zeros((1, 10), jnp.int32)
    counted = jnp.ones((1, 10), bool)
    loss = jax.jit(losses.softmax_loss, static_argnames="min_negatives")
    assert loss(logits, classes, counted) == 0
    one = loss(logits, classes, counted, min_negatives=1)
    np.testing.assert_allclose(one, np.log(3 + np.exp(5)), rtol=1e-6)


def test_hardest_takes_the_first_of_equals():
    values = jnp.array([[3.0, 5, 5, 1, 5, 9]])
    allowed = jnp.array([[True, True, True, True, True, False]])
    for count, taken in ((0, []), (1, [1]), (2, [1, 2]), (4, [0, 1, 2, 4]), (99, [0, 1, 2, 3, 4])):
        found = jax.jit(losses.hardest)(values, allowed, jnp.array([count]))
        assert np.flatnonzero(found[0]).tolist() == taken


def test_an_object_takes_its_best_anchor_and_the_last_or_first_of_two_has_it():
    anchors = jnp.array([[0.0, 0, 10, 10], [0, 20, 10, 30], [0, 60, 10, 70]])
    boxes = jnp.array([[0.0, 24, 10, 64], [0, 0, 9, 10], [0, 0, 10, 9.5], [0, 0, 0, 0]])
    valid = jnp.array([True, True, True, True])
    match = jax.jit(matching.match, static_argnames="last_wins")
    assert match(boxes, valid, anchors).tolist() == [2, 0, -1]
    assert match(boxes, valid, anchors, last_wins=False).tolist() == [1, 0, -1]
    assert match(boxes, jnp.zeros(4, bool), anchors).tolist() == [-1, -1, -1]


def test_focal_loss_is_the_papers():
    rng = np.random.default_rng(3)
    logits, classes = rng.normal(size=(2, 5, 4)).astype(np.float32), np.int32([[0, 1, 2, 3, 0], [0, 0, 0, 1, 2]])
    expected = np.zeros(2)
    for n in range(2):
        for a in range(5):
            for c in range(4):
                p, high = 1 / (1 + math.exp(-logits[n, a, c])), c > 0 and classes[n, a] == c
                pt, alpha = (p, 0.25) if high else (1 - p, 0.75)
                expected[n] -= alpha * (1 - pt) ** 2 * math.log(pt)
    loss = jax.jit(losses.focal_loss, static_argnames=("alpha", "gamma"))
    found = loss(logits, classes, np.ones((2, 5), bool), alpha=0.25, gamma=2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("detector", DETECTORS)
def test_perfect_outputs_have_an_ap_of_one(detector):
    """From targets back to figures: coding, suppression, the way to the picture, and the meter."""
    ours = a_task(detector, suppression=Suppression(max_detections=20))
    batch = a_batch(np.random.default_rng(2), count=5)
    corner = np.array([[0, 0], [0, 30], [30, 0], [30, 30], [45, 45], [15, 45]])  # none overlaps another by half
    boxes = np.concatenate([corner, corner + [18, 14]], -1).astype(np.float32)
    batch["boxes"] = np.tile(boxes, (5, 1, 1)) * batch["boxes_mask"][..., None]
    targets = jax.jit(ours.targets)(batch)
    measure = jax.jit(lambda *args: dataclasses.astuple(ours.measure(*args)))
    logits = jax.nn.one_hot(targets["classes"], CLASSES + 1) * 20 - 10
    meter = ours.meter()
    for rows in (np.array([3, 1, 4]), np.array([0, 2, 2])):  # out of order, the last one is padding
        part = {name: value[rows] for name, value in batch.items()}
        part["mask"] = np.float32([1, 1, 1 if rows[0] == 3 else 0])
        sums, found = measure({"boxes": targets["codes"][rows], "classes": logits[rows]}, part)
        real = part["mask"] > 0
        meter.add(sums, {name: np.asarray(value)[real] for name, value in found.items()})
    result = meter.result()
    assert result["num_images"] == 5
    for name in ("ap", "ap50", "ap75", "ar100", "voc2007", "voc2010", "found"):
        assert result[name] == pytest.approx(1.0, abs=1e-6), name
    assert {metric.name for metric in (*ours.metrics, *ours.more_metrics)} <= result.keys()


def test_predict_says_where_things_are_in_the_photo():
    from mnet_jax.data.crop import Crop

    predict = face("detection", "predict")
    crop = Crop.from_rows(a_batch(np.random.default_rng(0))["crop"][0], (SIZE, SIZE))
    selected = {
        "boxes": np.float32([[0, 32, 32, 64], [1, 1, 2, 2]]),
        "scores": np.float32([0.9, 0.1]),
        "classes": np.int32([1, 0]),
    }
    described = predict.describe(selected, INFO, crop)
    assert described["objects"] == [
        {"class": "bee", "index": 1, "score": pytest.approx(0.9), "x1": 48.0, "y1": 0.0, "x2": 96.0, "y2": 64.0}
    ]
    assert predict.lines(described) == [" 90.00 %  bee  x 48 to 96, y 0 to 64"]
    picture = predict.draw(np.zeros((128, 96, 3), np.uint8), described)
    assert picture.startswith(b"\x89PNG")
    assert predict.lines({"objects": []})


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"augment.mixup_alpha": 0.2}, "augment.mixup_alpha=0.2: the task detection cannot follow images that are mi"),
        ({"augment.erase_prob": 0.1}, "the task detection cannot follow images that are partly covered"),
        ({"data.eval_crop": 0.875}, "data.eval_crop=0.875: boxes outside of the crop would not be found"),
        ({"data.image_size": 96}, "at least 128 pixels"),
        ({"task.head": "ssdlite_torchvison"}, "Did you mean 'ssdlite_torchvision'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fields, line):
    with pytest.raises(ValueError, match=line) as error:
        task.build(a_config(**fields), INFO)
    assert "\n" not in str(error.value)


def test_colours_are_followed():
    task.build(a_config(**{"augment.brightness": 0.2, "augment.randaugment_layers": 2}), INFO)


@pytest.mark.parametrize("head", ["ssdlite_torchvision", "ssdlite_tf"])
def test_advice_names_anchors_that_fit_small_objects(head):
    """Against a plain count: of each object the best overlap with an anchor of the same centre."""
    rng = np.random.default_rng(0)
    sides = np.concatenate([rng.uniform(0.05, 0.065, (20, 2)), rng.uniform(0.19, 0.23, (80, 2))])
    classes = np.repeat([1, 0], [20, 80])
    corners = np.concatenate([0.4 - sides / 2, 0.4 + sides / 2], -1)

    def lost(built):
        anchors = (built.anchors[:, 2:] - built.anchors[:, :2]).astype(np.float64) / 320
        best = []
        for height, width in sides:
            shared = np.minimum(height, anchors[:, 0]) * np.minimum(width, anchors[:, 1])
            best.append((shared / (height * width + anchors.prod(-1) - shared)).max())
        return (np.array(best) < 0.5).sum()

    settings = {"task.head": head}
    annotations = {"boxes": corners.reshape(-1).astype(np.float32), "boxes_class": classes}
    first = task.build(a_config(**settings), INFO)
    assert lost(first) >= 20
    missing, line = first.advice(annotations.__getitem__, INFO)
    assert missing == "No object to learn from: cat"
    assert "(bee: 100 %)" in line
    said = float(line.split("min_scale=")[1].split()[0])
    second = task.build(a_config(**settings, **{"task.min_scale": said}), INFO)
    assert len(second.anchors) == len(first.anchors)
    assert lost(second) == round(len(sides) * float(line.split()[-2]) / 100) < lost(first) / 2
    assert second.advice(annotations.__getitem__, INFO) == [missing]


@pytest.mark.parametrize(
    ("theirs", "asked", "head", "scale"),
    [
        ("detection", None, "ssd_tf", 0.1),  # somebody's detector is trained on
        ("detection", "ssdlite_tf", "ssdlite_tf", None),  # what is asked for is asked for
        ("classification", None, None, None),  # a backbone: the task's own head
    ],
)
def test_a_head_comes_with_the_weights_of_a_detector(theirs, asked, head, scale):
    own, config = a_config(**{"task.head": "ssd_tf", "task.min_scale": 0.1}), a_config(**{"task.head": asked})
    own.task.name = theirs
    found = initial.fill_in(config, None, own)
    assert (found.task.head, found.task.min_scale) == (head, scale)
    assert task.build(found, INFO).head.name == (head or "ssdlite_tf")
