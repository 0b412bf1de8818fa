"""What a trained model gets right and wrong on the evaluation split, as files for people.

predictions.csv   each image: true class, predicted class, their probabilities
classes.csv       each class: images, precision, recall, F1
confusion.csv     rows: true class; columns: predicted class; counts
confusion.png     the same as a picture
mistakes.png      the worst mistakes: the pictures of which the model was most sure and wrong
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import scipy.special
from etils import epath

from mnet_jax.data import fixed_views
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.dataset import Dataset
from mnet_jax.files import write_csv, write_whole
from mnet_jax.tasks.classification.confusion import draw_confusion
from mnet_jax.tasks.classification.mistakes import Mistake, draw_mistakes
from mnet_jax.tasks.task import Task

MAX_CLASSES = 200  # a table and a picture of more are for nobody's eyes
NUM_MISTAKES = 24  # pictures on the sheet


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Of every image of a split, in its order."""

    labels: np.ndarray  # int32 [N]
    probabilities: np.ndarray  # float32 [N, num_classes]

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class, int64 [N]."""
        return self.probabilities.argmax(1)

    def confusion(self) -> np.ndarray:
        """Counts int64 [true class, predicted class]."""
        num_classes = self.probabilities.shape[1]
        flat = np.bincount(self.labels * num_classes + self.predicted, minlength=num_classes**2)
        return flat.reshape(num_classes, num_classes)

    def worst(self, count: int) -> np.ndarray:
        """Places of at most `count` mistakes, the most confident first."""
        rows = np.arange(len(self.labels))
        sure = self.probabilities[rows, self.predicted]
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(-sure[wrong], kind="stable")][:count]


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """How well one class is found; a share that has nothing to be a share of is None."""

    name: str
    images: int
    predicted: int
    correct: int

    @property
    def recall(self) -> float | None:
        """Of its images, the share that was recognised."""
        return self.correct / self.images if self.images else None

    @property
    def precision(self) -> float | None:
        """Of what was taken for it, the share that was."""
        return self.correct / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both."""
        whole = self.images + self.predicted
        return 2 * self.correct / whole if whole else None


def refusal(task: Task, info: DatasetInfo) -> str | None:
    """Returns why there can be no report, before anything is predicted; None where there can."""
    del task
    if info.num_classes > MAX_CLASSES:
        return f"No confusion matrix: {info.num_classes} classes, at most {MAX_CLASSES} can be read (eval.report)"
    return None


def collect(outputs: Iterable[tuple[np.ndarray, Mapping[str, np.ndarray]]]) -> Predictions:
    """Returns the predictions of a split from (logits float32 [n, num_classes], batch) of its real examples."""
    labels, probabilities = [], []
    for logits, batch in outputs:
        labels.append(batch["label"])
        probabilities.append(scipy.special.softmax(np.asarray(logits, np.float32), axis=-1))
    return Predictions(np.concatenate(labels), np.concatenate(probabilities))


def report(
    task: Task,
    outputs: Iterable[tuple[np.ndarray, Mapping[str, np.ndarray]]],
    dataset: Dataset,
    workdir: str,
    *,
    step: int,
) -> list[str]:
    """Writes the files into a run's directory and returns the lines of the log: how many are right, and the table."""
    del task
    predictions, split = collect(outputs), dataset.info.eval_split
    scores = write(
        workdir,
        predictions,
        dataset.info,
        files=dataset.file_names(split),
        picture=lambda rows: fixed_views.pictures(dataset, split, rows),
        title=f"{os.path.basename(os.path.abspath(workdir))}, step {step}",
    )
    right = int((predictions.predicted == predictions.labels).sum())
    return [
        f"Step {step}: {right:,} of {len(predictions.labels):,} right",
        *table_lines(scores),
        f"Written to {workdir}: confusion.png, mistakes.png, predictions.csv, classes.csv, confusion.csv",
    ]


def class_scores(confusion: np.ndarray, names: tuple[str, ...]) -> list[ClassScore]:
    """Returns one row a class, in the order of the classes, from counts int [true class, predicted class]."""
    images, predicted, correct = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    return [ClassScore(name, *map(int, row)) for name, *row in zip(names, images, predicted, correct, strict=True)]


def table_lines(scores: list[ClassScore], most: int = 20) -> list[str]:
    """Returns the per-class table for the log; of more than `most` classes the ones with the lowest F1."""
    known = [score for score in scores if score.images or score.predicted]
    shown = known if len(known) <= most else sorted(known, key=lambda score: score.f1 or 0.0)[:most]
    width = min(32, max(len("class"), *(len(score.name) for score in shown)))
    lines = [f"{'class':<{width}}  images  precision   recall"]
    lines += [
        f"{_short(score.name, width):<{width}}  {score.images:>6}  {_percent(score.precision):>9}  "
        f"{_percent(score.recall):>7}"
        for score in shown
    ]
    if len(shown) < len(known):
        lines.append(f"({len(shown)} of {len(known)} classes, those with the lowest F1)")
    return lines


def write(
    directory: str,
    predictions: Predictions,
    info: DatasetInfo,
    *,
    files: list[str] | None,
    picture: Callable[[np.ndarray], Iterable[np.ndarray]],
    title: str,
) -> list[ClassScore]:
    """Writes all files into `directory` (local or gs://) and returns the row of each class.

    Args:
      directory: exists already.
      predictions: of the evaluation split.
      info: names of the classes.
      files: the images' names, or None where they have none.
      picture: places in the split -> their pictures, uint8 [H, W, 3] each.
      title: of the pictures.
    """
    root, names = epath.Path(directory), info.class_names
    confusion = predictions.confusion()
    scores = class_scores(confusion, names)
    guess, rows = predictions.predicted, np.arange(len(predictions.labels))
    sure, true = predictions.probabilities[rows, guess], predictions.probabilities[rows, predictions.labels]
    described = files or [f"{info.eval_split} {row}" for row in rows]

    header = ("file", "class", "predicted", "probability", "probability_of_class")
    lines = [
        (described[i], names[predictions.labels[i]], names[guess[i]], f"{sure[i]:.4f}", f"{true[i]:.4f}") for i in rows
    ]
    write_csv(root / "predictions.csv", header, lines)
    header = ("class", "images", "predicted", "correct", "precision", "recall", "f1")
    lines = [(s.name, s.images, s.predicted, s.correct, *map(_share, (s.precision, s.recall, s.f1))) for s in scores]
    write_csv(root / "classes.csv", header, lines)
    table = [(name, *row) for name, row in zip(names, confusion.tolist(), strict=True)]
    write_csv(root / "confusion.csv", ("true \\ predicted", *names), table)
    write_whole(root / "confusion.png", draw_confusion(confusion, names, title=title))
    worst = predictions.worst(NUM_MISTAKES)
    mistakes = [
        Mistake(pixels, names[predictions.labels[i]], names[guess[i]], float(sure[i]), described[i])
        for i, pixels in zip(worst, picture(worst) if len(worst) else (), strict=True)
    ]
    total = int(confusion.sum() - confusion.trace())
    write_whole(root / "mistakes.png", draw_mistakes(mistakes, num_wrong=total, num_images=len(rows), title=title))
    return scores


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.4f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
