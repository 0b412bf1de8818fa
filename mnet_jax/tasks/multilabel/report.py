"""What a trained model says of the evaluation split, as files for people.

classes.csv            each class: images, average precision, threshold, and how right is what is said from it on
predictions.csv        each image: the classes that it has, those that are said, and the score of each that is either
precision_recall.png   precision over recall of each class
mistakes.png           the mistakes of which the model was most sure: classes that it says and misses
"""

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from etils import epath

from mnet_jax.data import fixed_views
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.dataset import Dataset
from mnet_jax.files import write_csv, write_whole
from mnet_jax.tasks.classification.mistakes import Mistake, draw_mistakes
from mnet_jax.tasks.multilabel import figures
from mnet_jax.tasks.multilabel.figures import Decisions
from mnet_jax.tasks.precision_recall import draw_precision
from mnet_jax.tasks.task import Task

NUM_MISTAKES = 24  # pictures on the sheet


def refusal(task: Task, info: DatasetInfo) -> str | None:
    """Returns why there can be no report; there always can be."""
    del task, info
    return None


def report(
    task: Task,
    outputs: Iterable[tuple[np.ndarray, Mapping[str, np.ndarray]]],
    dataset: Dataset,
    workdir: str,
    *,
    step: int,
) -> list[str]:
    """Writes the files into a run's directory and returns the lines of the log: mAP, F1 and the table of classes."""
    rows = [(np.asarray(logits, np.float32), batch["labels"]) for logits, batch in outputs]
    logits, truth = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    truth, probabilities = truth > 0, figures.sigmoid(logits)
    info, split = dataset.info, dataset.info.eval_split
    thresholds = np.asarray(task.class_thresholds, np.float32)
    if task.threshold is None:
        thresholds = figures.best_thresholds(probabilities, truth)
    precision, decisions = figures.average_precision(logits, truth), Decisions.of(probabilities, truth, thresholds)
    names = info.class_names
    files = dataset.file_names(split) or [f"{split} {number}" for number in range(len(truth))]
    title = f"{os.path.basename(os.path.abspath(workdir))}, step {step}"
    root = epath.Path(workdir)

    table = class_rows(names, precision, thresholds, decisions)
    header = ("class", "images", "ap", "threshold", "said", "right", "precision", "recall", "f1")
    write_csv(root / "classes.csv", header, table)
    said = probabilities >= thresholds
    lines = [
        (
            file,
            *(";".join(names[i] for i in np.flatnonzero(row)) for row in (there, found)),
            _scores(names, p, there | found),
        )
        for file, there, found, p in zip(files, truth, said, probabilities, strict=True)
    ]
    write_csv(root / "predictions.csv", ("file", "classes", "said", "scores"), lines)
    curves = figures.precision_at(np.linspace(0, 1, 101), logits, truth)
    picture = draw_precision(curves, names, title=title, legend="AP", figures=precision)
    write_whole(root / "precision_recall.png", picture)
    places = worst(probabilities, truth, thresholds, NUM_MISTAKES)
    photos = fixed_views.pictures(dataset, split, [image for image, _ in places]) if places else ()
    mistakes = [
        _mistake(
            pixels, names, truth[image], number, bool(said[image, number]), probabilities[image, number], files[image]
        )
        for (image, number), pixels in zip(places, photos, strict=True)
    ]
    wrong = int((said != truth).sum())
    sheet = draw_mistakes(mistakes, num_wrong=wrong, num_images=truth.size, title=f"{title}, each class of each image")
    write_whole(root / "mistakes.png", sheet)
    mean, macro = (100 * figures.mean(values) for values in (precision, np.where(truth.any(0), decisions.f1, np.nan)))
    return [
        f"Step {step}: mAP {mean:.2f} %, F1 of the classes {macro:.2f} %, of all that is said "
        f"{100 * decisions.micro_f1:.2f} %, on {len(truth):,} images",
        *table_lines(table),
        f"Written to {workdir}: precision_recall.png, mistakes.png, predictions.csv, classes.csv",
    ]


def class_rows(
    names: Sequence[str], precision: np.ndarray, thresholds: np.ndarray, decisions: Decisions
) -> list[tuple[str | int, ...]]:
    """Returns (class, images, AP, threshold, said, right, precision, recall, F1) of each class, shares as texts."""
    columns = (precision, thresholds, decisions.precision, decisions.recall, decisions.f1)
    shares = zip(*(map(_share, column) for column in columns), strict=True)
    counts = zip(decisions.there.tolist(), decisions.said.tolist(), decisions.right.tolist(), strict=True)
    return [
        (name, there, ap, threshold, said, right, *rest)
        for name, (there, said, right), (ap, threshold, *rest) in zip(names, counts, shares, strict=True)
    ]


def table_lines(rows: list[tuple[str | int, ...]], most: int = 20) -> list[str]:
    """Returns the table for the log; of more than `most` classes that are there those with the lowest AP."""
    known = [row for row in rows if row[1] or row[4]]
    shown = known if len(known) <= most else sorted(known, key=lambda row: float(row[2] or 0))[:most]
    width = min(32, max([len("class"), *(len(row[0]) for row in shown)]))
    lines = [f"{'class':<{width}}  images       AP  threshold  precision   recall"]
    lines += [
        f"{name[:width]:<{width}}  {images:>6}  {_percent(ap):>7}  {_percent(threshold):>9}  {_percent(precision):>9}  "
        f"{_percent(recall):>7}"
        for name, images, ap, threshold, _, _, precision, recall, _ in shown
    ]
    if len(shown) < len(known):
        lines.append(f"({len(shown)} of {len(known)} classes, those with the lowest AP)")
    return lines


def worst(probabilities: np.ndarray, truth: np.ndarray, thresholds: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Returns (image, class) of at most `count` mistakes, one an image, those first that are furthest from right.

    How far is the share of the way from the threshold to 1 of what is said and is not so, to 0 of what is missed.
    """
    said = probabilities >= thresholds
    above = (probabilities - thresholds) / np.maximum(1 - thresholds, 1e-6)
    below = (thresholds - probabilities) / np.maximum(thresholds, 1e-6)
    far = np.where(said != truth, np.where(said, above, below), -1.0)
    number = far.argmax(1)
    far = far[np.arange(len(far)), number]
    order = np.argsort(-far, kind="stable")[:count]
    return [(int(image), int(number[image])) for image in order if far[image] >= 0]


def _mistake(
    pixels: np.ndarray, names: Sequence[str], there: np.ndarray, number: int, said: bool, score: float, file: str
) -> Mistake:
    """Returns one for the sheet: of a class that is missed it tells how sure it was that this is not there."""
    true = ", ".join(names[i] for i in np.flatnonzero(there)) or "none of the classes"
    name, sure = (names[number], score) if said else (f"no {names[number]}", 1 - score)
    return Mistake(pixels, true, name, float(sure), file)


def _scores(names: Sequence[str], probabilities: np.ndarray, shown: np.ndarray) -> str:
    """Returns "ant 0.9731;bee 0.1200", the highest first."""
    order = [i for i in np.argsort(-probabilities, kind="stable") if shown[i]]
    return ";".join(f"{names[i]} {probabilities[i]:.4f}" for i in order)


def _share(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f} %" if share else "-"
