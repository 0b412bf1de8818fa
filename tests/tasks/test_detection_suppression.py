"""Suppression against a plain greedy one in NumPy, on random and on nasty boxes."""

import dataclasses

import jax
import numpy as np
import pytest

from mnet_jax.tasks.detection.suppression import TILE, Suppression


def overlap(box, others):
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), -1, dtype=np.float32)
    area = lambda b: np.prod(np.maximum(b[..., 2:] - b[..., :2], 0), -1, dtype=np.float32)  # noqa: E731
    union = area(box) + area(others) - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), 0)


def plain(rule, boxes, scores):
    """Greedy suppression as a textbook has it, of one image: (boxes, scores, classes)."""
    classes = np.arange(scores.shape[1])[None].repeat(len(boxes), 0)
    if not rule.per_class:
        classes, scores = scores.argmax(-1)[:, None], scores.max(-1, keepdims=True)
    group = classes if rule.per_class else np.zeros_like(classes)
    anchors = np.arange(len(boxes))[:, None].repeat(scores.shape[1], 1)
    flat = [x.ravel() for x in (scores, classes, group, anchors)]
    wanted = flat[0] >= rule.score_threshold if rule.at_least else flat[0] > rule.score_threshold
    flat = [x[wanted] for x in flat]
    order = np.argsort(-flat[0], kind="stable")
    kept, seen = [], {}
    for i in order:
        seen[flat[2][i]] = seen.get(flat[2][i], 0) + 1
        if rule.candidates is not None and seen[flat[2][i]] > rule.candidates:
            continue
        mine = [flat[3][j] for j in kept if flat[2][j] == flat[2][i]]
        if not mine or not (overlap(boxes[flat[3][i]], boxes[mine]) > rule.iou_threshold).any():
            kept.append(i)
        if len(kept) == rule.max_detections:
            break
    return boxes[flat[3][kept]], flat[0][kept], flat[1][kept]


def check(rule, boxes, scores):
    found = jax.tree.map(np.asarray, jax.jit(rule)(boxes, scores))
    for image in range(len(boxes)):
        expected = plain(rule, boxes[image], scores[image])
        count = found["count"][image]
        assert count == len(expected[0])
        for name, values in zip(("boxes", "scores", "classes"), expected, strict=True):
            np.testing.assert_array_equal(found[name][image, :count], values)
            assert not found[name][image, count:].any()
    return found


def some_boxes(rng, shape, most=64):
    """Whole numbers, so that overlaps are the same in any arithmetic, and often exactly the threshold."""
    low = rng.integers(0, most, (*shape, 2))
    return np.concatenate([low, low + rng.integers(0, most // 2, (*shape, 2))], -1).astype(np.float32)


RULES = {
    "torchvision": Suppression(),
    "few": Suppression(candidates=5, max_detections=20, iou_threshold=0.5),
    "all": Suppression(candidates=None, score_threshold=1e-8, iou_threshold=0.6, max_detections=100),
    "agnostic": Suppression(per_class=False, at_least=True, candidates=None, iou_threshold=0.5, max_detections=10),
}


@pytest.mark.parametrize(
    ("name", "num_anchors", "num_classes"),
    [("torchvision", 2000, 20), ("few", 40, 3), ("few", 700, 1), ("all", 700, 1), ("agnostic", 2000, 20)],
)
def test_equal_to_the_plain_one_on_random_boxes(name, num_anchors, num_classes):
    rng = np.random.default_rng(num_anchors)
    boxes = some_boxes(rng, (2, num_anchors))
    scores = rng.random((2, num_anchors, num_classes)).astype(np.float32)
    scores[0] = np.round(scores[0], 1)  # many ties, and many at the threshold 0
    check(RULES[name], boxes, scores)


@pytest.mark.parametrize("name", ["torchvision", "few", "agnostic"])
def test_equal_on_nasty_boxes(name):
    rng = np.random.default_rng(0)
    number = 2 * TILE + 7
    same = np.tile(np.float32([3, 3, 9, 9]), (number, 1))
    stairs = np.arange(number, dtype=np.float32)[:, None] + np.float32([0, 0, 4, 400])  # each suppresses its neighbour
    cases = {
        "all the same box and score": (same, np.full((number, 2), 0.5)),
        "all the same box": (same, rng.random((number, 2))),
        "one chain": (stairs, np.linspace(1, 0.1, number)[:, None].repeat(2, 1)),
        "a chain from its end": (stairs, np.linspace(0.1, 1, number)[:, None].repeat(2, 1)),
        "nothing above the threshold": (some_boxes(rng, (number,)), np.zeros((number, 2))),
        "no area": (np.zeros((number, 4), np.float32), rng.random((number, 2))),
        "turned round": (some_boxes(rng, (number,))[:, [2, 3, 0, 1]], rng.random((number, 2))),
        "none overlaps": (np.arange(number)[:, None] * 10 + np.float32([0, 0, 5, 5]), rng.random((number, 2))),
    }
    boxes, scores = (np.stack(values).astype(np.float32) for values in zip(*cases.values(), strict=True))
    check(RULES[name], boxes, scores)


def test_what_is_no_number_is_no_detection():
    boxes = np.float32([[[0, 0, 5, 5], [np.nan, 0, 5, 5], [9, 9, 20, 20]]])
    scores = np.float32([[[0.5], [0.9], [np.nan]]])
    found = jax.tree.map(np.asarray, Suppression(max_detections=5)(boxes, scores))
    assert found["count"].tolist() == [1]
    assert found["boxes"][0, 0].tolist() == [0, 0, 5, 5]


def test_a_whole_model_garden_of_candidates():
    """Thousands of candidates in every class, of which more than one tile is kept."""
    rng = np.random.default_rng(1)
    rule = dataclasses.replace(RULES["all"], max_detections=900)
    found = check(rule, some_boxes(rng, (1, 3000), most=320), rng.random((1, 3000, 2)).astype(np.float32))
    assert found["count"][0] > TILE
