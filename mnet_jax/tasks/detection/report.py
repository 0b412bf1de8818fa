"""What a trained detector finds and misses on the evaluation split, as files for people.

detections.csv         each detection with a score of at least 0.05: file, class, score, box, whether it is right
classes.csv            each class: objects, AP, AP50, and how many are found and wrongly claimed at a score of 0.5
precision_recall.png   precision over recall of each class
mistakes.png           the mistakes of which the model was most sure, drawn on the photos
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping

import jax
import numpy as np
from etils import epath

from mnet_jax.data import fixed_views
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.dataset import Dataset
from mnet_jax.files import write_csv, write_whole
from mnet_jax.plotting import BLUE, ORANGE
from mnet_jax.tasks.detection import average_precision, meter
from mnet_jax.tasks.detection.average_precision import Found, Truth
from mnet_jax.tasks.detection.pictures import Box, Mistake, draw_mistakes
from mnet_jax.tasks.precision_recall import draw_precision
from mnet_jax.tasks.task import Task

NUM_MISTAKES = 24  # pictures on the sheet
SURE = 0.5  # the score from which a detection counts as said, in the table
_LISTED = 0.05  # the score from which a detection is in detections.csv
_NEAR = 0.1  # overlap from which a box that is wrong is told as an object found in the wrong place
_LONG_SIDE = 480  # pixels of a picture on the sheet


@dataclasses.dataclass(frozen=True)
class Judged:
    """Detections by the objects of their picture, at an overlap of one half."""

    verdict: np.ndarray  # str [n]: "right", "ignored", "twice", "class", "place" or "nothing"
    object: np.ndarray  # int [n]: the object that it is about, -1 for none
    found_by: np.ndarray  # float [m]: the score of the detection that is right about each object, 0 where it is missed


def refusal(task: Task, info: DatasetInfo) -> str | None:
    """Returns why there can be no report; there always can be."""
    del task, info
    return None


def report(
    task: Task,
    outputs: Iterable[tuple[dict[str, np.ndarray], Mapping[str, np.ndarray]]],
    dataset: Dataset,
    workdir: str,
    *,
    step: int,
) -> list[str]:
    """Writes the files into a run's directory and returns the lines of the log: AP and the table of classes."""
    measure = jax.jit(lambda outputs, batch: task.measure(outputs, batch).rows)
    rows, sizes = [], {}
    for found, batch in outputs:
        rows.append(jax.tree.map(np.asarray, measure(found, dict(batch))))
        sizes |= dict(zip(batch["index"].tolist(), batch["crop"][:, -2:].tolist(), strict=True))
    found, truth = meter.gather(rows)
    info, split = dataset.info, dataset.info.eval_split
    figures = average_precision.coco(found, truth, info.num_classes)
    judged = judge(found, truth)
    files = dataset.file_names(split) or [f"{split} {number}" for number in range(info.num_eval)]
    title = f"{os.path.basename(os.path.abspath(workdir))}, step {step}"
    root = epath.Path(workdir)

    listed = np.flatnonzero(found.scores >= _LISTED)
    header = ("file", "class", "score", "x1", "y1", "x2", "y2", "verdict")
    write_csv(root / "detections.csv", header, [_detection(i, found, judged, info, files) for i in listed])
    table = class_rows(found, truth, judged, figures, info)
    write_csv(root / "classes.csv", ("class", "objects", "ap", "ap50", "found", "wrong"), table)
    about = f"{title}: boxes that overlap by half"
    picture = draw_precision(figures.precision[0], info.class_names, title=about, legend="AP50")
    write_whole(root / "precision_recall.png", picture)
    wrong = np.flatnonzero(~np.isin(judged.verdict, ("right", "ignored")))
    worst = wrong[np.argsort(-found.scores[wrong], kind="stable")][:NUM_MISTAKES]
    photos = fixed_views.pictures(dataset, split, found.image[worst].tolist()) if len(worst) else ()
    mistakes = [
        _mistake(i, pixels, sizes[int(found.image[i])], found, truth, judged, info, files)
        for i, pixels in zip(worst, photos, strict=True)
    ]
    heading = f"{title}: the {len(mistakes)} surest mistakes (orange), and what is there (blue)"
    write_whole(root / "mistakes.png", draw_mistakes(mistakes, heading=heading))
    ap, ap50 = (100 * np.nan_to_num(value) for value in figures.figures[:2])
    return [
        f"Step {step}: AP {ap:.2f} %, AP50 {ap50:.2f} % on {len(sizes):,} pictures",
        *table_lines(table),
        f"Written to {workdir}: precision_recall.png, mistakes.png, detections.csv, classes.csv",
    ]


def judge(found: Found, truth: Truth) -> Judged:
    """Returns what each detection is: the surest first, each takes the object of its class that it overlaps most."""
    verdict, about = np.full(len(found.image), "nothing", object), np.full(len(found.image), -1)
    found_by = np.zeros(len(truth.image))
    for image in np.unique(found.image):
        there = np.flatnonzero(truth.image == image)
        ours = np.flatnonzero(found.image == image)
        for row in ours[np.argsort(-found.scores[ours], kind="stable")]:
            if not len(there):
                continue
            overlaps = average_precision.overlaps(found.boxes[row], truth.boxes[there])
            same = truth.classes[there] == found.classes[row]
            free = same & (found_by[there] == 0) & ~truth.ignore[there]
            for wanted, least, said in (
                (free, 0.5, "right"),
                (same & truth.ignore[there], 0.5, "ignored"),
                (same, 0.5, "twice"),
                (~same, 0.5, "class"),
                (same, _NEAR, "place"),
            ):
                best = np.where(wanted, overlaps, -1).argmax()
                if wanted[best] and overlaps[best] >= least:
                    verdict[row], about[row] = said, there[best]
                    if said == "right":
                        found_by[there[best]] = found.scores[row]
                    break
    return Judged(verdict.astype(str), about, found_by)


def class_rows(
    found: Found, truth: Truth, judged: Judged, figures: average_precision.CocoFigures, info: DatasetInfo
) -> list[tuple]:
    """Returns (class, objects, AP, AP50, found, wrong) of each class; the last two are counts at a score of `SURE`."""
    rows = []
    for number, name in enumerate(info.class_names):
        theirs = (truth.classes == number) & ~truth.ignore
        said = (found.classes == number) & (found.scores >= SURE)
        wrong = said & ~np.isin(judged.verdict, ("right", "ignored"))
        shares = [_share(values[number]) for values in (figures.class_ap, figures.class_ap50)]
        right = judged.found_by[theirs] >= SURE
        rows.append((name, int(theirs.sum()), *shares, int(right.sum()), int(wrong.sum())))
    return rows


def table_lines(rows: list[tuple], most: int = 20) -> list[str]:
    """Returns the table for the log; of more than `most` classes with objects those with the lowest AP."""
    known = [row for row in rows if row[1] or row[5]]
    shown = known if len(known) <= most else sorted(known, key=lambda row: float(row[2] or 0))[:most]
    width = min(32, max([len("class"), *(len(row[0]) for row in shown)]))
    percent = lambda share: f"{100 * float(share):.1f} %" if share else "-"  # noqa: E731
    lines = [f"{'class':<{width}}  objects       AP     AP50  found  wrong   (the last two at a score of {SURE})"]
    lines += [
        f"{name[:width]:<{width}}  {objects:>7}  {percent(ap):>7}  {percent(ap50):>7}  {right:>5}  {wrong:>5}"
        for name, objects, ap, ap50, right, wrong in shown
    ]
    if len(shown) < len(known):
        lines.append(f"({len(shown)} of {len(known)} classes, those with the lowest AP)")
    return lines


def _share(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""


def _detection(i: int, found: Found, judged: Judged, info: DatasetInfo, files: list[str]) -> tuple:
    y1, x1, y2, x2 = (f"{value:.1f}" for value in found.boxes[i])
    name = info.class_names[found.classes[i]]
    return files[found.image[i]], name, f"{found.scores[i]:.4f}", x1, y1, x2, y2, judged.verdict[i]


def _mistake(
    i: int,
    pixels: np.ndarray,
    size: list[int],
    found: Found,
    truth: Truth,
    judged: Judged,
    info: DatasetInfo,
    files: list[str],
) -> Mistake:
    """Returns one mistake with its picture, uint8 [H, W, 3] of the input, in the shape that the photo has."""
    from PIL import Image

    scale = _LONG_SIDE / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    photo = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    about, names = judged.object[i], info.class_names
    name = names[found.classes[i]]
    true = {
        "twice": f"found already: {name}",
        "class": f"is {names[truth.classes[about]]}" if about >= 0 else "",
        "place": "in another place",
        "nothing": "nothing of that there",
    }[judged.verdict[i]]
    return Mistake(
        photo,
        Box(found.boxes[i] * scale, ORANGE),
        [Box(truth.boxes[about] * scale, BLUE)] if about >= 0 else [],
        (f"{name} {100 * found.scores[i]:.0f} %", true),
        files[found.image[i]],
    )
