"""Codes, matching, losses and figures against torchvision's and pycocotools' own.

torchvision_loss.json and coco_tiny_eval.npz hold annotations of COCO (CC BY 4.0) of a few images, made-up outputs, and
what torchvision 0.28.0 and pycocotools 2.0.11 say about them.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnet_jax import schema
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models.heads.tables import find_detector
from mnet_jax.tasks.detection import average_precision, coding, matching, task
from mnet_jax.tasks.detection.average_precision import Found, Truth

HERE = pathlib.Path(__file__).parent
COCO_IDS = 90


def a_task(num_classes=COCO_IDS, detector="ssdlite320_v3_large", **fields):
    config = schema.get_config()
    config.update_from_flattened_dict(find_detector(detector).settings)
    config.data.eval_crop = 1.0
    config.task.update(fields)
    return task.build(config, DatasetInfo.made_up(num_classes))


@pytest.fixture(scope="module")
def golden():
    return json.loads((HERE / "torchvision_loss.json").read_text())


def batch_of(golden, images):
    boxes, classes, mask = np.zeros((4, 30, 4), np.float32), np.zeros((4, 30), np.int32), np.zeros((4, 30), bool)
    for n in range(4):
        rows = [i for i, image in enumerate(golden["image"]) if image == n]
        boxes[n, : len(rows)] = np.array(golden["boxes"])[rows].reshape(-1, 4)
        classes[n, : len(rows)] = np.array(golden["coco_ids"])[rows].astype(int) - 1
        mask[n, : len(rows)] = True
    batch = {"boxes": boxes, "boxes_class": classes, "boxes_mask": mask, "boxes_ignore": np.zeros_like(mask)}
    batch = {name: value[images] for name, value in batch.items()}
    return {**batch, "image": np.zeros((len(images), 8, 8, 3), np.uint8), "mask": np.ones(len(images), np.float32)}


def outputs_of(images, num_anchors=3234):
    a, n = np.arange(num_anchors)[None, :, None], np.array(images)[:, None, None]
    classes = 2 * np.sin(0.1 * a + 0.7 * np.arange(COCO_IDS + 1) + n)
    boxes = np.cos(0.01 * a + np.array([1, 0, 3, 2]) + n)  # torchvision's order is dx, dy, dw, dh
    return {"classes": classes.astype(np.float32), "boxes": boxes.astype(np.float32)}


@pytest.mark.parametrize("images", [[0, 1, 2, 3], [0], [3]])
def test_loss_is_torchvisions(golden, images):
    ours, batch = a_task(), batch_of(golden, images)
    positions = jnp.arange(len(images))
    targets = jax.jit(lambda batch: ours.train_inputs(jax.random.key(0), batch, positions, lambda x: x)[1])(batch)
    loss = jax.jit(lambda outputs, targets: jnp.mean(ours.loss(outputs, targets)))
    expected = golden if len(images) > 1 else golden["alone"][images[0]]
    outputs, right = outputs_of(images), targets["codes"]  # a code that is right costs nothing
    of_classes = float(loss({**outputs, "boxes": right}, targets))
    found = {"classification": of_classes, "bbox_regression": float(loss(outputs, targets)) - of_classes}
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name


def test_matches_are_torchvisions(golden):
    ours, batch = a_task(), batch_of(golden, [0, 1, 2, 3])
    match = jax.jit(jax.vmap(lambda boxes, mask: matching.match(boxes, mask, jnp.asarray(ours.anchors))))
    index = np.array(match(batch["boxes"], batch["boxes_mask"]))
    assert (index >= 0).sum(1).tolist() == golden["positives"]
    assert [int(np.flatnonzero(row >= 0).sum()) for row in index] == golden["positive_index_sum"]
    assert [int(row[row >= 0].sum()) for row in index] == golden["matched_gt_sum"]


def test_codes():
    """Values of torchvision's BoxCoder, and back."""
    box, anchor = np.float32([[20, 10, 220, 110]]), np.float32([[0, 0, 128, 64]])
    code = coding.TORCHVISION.encode(box, anchor)
    np.testing.assert_allclose(code, [[4.375, 4.375, 2.2314355, 2.2314355]], rtol=1e-6)
    np.testing.assert_allclose(coding.TORCHVISION.decode(code, anchor), box, rtol=1e-5)
    huge = coding.TORCHVISION.decode(np.float32([[0, 0, 100, 100]]), anchor)
    np.testing.assert_allclose(huge, [[-3936, -1968, 4064, 2032]], rtol=1e-6)


@pytest.fixture(scope="module", params=["val", "train"])
def split(request):
    stored = np.load(HERE / "coco_tiny_eval.npz")
    values = {name.removeprefix(f"{request.param}_"): stored[name] for name in stored if name.startswith(request.param)}

    def corners(boxes):
        return np.concatenate([boxes[:, 1::-1], boxes[:, 1::-1] + boxes[:, :1:-1]], 1)

    found = Found(*(values[f"found_{name}"] for name in ("image", "boxes", "classes", "scores")))
    truth = Truth(*(values[f"truth_{name}"] for name in ("image", "boxes", "classes", "ignore", "area")))
    object.__setattr__(found, "boxes", corners(found.boxes))
    object.__setattr__(truth, "boxes", corners(truth.boxes))
    return found, truth, values


def test_coco_figures_are_those_of_pycocotools(split):
    found, truth, values = split
    figures = average_precision.coco(found, truth, 80)
    np.testing.assert_allclose(figures.figures, values["figures"], atol=1e-6)
    expected = np.where(values["class_ap"] < 0, np.nan, values["class_ap"])
    np.testing.assert_allclose(figures.class_ap, expected, atol=1e-6)


def test_voc_is_near_coco_at_half(split):
    """Three ways to sum one curve: they differ by the points that they look at."""
    found, truth, values = split
    for year, atol in ((2007, 0.05), (2010, 0.02)):
        by_class = average_precision.voc(found, truth, 80, year=year)
        assert np.nanmean(by_class) == pytest.approx(values["figures"][1], abs=atol)
