"""Average precision, thresholds and F1 of classes that are there or not; NumPy, float64."""

import dataclasses

import numpy as np


def average_precision(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the average precision of each class, float64 [C]: NaN for one that no image has.

    The sum over falling scores of the precision down to there, times the recall that is gained; equal scores come
    together. It is scikit-learn's `average_precision_score`, which is not interpolated, but that a class without an
    image is 0 there.

    Args:
      scores: float [N, C]; only their order matters. NaN comes last.
      truth: bool [N, C].
    """
    return np.array([_average_precision(*column) for column in zip(scores.T, truth.T, strict=True)])


def _average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    if not truth.any():
        return float("nan")
    right, said, _ = _levels(scores, truth)
    gained = np.diff(right, prepend=0.0)
    return float(np.sum(right / said * gained) / right[-1])


def _levels(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, for each distinct score from the largest down, how many are right of how many, and the score."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    return np.cumsum(truth[order], dtype=np.float64)[last], last + 1.0, scores[last]


def precision_at(recalls: np.ndarray, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the highest precision of each class with at least so much recall, float64 [R, C]; NaN as above."""
    columns = []
    for each, there in zip(scores.T, truth.T, strict=True):
        if not there.any():
            columns.append(np.full(len(recalls), np.nan))
            continue
        right, said, _ = _levels(each, there)
        highest = np.maximum.accumulate((right / said)[::-1])[::-1]
        columns.append(highest[np.searchsorted(right / right[-1], recalls)])
    return np.stack(columns, 1)


def best_thresholds(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns for each class the threshold with the best F1, float32 [C]: what reaches it is said to be there.

    It lies in the middle between the lowest score that is said and the next one; of thresholds with the same F1 it is
    the highest. A class that no image has gets one half.

    Args:
      probabilities: float32 [N, C].
      truth: bool [N, C].
    """
    return np.array([_best_threshold(*pair) for pair in zip(probabilities.T, truth.T, strict=True)], np.float32)


def _best_threshold(probabilities: np.ndarray, truth: np.ndarray) -> np.float32:
    if not truth.any():
        return np.float32(0.5)
    right, said, scores = _levels(probabilities, truth)
    best = int(np.argmax(2 * right / (said + right[-1])))
    lowest, below = scores[best], max(scores[best + 1], 0.0) if best + 1 < len(scores) else 0.0
    middle = np.float32((float(lowest) + float(below)) / 2)
    return middle if below < middle <= lowest else np.float32(lowest)


@dataclasses.dataclass(frozen=True)
class Decisions:
    """What comes of saying that classes are there, a number for each."""

    right: np.ndarray  # int64 [C]: images that have the class, and are said to
    said: np.ndarray  # int64 [C]
    there: np.ndarray  # int64 [C]

    @classmethod
    def of(cls, probabilities: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> "Decisions":
        """Returns those of probabilities [N, C] that reach the thresholds [C]."""
        said = probabilities >= np.asarray(thresholds, np.float32)
        return cls((said & truth).sum(0), said.sum(0), truth.sum(0))

    @property
    def precision(self) -> np.ndarray:
        """Of what is said, the share that is so, float64 [C]; NaN where nothing is said."""
        return _shares(self.right, self.said)

    @property
    def recall(self) -> np.ndarray:
        """Of what is there, the share that is said, float64 [C]; NaN where nothing is there."""
        return _shares(self.right, self.there)

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of both, float64 [C]; NaN where nothing is there nor said."""
        return _shares(2 * self.right, self.said + self.there)

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions together; 0 where there is nothing."""
        return float(2 * self.right.sum() / max(1, (self.said + self.there).sum()))


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def mean(values: np.ndarray) -> float:
    """Returns the mean of those that are no NaN; 0 where all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def cross_entropy(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns each image's binary cross entropy, float64 [N], summed over its classes."""
    logits = logits.astype(np.float64)
    return np.logaddexp(0, np.where(truth, -logits, logits)).sum(1)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns the probabilities of logits, float32, rounded once."""
    logits = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(logits))
    return (np.where(logits >= 0, 1.0, small) / (1 + small)).astype(np.float32)
