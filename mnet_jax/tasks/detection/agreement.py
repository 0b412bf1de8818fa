"""How far an exported detector's boxes, classes and scores are from its network's, on the photos themselves."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mnet_jax.data.crop import Crop
from mnet_jax.tasks.detection import coding
from mnet_jax.tasks.output import Comparison

SURE = 0.3  # the score from which detections are compared
SAME_BOX, SAME_SCORE = 1.0, 0.01  # pixels of the photo of each side, and the score, within which two are equal
_PARTNER = 0.5  # overlap from which two detections of one class are of one object


class BoxComparison(Comparison):
    """Of detections: each sure one of the network beside the one of the same class in the file that overlaps it most.

    Sides of boxes are cut off at the photo: TFLite's operation leaves them as they are.
    """

    def __init__(self, image_size: tuple[int, int]):
        self._size = image_size
        self._model = self._file = self._paired = self._equal = self._extra = 0
        self._box_errors: list[float] = []
        self._score_errors: list[float] = []

    def add(
        self, expected: dict[str, np.ndarray], found: dict[str, np.ndarray], batch: Mapping[str, np.ndarray]
    ) -> None:
        """Adds images' detections, as `export.head` has them."""
        crop = Crop.from_rows(np.asarray(batch["crop"]), self._size)
        theirs, ours = (self._in_picture(results["boxes"], crop) for results in (found, expected))
        self.num_images += len(ours)
        for image in range(len(ours)):
            self._add_image(
                *((boxes[image], values["classes"][image], values["scores"][image], int(values["count"][image]))
                  for boxes, values in ((ours, expected), (theirs, found)))
            )  # fmt: skip

    def _in_picture(self, boxes: np.ndarray, crop: Crop) -> np.ndarray:
        """Returns boxes [N, D, 4] in pixels of their photos, from shares of the input's sides."""
        sides = np.array((*self._size, *self._size), np.float32)
        boxes = crop.boxes_to_picture(np.clip(boxes, 0, 1) * sides[None, None])
        return np.clip(boxes, 0, crop.picture_size[:, None, [0, 1, 0, 1]].astype(np.float32))

    def _add_image(self, ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
        (boxes, classes, scores, count), (other_boxes, other_classes, other_scores, other_count) = ours, theirs
        overlap = np.array(coding.iou(boxes, other_boxes))  # of all slots, so that it compiles once
        overlap = overlap[:count, :other_count]
        overlap[classes[:count, None] != other_classes[None, :other_count]] = 0
        taken = np.zeros(other_count, bool)
        for place in range(count):
            sure = scores[place] >= SURE
            self._model += int(sure)
            partner = int(np.argmax(np.where(taken, -1, overlap[place]))) if other_count else 0
            if not other_count or taken[partner] or overlap[place, partner] < _PARTNER:
                continue
            taken[partner] = True
            if sure:
                box_error = float(np.abs(boxes[place] - other_boxes[partner]).max())
                score_error = float(abs(scores[place] - other_scores[partner]))
                self._paired += 1
                self._equal += box_error <= SAME_BOX and score_error <= SAME_SCORE
                self._box_errors.append(box_error)
                self._score_errors.append(score_error)
        sure = other_scores[:other_count] >= SURE
        self._file += int(sure.sum())
        self._extra += int((sure & ~taken).sum())

    def result(self) -> dict[str, Any]:
        """Returns counts, shares in 0..1 of the network's sure detections, and errors of those that have a partner."""
        result: dict[str, Any] = {
            "num_images": self.num_images,
            "detections_model": self._model,
            "detections_file": self._file,
            "agreement": self._equal / self._model if self._model else 1.0,
            "found": self._paired / self._model if self._model else 1.0,
            "only_in_file": self._extra,
        }
        for name, errors in (("box_error", self._box_errors), ("score_error", self._score_errors)):
            result |= {f"max_{name}": max(errors, default=0.0), f"mean_{name}": float(np.mean(errors or [0.0]))}
        return result

    def lines(self) -> list[str]:
        """Returns agreement, what one of them finds alone, and errors."""
        row = self.result()
        return [
            f"agreement  {100 * row['agreement']:.2f} % of the model's {row['detections_model']} detections with a "
            f"score of {SURE} or more are the same to {SAME_BOX:g} px and {SAME_SCORE}",
            f"found      {100 * row['found']:.2f} % overlap one of the same class in the file by {_PARTNER:g}; "
            f"{row['only_in_file']} of the file's {row['detections_file']} have none in the model",
            f"error      box max {row['max_box_error']:.3g} px, mean {row['mean_box_error']:.3g} px; "
            f"score max {row['max_score_error']:.3g}, mean {row['mean_score_error']:.3g}",
        ]
