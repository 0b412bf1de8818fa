"""How far an exported segmenter's masks are from its network's."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mnet_jax.tasks.output import Comparison


class MaskComparison(Comparison):
    """Of logits [N, h, w, C], or of classes [N, H, W]: how many positions have one class, how far logits differ."""

    def __init__(self, output: str):
        self._output = output
        self._same = self._positions = 0
        self._max_error = self._sum_error = self._largest = 0.0

    def add(self, expected: np.ndarray, found: np.ndarray, batch: Mapping[str, np.ndarray]) -> None:
        """Adds results of images."""
        del batch
        ours, theirs = (x if self._output == "classes" else x.argmax(-1) for x in (expected, found))
        self.num_images += len(expected)
        self._positions += ours.size
        self._same += int((ours == theirs).sum())
        if self._output != "classes":
            error = np.abs(found.astype(np.float64) - expected)
            self._max_error = max(self._max_error, float(error.max()))
            self._sum_error += float(error.mean((1, 2, 3)).sum())
            self._largest = max(self._largest, float(np.abs(expected).max()))

    def result(self) -> dict[str, Any]:
        """Returns the share of positions with the same class, and errors of logits, `relative` to the largest."""
        result: dict[str, Any] = {"num_images": self.num_images, "agreement": self._same / self._positions}
        if self._output != "classes":
            result |= {
                "max_error": self._max_error,
                "mean_error": self._sum_error / self.num_images,
                "max_relative_error": self._max_error / self._largest,
            }
        return result

    def lines(self) -> list[str]:
        """Returns agreement, and errors where there are logits."""
        row = self.result()
        lines = [f"agreement  {100 * row['agreement']:.3f} % of all positions have the same class"]
        if self._output != "classes":
            lines.append(
                f"error      max {row['max_error']:.3g}, mean {row['mean_error']:.3g} of logits "
                f"({row['max_relative_error']:.1e} of the largest)"
            )
        return lines
