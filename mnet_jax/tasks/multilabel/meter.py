"""What adds up an evaluation: the logits of all images, from which its figures are made at the end."""

from collections.abc import Mapping, Sequence

import numpy as np

from mnet_jax.tasks.multilabel import figures
from mnet_jax.tasks.multilabel.figures import Decisions
from mnet_jax.tasks.task import Meter


class MultiLabelMeter(Meter):
    """Keeps a row of logits and one of labels an image."""

    def __init__(self, class_names: Sequence[str], thresholds: Sequence[float] | None):
        """Takes the classes, and the thresholds from which they are there; None: they are chosen at the end."""
        self._names, self._thresholds = tuple(class_names), thresholds
        self._rows: list[Mapping[str, np.ndarray]] = []

    def add(self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """Keeps the rows `index`, `logits` and `labels`."""
        del sums
        self._rows.append({name: np.asarray(value) for name, value in rows.items()})

    def result(self) -> dict[str, float]:
        """Returns map, f1_macro, f1_micro, loss, of each class ap_NAME and threshold_NAME, and "num_images".

        Means are over the classes that an image has. All of it is a function of the logits, in the order of the images:
        it does not depend on devices and batches.
        """
        count = sum(len(row["index"]) for row in self._rows)
        if not count:
            return {"num_images": 0}
        joined = {name: np.concatenate([row[name] for row in self._rows]) for name in self._rows[0]}
        order = np.argsort(joined["index"], kind="stable")
        logits, truth = joined["logits"][order], joined["labels"][order] > 0
        probabilities = figures.sigmoid(logits)
        precision = figures.average_precision(logits, truth)
        thresholds = self._thresholds
        if thresholds is None:
            thresholds = figures.best_thresholds(probabilities, truth)
        decisions = Decisions.of(probabilities, truth, thresholds)
        there = truth.any(0)
        return {
            "map": figures.mean(precision),
            "f1_macro": figures.mean(np.where(there, decisions.f1, np.nan)),
            "f1_micro": decisions.micro_f1,
            "loss": float(figures.cross_entropy(logits, truth).mean()),
            **{f"ap_{name}": float(value) for name, value in zip(self._names, precision, strict=True)},
            **{f"threshold_{name}": float(value) for name, value in zip(self._names, thresholds, strict=True)},
            "num_images": count,
        }
