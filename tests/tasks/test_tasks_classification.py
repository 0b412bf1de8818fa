"""Targets, loss and metrics against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mnet_jax.tasks.classification.task import Classification

STATISTICS = {"mean": (124.0, 116.0, 104.0), "std": (58.0, 57.0, 57.5)}
IMAGES = np.zeros((8, 4, 4, 3), np.uint8)


def task_of(num_classes, **fields):
    return Classification(num_classes=num_classes, **STATISTICS, **fields)


def targets_of(task, label, mask=None):
    batch = {"image": IMAGES[: len(label)], "label": jnp.array(label)}
    if mask is not None:
        batch["mask"] = jnp.array(mask)
    return np.asarray(jax.jit(task.train_inputs)(jax.random.key(0), batch, jnp.arange(len(label)))[1])


def reference(logits, label, mask):
    """Sums by a loop over the examples: right is strictly greater than all (top 5: than all but four) others."""
    sums = dict.fromkeys(("loss", "top1", "top5", "count"), 0.0)
    for row, answer, real in zip(logits.astype(np.float64), label, mask, strict=True):
        if not real:
            continue
        others = np.delete(row, answer)
        not_beaten = sum(not row[answer] > other for other in others)
        broken = np.isnan(row).any()
        sums["loss"] += scipy.special.logsumexp(row) - row[answer]
        sums["top1"] += not broken and not_beaten == 0
        sums["top5"] += not broken and not_beaten < 5
        sums["count"] += 1
    return sums


@pytest.mark.parametrize("num_classes", [1, 2, 5, 6, 1000])
def test_metrics_are_masked_sums(num_classes):
    rng = np.random.default_rng(num_classes)
    logits = rng.normal(size=(64, num_classes)).astype(np.float32) * 3
    label = rng.integers(0, num_classes, 64)
    label[::2] = logits[::2].argmax(axis=1)
    mask = (rng.random(64) < 0.7).astype(np.float32)
    found = jax.jit(lambda logits, batch: task_of(num_classes).measure(logits, batch).sums)(
        logits, {"label": label, "mask": mask}
    )
    for name, value in reference(logits, label, mask).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
        assert found[name].dtype == jnp.float32
        assert found[name].shape == ()


def test_ties_count_as_wrong_and_argmax_otherwise():
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 4, (500, 10)).astype(np.float32)  # many ties
    label = rng.integers(0, 10, 500)
    mask = np.ones(500, np.float32)
    found = jax.jit(lambda x, batch: task_of(10).measure(x, batch).sums)(logits, {"label": label, "mask": mask})
    expected = reference(logits, label, mask)
    assert {name: float(found[name]) for name in ("top1", "top5", "count")} == {
        name: expected[name] for name in ("top1", "top5", "count")
    }
    constant = task_of(10).measure(jnp.zeros((4, 10)), {"label": jnp.zeros(4, int)}).sums
    assert float(constant["top1"]) == float(constant["top5"]) == 0
    distinct = rng.permuted(np.tile(np.arange(10.0), (500, 1)), axis=1)
    top1 = task_of(10).measure(distinct, {"label": label}).sums["top1"]
    assert float(top1) == np.sum(distinct.argmax(axis=1) == label)


def test_nan_is_never_right_and_shows_in_the_loss():
    logits = np.zeros((4, 3), np.float32)
    logits[:, 0] = 9
    logits[1, 0] = logits[2, 1] = np.nan
    logits[3, 0] = np.inf
    found = jax.jit(lambda x, batch: task_of(3).measure(x, batch).sums)(
        logits, {"label": jnp.zeros(4, int), "mask": jnp.ones(4)}
    )
    assert float(found["top1"]) == float(found["top5"]) == 2
    assert np.isnan(found["loss"])
    hidden = task_of(3).measure(logits, {"label": jnp.zeros(4, int), "mask": jnp.array([1.0, 0, 0, 0])}).sums
    assert np.isfinite(hidden["loss"])
    assert float(hidden["count"]) == float(hidden["top1"]) == 1


def test_padding_may_hold_any_label_and_a_wrong_label_shows():
    logits = jnp.eye(3)
    found = jax.jit(lambda x, batch: task_of(3).measure(x, batch).sums)(
        logits, {"label": jnp.array([0, -1, 7]), "mask": jnp.array([1.0, 0, 0])}
    )
    assert (float(found["count"]), float(found["top1"])) == (1, 1)
    np.testing.assert_allclose(found["loss"], np.log(np.e + 2) - 1, rtol=1e-6)
    bad = task_of(3).measure(logits, {"label": jnp.array([0, 3, 2]), "mask": jnp.ones(3)}).sums
    assert np.isnan(bad["loss"])
    assert float(bad["top1"]) == 2


def test_targets_are_smoothed_one_hot_rows():
    np.testing.assert_array_equal(targets_of(task_of(4), [2, 0]), np.eye(4)[[2, 0]])
    smooth = targets_of(task_of(4, label_smoothing=0.1), [2, 0])
    np.testing.assert_allclose(smooth, np.eye(4)[[2, 0]] * 0.9 + 0.025, atol=1e-7)
    np.testing.assert_allclose(smooth.sum(axis=1), 1, atol=1e-6)
    assert not targets_of(task_of(4, label_smoothing=0.1), [2, -1, 1], [1.0, 0.0, 0.0])[1:].any()
    assert np.isnan(targets_of(task_of(4), [4, 0])[0]).all()


def test_loss_is_cross_entropy_and_its_gradient_softmax_minus_target():
    rng = np.random.default_rng(0)
    task = task_of(7, label_smoothing=0.1)
    logits = rng.normal(size=(8, 7)).astype(np.float32) * 5
    targets = targets_of(task, rng.integers(0, 7, 8))
    expected = -np.sum(targets * scipy.special.log_softmax(logits.astype(np.float64), axis=1), axis=1)
    loss = task.loss(jnp.asarray(logits), jnp.asarray(targets))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    gradient = jax.grad(lambda z: jnp.sum(task.loss(z, targets)))(jnp.asarray(logits))
    np.testing.assert_allclose(gradient, scipy.special.softmax(logits, axis=1) - targets, atol=1e-6)
    half = task.loss(jnp.asarray(logits, jnp.bfloat16), targets)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, expected, rtol=0.05)


def test_a_padded_example_has_no_loss_and_no_gradient():
    task = task_of(3, label_smoothing=0.1)
    targets = targets_of(task, [1, 0], [1.0, 0.0])
    logits = jnp.array([[1.0, 2, 3], [4, 5, 6]])
    assert float(task.loss(logits, targets)[1]) == 0
    gradient = jax.grad(lambda z: jnp.sum(task.loss(z, targets)))(logits)
    assert not np.any(gradient[1])


def test_large_logits_stay_finite():
    loss = task_of(3).loss(jnp.array([[1e4, -1e4, 0.0]]), jnp.array([[1.0, 0, 0]]))
    assert float(loss[0]) == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0; it must be at least 1"),
        ({"label_smoothing": 1.0}, r"task.label_smoothing is 1.0; it must be from 0 to below 1"),
        ({"std": (1.0, 0.0, 1.0)}, r"data.std is \(1.0, 0.0, 1.0\); it must be three numbers above 0"),
        ({"mean": (1.0, 2.0)}, r"data.mean is \(1.0, 2.0\); it must be three numbers$"),
    ],
)
def test_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        Classification(**{"num_classes": 3, **STATISTICS, **fields})


def test_a_config_section_is_frozen_into_a_hashable_task():
    task = task_of(3, augment={"mixup_alpha": 0.2})
    assert task.augment.mixup_alpha == 0.2
    assert hash(task) == hash(task_of(3, augment={"mixup_alpha": 0.2}))
