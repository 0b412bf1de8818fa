"""What adds up an evaluation: one confusion matrix over all pixels of all pictures, and the figures that it gives."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mnet_jax.tasks.task import Meter


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a confusion matrix comes to; NaN for what no pixel is about."""

    iou: np.ndarray  # float64 [C]: pixels right of those that are, or are said to be, of a class
    recall: np.ndarray  # float64 [C]: pixels right of those that are of a class
    precision: np.ndarray  # float64 [C]: pixels right of those that are said to be of a class
    miou: float  # mean over the classes that are there or are said to be; the usual figure
    pixel_accuracy: float  # pixels right of all
    class_accuracy: float  # mean of `recall` over the classes that are there


def figures(confusion: np.ndarray) -> Figures:
    """Returns the figures of a matrix [C, C] of pixels by their class (rows) and by what is said (columns)."""
    counts = np.asarray(confusion, np.float64)
    right, true, said = np.diagonal(counts), counts.sum(1), counts.sum(0)
    iou, recall, precision = (_shares(right, of) for of in (true + said - right, true, said))
    return Figures(iou, recall, precision, _mean(iou), float(_shares(right.sum(), counts.sum())), _mean(recall))


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


class SegmentationMeter(Meter):
    """Adds the confusion matrices of pictures, and the loss of their pixels."""

    def __init__(self, class_names: Sequence[str]):
        """Takes the names of the classes."""
        self._names = tuple(class_names)
        self._confusion = np.zeros((len(self._names),) * 2, np.int64)
        self._loss = self._pixels = 0.0
        self._count = 0

    def add(self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """Adds the rows `confusion` and the sums `pixel_loss`, `pixels` and `count`."""
        self._confusion += rows["confusion"].astype(np.int64).sum(0)
        self._loss += float(sums["pixel_loss"])
        self._pixels += float(sums["pixels"])
        self._count += round(float(sums["count"]))

    def result(self) -> dict[str, float]:
        """Returns miou, pixel_accuracy, class_accuracy, loss (mean over pixels), iou_NAME of classes, num_images."""
        if not self._count:
            return {"num_images": 0}
        found = figures(self._confusion)
        return {
            "miou": found.miou,
            "pixel_accuracy": float(np.nan_to_num(found.pixel_accuracy)),
            "class_accuracy": found.class_accuracy,
            "loss": self._loss / max(1.0, self._pixels),
            **{f"iou_{name}": float(value) for name, value in zip(self._names, found.iou, strict=True)},
            "num_images": self._count,
        }
