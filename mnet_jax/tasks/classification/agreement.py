"""How far an exported classifier's scores are from its network's."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mnet_jax.tasks.output import Comparison


class ScoreComparison(Comparison):
    """Of scores [N, classes], logits or probabilities: how often the largest is the same, and how far they differ."""

    def __init__(self, output: str):
        self._output = output
        self._agree = self._labelled = 0
        self._right = np.zeros(2, np.int64)
        self._max_error = self._sum_error = self._max_score = 0.0

    def add(self, expected: np.ndarray, found: np.ndarray, batch: Mapping[str, np.ndarray]) -> None:
        """Adds scores; with `label` int32 [N] in the batch also whether they are right."""
        ours, theirs, labels = expected.argmax(1), found.argmax(1), batch.get("label")
        self.num_images += len(expected)
        self._agree += int((ours == theirs).sum())
        if labels is not None:
            self._labelled += len(labels)
            self._right += ((ours == labels).sum(), (theirs == labels).sum())
        error = np.abs(found.astype(np.float64) - expected)
        self._max_error = max(self._max_error, float(error.max()))
        self._sum_error += float(error.mean(1).sum())
        self._max_score = max(self._max_score, float(np.abs(expected).max()))

    def result(self) -> dict[str, Any]:
        """Returns shares in 0..1, and errors in the scores' own unit, `relative` to the largest score."""
        result: dict[str, Any] = {"num_images": self.num_images, "agreement": self._agree / self.num_images}
        if self._labelled:
            result["top1_model"], result["top1_file"] = (self._right / self._labelled).tolist()
        return result | {
            "scores": self._output,
            "max_error": self._max_error,
            "mean_error": self._sum_error / self.num_images,
            "max_relative_error": self._max_error / self._max_score,
        }

    def lines(self) -> list[str]:
        """Returns agreement, accuracy where it is known, and errors."""
        result = self.result()
        lines = [f"agreement  {100 * result['agreement']:.2f} % of the images have the same top-1"]
        if self._labelled:
            lines.append(f"top-1      {100 * result['top1_file']:.2f} % file, {100 * result['top1_model']:.2f} % model")
        lines.append(
            f"error      max {result['max_error']:.3g}, mean {result['mean_error']:.3g} of {result['scores']} "
            f"({result['max_relative_error']:.1e} of the largest)"
        )
        return lines
