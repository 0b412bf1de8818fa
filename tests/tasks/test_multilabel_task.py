"""Average precision, F1 and thresholds against scikit-learn and brute force; targets and loss; devices and batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from on_devices import gradients
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve

from mnet_jax import schema
from mnet_jax.augment.mixing import mix
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.tasks.multilabel import export, figures, predict, report
from mnet_jax.tasks.multilabel.figures import Decisions
from mnet_jax.tasks.multilabel.task import MultiLabel, balanced_weights, build
from mnet_jax.training.batches import Embedded, EmbeddingBatches
from mnet_jax.training.evaluation import Evaluator
from mnet_jax.training.parallel import Devices

STATISTICS = {"mean": (124.0, 116.0, 104.0), "std": (58.0, 57.0, 57.5)}
NAMES = ("ant", "bee", "wasp", "fly")
INFO = DatasetInfo(
    name="x", num_classes=4, class_names=NAMES, num_train=1, num_eval=1, train_split="train", eval_split="test",
    **STATISTICS,
)  # fmt: skip


def task_of(names=NAMES, **fields):
    return MultiLabel(class_names=names, **STATISTICS, **fields)


def example(count=300, classes=4, seed=0, ties=False):
    """Logits float32 [N, C] that know something of the truth, bool [N, C]."""
    rng = np.random.default_rng(seed)
    truth = rng.random((count, classes)) < np.linspace(0.05, 0.6, classes)
    logits = (rng.normal(size=truth.shape) * 2 + 2 * truth - 1).astype(np.float32)
    return (np.round(logits) if ties else logits), truth


# --- Figures ---


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [1, 7, 300])
def test_average_precision_is_scikit_learns(count, ties):
    logits, truth = example(count, 40, count, ties)
    there = truth.any(0)
    found = figures.average_precision(logits, truth)
    expected = average_precision_score(truth[:, there], logits[:, there], average=None)
    np.testing.assert_allclose(found[there], expected, atol=1e-12)
    assert np.isnan(found[~there]).all()
    assert figures.mean(found) == pytest.approx(average_precision_score(truth[:, there], logits[:, there]), abs=1e-12)


def test_scores_that_are_no_numbers_come_last():
    logits, truth = example(50, 1)
    broken = np.where(np.arange(50)[:, None] % 7 == 3, np.nan, logits)
    expected = average_precision_score(truth, np.nan_to_num(broken, nan=-1e9))
    assert figures.average_precision(broken, truth)[0] == pytest.approx(expected)


@pytest.mark.parametrize("ties", [False, True])
def test_thresholds_have_the_best_f1_that_there_is(ties):
    logits, truth = example(80, 6, 3, ties)
    truth[:, 5] = False
    probabilities = figures.sigmoid(logits)
    thresholds = figures.best_thresholds(probabilities, truth)
    f1 = Decisions.of(probabilities, truth, thresholds).f1
    for number in range(5):
        tried = [0.0, *np.unique(probabilities[:, number])]
        best = max(f1_score(truth[:, number], probabilities[:, number] >= value) for value in tried)
        assert f1[number] == pytest.approx(best, abs=1e-12)
        scores = np.unique(probabilities[:, number])
        assert np.abs(scores - thresholds[number]).min() > 0  # no score lies on it: rounding changes no decision
    assert thresholds[5] == 0.5


def test_f1_is_scikit_learns():
    logits, truth = example(200, 8, 5)
    probabilities = figures.sigmoid(logits)
    decisions = Decisions.of(probabilities, truth, np.linspace(0.1, 0.9, 8))
    said = probabilities >= np.linspace(0.1, 0.9, 8).astype(np.float32)
    np.testing.assert_allclose(decisions.f1, f1_score(truth, said, average=None))
    assert figures.mean(decisions.f1) == pytest.approx(f1_score(truth, said, average="macro"))
    assert decisions.micro_f1 == pytest.approx(f1_score(truth, said, average="micro"))


def test_precision_at_recalls_is_the_highest_of_the_curve_from_there_on():
    logits, truth = example(60, 3, 2, ties=True)
    at = figures.precision_at(np.linspace(0, 1, 11), logits, truth)
    for number in range(3):
        precision, recall, _ = precision_recall_curve(truth[:, number], logits[:, number])
        expected = [precision[:-1][recall[:-1] >= value - 1e-12].max() for value in np.linspace(0, 1, 11)]
        np.testing.assert_allclose(at[:, number], expected)


# --- Targets and loss ---


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, (1.0, 5.0, 0.5, 2.0)])
def test_loss_is_binary_cross_entropy_with_positive_weights(smoothing, weights):
    logits, truth = example(8, 4, 1)
    task = task_of(label_smoothing=smoothing, positive_weights=weights)
    batch = {"embedding": logits, "labels": truth.astype(np.uint8), "mask": jnp.array([1.0] * 7 + [0.0])}
    inputs, targets = task.train_inputs(jax.random.key(0), batch, jnp.arange(8))
    np.testing.assert_array_equal(inputs, logits)
    soft = truth * (1 - smoothing) + smoothing / 2
    log_p, log_not = (-np.logaddexp(0, sign * logits.astype(np.float64)) for sign in (-1, 1))
    expected = -(np.array(weights or [1.0] * 4) * soft * log_p + (1 - soft) * log_not).sum(1)
    found = task.loss(logits, targets)
    np.testing.assert_allclose(found[:7], expected[:7], rtol=1e-5)
    assert found[7] == 0
    if weights is None:
        np.testing.assert_allclose(
            found[:7], optax.sigmoid_binary_cross_entropy(logits, jnp.asarray(soft, jnp.float32)).sum(-1)[:7], rtol=1e-5
        )
        if not smoothing:
            np.testing.assert_allclose(figures.cross_entropy(logits, truth), expected, rtol=1e-12)


def test_large_logits_lose_what_they_should():
    task = task_of(("a", "b"))
    targets = {"labels": jnp.array([[1.0, 0.0], [0.0, 1.0]]), "real": jnp.ones(2)}
    found = jax.jit(task.loss)(jnp.array([[90.0, -90.0]] * 2), targets)
    np.testing.assert_allclose(found, [0.0, 180.0])


@pytest.mark.parametrize("field", ["mixup_alpha", "cutmix_alpha"])
def test_mixed_images_have_the_classes_of_both_by_their_shares(field):
    task = task_of(augment={field: 1.0})
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (4, 8, 8, 3), np.uint8)),
        "labels": jnp.asarray([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]], jnp.uint8),
        "mask": jnp.ones(4),
    }
    key = jax.random.key(3)
    inputs, targets = jax.jit(task.train_inputs)(key, batch, jnp.arange(4))
    whole = jnp.ones((4, 8, 8, 3)) * jnp.arange(4.0)[:, None, None, None]
    _, share = mix(jax.random.split(key)[1], whole, jnp.eye(4), task.augment)
    share = np.asarray(share)
    assert 0 < share[0, 0] < 1
    np.testing.assert_allclose(targets["labels"], share @ np.asarray(batch["labels"], np.float32), atol=1e-6)
    assert inputs.shape == batch["image"].shape


def test_balanced_weights_make_there_and_not_there_count_the_same():
    _, truth = example(500, 5)
    truth[:, 4] = True
    weights = np.array(balanced_weights(truth.astype(np.uint8)))
    np.testing.assert_allclose(weights[:4] * truth.sum(0)[:4], (~truth).sum(0)[:4])
    assert weights[4] == 1.0
    fitted = task_of(NAMES, balanced=True).fitted(lambda field: {"labels": truth[:, :4].astype(np.uint8)}[field])
    assert fitted.positive_weights == tuple(weights[:4])
    with pytest.raises(ValueError, match="2 positive weights for 4 classes"):
        task_of(positive_weights=(1.0, 2.0))


# --- Devices, parts and batches ---


def test_any_number_of_devices_and_parts_gives_the_same_gradient():
    rng = np.random.default_rng(0)
    task = task_of(label_smoothing=0.1, positive_weights=(1.0, 2.0, 3.0, 0.5))
    batch = {
        "embedding": jnp.asarray(rng.normal(size=(8, 5)), jnp.float32),
        "labels": jnp.asarray(rng.random((8, 4)) < 0.4, jnp.uint8),
        "mask": jnp.ones(8),
    }
    params = {"kernel": jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)}
    found = list(
        gradients(task, lambda params, x: x @ params["kernel"], params, batch, ((1, 1), (2, 1), (4, 2), (8, 1)))
    )
    for other in found[1:]:
        np.testing.assert_allclose(other["kernel"], found[0]["kernel"], rtol=1e-5, atol=1e-7)


class Given:
    """A network whose outputs are its inputs."""

    def apply(self, variables, inputs, *, train):
        return inputs


@pytest.mark.parametrize(("devices", "device_batch"), [(1, 7), (3, 5), (8, 2), (8, 64)])
def test_evaluation_is_scikit_learns_over_any_devices_and_uneven_batches(devices, device_batch):
    logits, truth = example(101, 4, 9, ties=True)
    split = Embedded(logits[:, None], {"labels": truth.astype(np.uint8)})
    evaluator = Evaluator(
        Given(), task_of(), EmbeddingBatches(split, split, 0), Devices(devices), device_batch=device_batch,
        num_images=101,
    )  # fmt: skip
    found = evaluator({})
    assert found["map"] == pytest.approx(average_precision_score(truth, logits), abs=1e-12)
    alone = task_of().meter()
    alone.add({}, {"index": np.arange(101), "logits": logits, "labels": truth.astype(np.uint8)})
    assert found == alone.result()  # to the last bit


# --- Thresholds ---


def test_thresholds_of_a_checkpoint_are_used_and_a_config_overrules_them():
    logits, truth = example(60, 4)
    meter = task_of().meter()
    assert meter.result() == {"num_images": 0}
    meter.add({}, {"index": np.arange(60), "logits": logits, "labels": truth})
    metrics = meter.result()
    task = task_of().evaluated(metrics)
    assert task.class_thresholds == tuple(figures.best_thresholds(figures.sigmoid(logits), truth).tolist())
    other, other_truth = example(60, 4, 1)
    meter = task.meter()
    meter.add({}, {"index": np.arange(60), "logits": other, "labels": other_truth})
    again = meter.result()
    assert [again[f"threshold_{name}"] for name in NAMES] == list(task.class_thresholds)
    said = figures.sigmoid(other) >= np.array(task.class_thresholds, np.float32)
    assert again["f1_micro"] == pytest.approx(f1_score(other_truth, said, average="micro"))
    assert task_of().class_thresholds == (0.5,) * 4
    assert task_of().evaluated(None) == task_of()
    assert task_of().evaluated({"map": 0.5}) == task_of()
    config = schema.get_config()
    config.task.name, config.task.score_threshold = "multilabel", 0.25
    assert build(config, INFO).evaluated(metrics).class_thresholds == (0.25,) * 4


def test_prediction_tells_all_classes_from_their_thresholds_on():
    task = task_of(thresholds=(0.9, 0.1, 0.5, 0.5))
    logits = np.log(np.array([[0.8, 0.2, 0.6, 0.01], [0.1, 0.05, 0.2, 0.3]], np.float32))
    logits -= np.log1p(-np.exp(logits))
    selected = jax.tree.map(np.asarray, predict.select(task, jnp.asarray(logits), 1))
    first, second = (predict.describe(jax.tree.map(lambda x, i=i: x[i], selected), INFO, None) for i in (0, 1))
    assert [row["class"] for row in first["labels"]] == ["wasp", "bee"]
    assert [row["class"] for row in first["others"]] == ["ant"]
    assert first["labels"][1] == {
        "class": "bee",
        "index": 1,
        "score": pytest.approx(0.2),
        "threshold": pytest.approx(0.1),
    }
    assert predict.lines(first) == [" 60.00 %  wasp", " 20.00 %  bee"]
    assert predict.lines(second) == ["none of the classes; the surest is fly with 30.00 %, from 50.00 % on"]
    assert predict.draw(np.zeros((30, 40, 3), np.uint8), second).startswith(b"\x89PNG")


def test_the_worst_mistakes_are_those_furthest_beyond_their_thresholds():
    probabilities = np.array([[0.96, 0.1], [0.3, 0.2], [0.05, 0.9], [0.45, 0.2]], np.float32)
    truth = np.array([[0, 0], [1, 0], [1, 1], [0, 0]], bool)
    assert report.worst(probabilities, truth, np.array([0.5, 0.5]), 9) == [(0, 0), (2, 0), (1, 0)]
    assert report.worst(probabilities, truth, np.array([0.5, 0.5]), 1) == [(0, 0)]
    rows = report.class_rows(
        ("a", "b"), np.array([0.5, np.nan]), np.array([0.5, 0.5]), Decisions.of(probabilities, truth, [0.5, 0.5])
    )
    assert rows[0] == ("a", 2, "0.5000", "0.5000", 1, 0, "0.0000", "0.0000", "0.0000")
    assert report.table_lines(rows)[1].split() == ["a", "2", "50.0", "%", "50.0", "%", "0.0", "%", "0.0", "%"]


def test_a_comparison_counts_decisions_and_knows_map():
    logits, truth = example(40, 4)
    task = task_of(thresholds=(0.3, 0.4, 0.5, 0.6))
    other = logits + np.float32(0.01) * np.sign(logits)
    other[0] = -logits[0]
    for output in export.OUTPUTS:
        ours, theirs = (np.asarray(export.results(task, jnp.asarray(x), output)) for x in (logits, other))
        comparison = export.compare(task, output)
        for rows in (slice(0, 30), slice(30, 40)):
            comparison.add(ours[rows], theirs[rows], {"labels": truth[rows].astype(np.uint8)})
        result = comparison.result()
        said = [figures.sigmoid(x) >= np.array(task.thresholds, np.float32) for x in (logits, other)]
        assert result["agreement"] == (said[0] == said[1]).mean()
        assert result["map_file"] == pytest.approx(average_precision_score(truth, theirs), abs=1e-9)
        assert result["max_error"] == pytest.approx(np.abs(ours.astype(float) - theirs).max())
        assert len(comparison.lines()) == 3
