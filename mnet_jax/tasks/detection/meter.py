"""What adds up an evaluation: the rows of all pictures, from which COCO's and VOC's figures are made at its end."""

from collections.abc import Mapping

import numpy as np

from mnet_jax.tasks.detection import average_precision
from mnet_jax.tasks.detection.average_precision import Found, Truth
from mnet_jax.tasks.task import MeanMeter

# COCO's figures in its order: (name, what people read).
COCO = (
    ("ap", "AP"),
    ("ap50", "AP50"),
    ("ap75", "AP75"),
    ("ap_small", "AP small"),
    ("ap_medium", "AP medium"),
    ("ap_large", "AP large"),
    ("ar1", "AR 1"),
    ("ar10", "AR 10"),
    ("ar100", "AR 100"),
    ("ar_small", "AR small"),
    ("ar_medium", "AR medium"),
    ("ar_large", "AR large"),
)
VOC = (("voc2007", "VOC 2007"), ("voc2010", "VOC 2010"))


def gather(rows: list[Mapping[str, np.ndarray]]) -> tuple[Found, Truth]:
    """Returns detections and objects of a split from rows of `Detection.measure`, in the order of its pictures."""
    joined = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    order = np.argsort(joined["index"], kind="stable")
    joined = {name: values[order] for name, values in joined.items()}
    there, real = joined["scores"] > 0, joined["true_mask"]
    image = joined["index"][:, None]
    found = Found(
        np.broadcast_to(image, there.shape)[there],
        joined["boxes"][there].astype(np.float64),
        joined["classes"][there],
        joined["scores"][there].astype(np.float64),
    )
    truth = Truth(
        np.broadcast_to(image, real.shape)[real],
        joined["true_boxes"][real].astype(np.float64),
        joined["true_classes"][real],
        joined["true_ignore"][real],
        joined["true_area"][real].astype(np.float64),
    )
    return found, truth


class DetectionMeter(MeanMeter):
    """Means of the sums; average precision and recall from the rows."""

    def __init__(self, num_classes: int):
        """Takes the number of classes, without the background."""
        super().__init__()
        self._num_classes, self._rows = num_classes, []
        self._loss = self._positive = 0.0

    def add(self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """Adds the sums and keeps the rows."""
        means = {name: value for name, value in sums.items() if name not in ("anchor_loss", "positive")}
        super().add(means, rows)
        self._loss += float(sums["anchor_loss"])
        self._positive += float(sums["positive"])
        self._rows.append({name: np.asarray(value) for name, value in rows.items()})

    def result(self) -> dict[str, float]:
        """Returns found, loss (over all positive anchors), COCO's and VOC's figures, and "num_images".

        A figure without an object to be about is NaN, the three headlines 0.
        """
        means = super().result()
        if not means["num_images"]:
            return means
        found, truth = gather(self._rows)
        figures = average_precision.coco(found, truth, self._num_classes).figures
        named = {name: float(value) for (name, _), value in zip(COCO, figures, strict=True)}
        for name, _ in COCO[:3]:
            named[name] = float(np.nan_to_num(named[name]))
        for year in (2007, 2010):
            by_class = average_precision.voc(found, truth, self._num_classes, year=year)
            known = by_class[~np.isnan(by_class)]
            named[f"voc{year}"] = float(known.mean()) if len(known) else float("nan")
        return {**named, "loss": self._loss / max(1.0, self._positive), **means}
