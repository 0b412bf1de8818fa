"""Per-class figures against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.utils.class_weight import compute_class_weight

from mnet_jax.commands.probe import neighbours
from mnet_jax.tasks.classification.report import Predictions, class_scores, table_lines
from mnet_jax.tasks.classification.task import balanced_weights


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 200).astype(np.int32)
    logits = rng.normal(size=(200, 6)) + 2 * np.eye(6)[labels]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Predictions(labels, shares.astype(np.float32))


def test_confusion_and_scores_are_scikit_learns(predictions):
    labels, predicted = predictions.labels, predictions.predicted
    confusion = predictions.confusion()
    np.testing.assert_array_equal(confusion, confusion_matrix(labels, predicted, labels=range(6)))
    scores = class_scores(confusion, tuple("abcdef"))
    expected = precision_recall_fscore_support(labels, predicted, labels=range(6), zero_division=np.nan)
    for name, column in zip(("precision", "recall", "f1", "images"), expected, strict=True):
        ours = [getattr(row, name) for row in scores]
        np.testing.assert_allclose([np.nan if x is None else x for x in ours], column, equal_nan=True)
    assert scores[5].recall is None  # no image of this class


def test_worst_mistakes_come_first(predictions):
    places = predictions.worst(10)
    sure = predictions.probabilities[places].max(1)
    assert (predictions.predicted[places] != predictions.labels[places]).all()
    assert (np.diff(sure) <= 0).all()
    wrong = predictions.predicted != predictions.labels
    assert sure[-1] >= np.sort(predictions.probabilities.max(1)[wrong])[-10]


def test_table_of_many_classes_shows_the_weakest():
    confusion = np.diag(np.arange(30, 60))
    confusion[3, 4] = 99
    lines = table_lines(class_scores(confusion, tuple(f"class {i}" for i in range(30))))
    assert lines[1].startswith("class 3")
    assert lines[-1] == "(20 of 30 classes, those with the lowest F1)"


def test_balanced_weights_are_scikit_learns():
    labels = np.array([0] * 50 + [1] * 5 + [3] * 20)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels) * 3 / 4  # of four classes
    np.testing.assert_allclose(np.array(balanced_weights(labels, 4))[[0, 1, 3]], expected)
    assert balanced_weights(labels, 4)[2] == 0.0


def test_neighbours_vote_by_similarity():
    features = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.2, 0.9]], np.float32)
    labels = np.array([0, 0, 1, 1, 1])
    test = np.array([[2.0, 0.1], [0.0, 3.0]], np.float32)
    assert neighbours(features, labels, test, np.array([0, 1]), [1, 3, 50], 2) == [1.0, 1.0, 1.0]
    assert neighbours(features, labels, test, np.array([1, 1]), [1], 2) == [0.5]
