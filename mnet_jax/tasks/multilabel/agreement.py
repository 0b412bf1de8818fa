"""How far an exported file's scores are from its network's, and how often they say the same."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mnet_jax.tasks.multilabel import figures
from mnet_jax.tasks.output import Comparison


class LabelComparison(Comparison):
    """Of scores [N, C], probabilities or logits: how many decisions are the same, how far scores differ, and mAP."""

    def __init__(self, output: str, thresholds: tuple[float, ...]):
        """Takes what the scores are, and the probability from which each class is there."""
        self._output, self._thresholds = output, np.asarray(thresholds, np.float32)
        self._rows: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []

    def add(self, expected: np.ndarray, found: np.ndarray, batch: Mapping[str, np.ndarray]) -> None:
        """Adds scores; with `labels` uint8 [N, C] in the batch also what is so."""
        self.num_images += len(expected)
        self._rows.append((np.asarray(expected), np.asarray(found), batch.get("labels")))

    def result(self) -> dict[str, Any]:
        """Returns shares in 0..1, and errors in the scores' own unit, `relative` to the largest score."""
        expected, found = (np.concatenate([row[place] for row in self._rows]) for place in (0, 1))
        said = [self._probabilities(scores) >= self._thresholds for scores in (expected, found)]
        result: dict[str, Any] = {"num_images": self.num_images, "agreement": float((said[0] == said[1]).mean())}
        if all(row[2] is not None for row in self._rows):
            truth = np.concatenate([row[2] for row in self._rows]) > 0
            for name, scores in (("map_model", expected), ("map_file", found)):
                result[name] = figures.mean(figures.average_precision(scores, truth))
        error = np.abs(found.astype(np.float64) - expected)
        return result | {
            "scores": self._output,
            "max_error": float(error.max()),
            "mean_error": float(error.mean()),
            "max_relative_error": float(error.max() / np.abs(expected).max()),
        }

    def lines(self) -> list[str]:
        """Returns agreement, mAP where it is known, and errors."""
        row = self.result()
        lines = [f"agreement  {100 * row['agreement']:.3f} % of the classes of all images are said alike"]
        if "map_file" in row:
            lines.append(f"mAP        {100 * row['map_file']:.2f} % file, {100 * row['map_model']:.2f} % model")
        lines.append(
            f"error      max {row['max_error']:.3g}, mean {row['mean_error']:.3g} of {row['scores']} "
            f"({row['max_relative_error']:.1e} of the largest)"
        )
        return lines

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        return figures.sigmoid(scores) if self._output == "logits" else scores
