"""What a trained segmenter gets right and wrong on the evaluation split, as files for people.

classes.csv     each class: pixels, IoU, and how much of it is found, and of what is said to be it is right
confusion.csv   pixels of each class (rows) by what is said of them (columns)
images.csv      each image: how many of its pixels are right
worst.png       the images with the most wrong pixels: photo, truth and prediction side by side
"""

import os
from collections.abc import Iterable, Mapping

import jax
import numpy as np
from etils import epath

from mnet_jax.data import fixed_views
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.crop import Crop
from mnet_jax.data.dataset import Dataset
from mnet_jax.files import write_csv, write_whole
from mnet_jax.tasks.segmentation.confusion import picture_classes
from mnet_jax.tasks.segmentation.meter import Figures, figures
from mnet_jax.tasks.segmentation.pictures import Example, draw_examples
from mnet_jax.tasks.task import Task

NUM_WORST = 8  # images on the sheet
_LONG_SIDE = 320  # pixels of a picture on the sheet


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
    """Writes the files into a run's directory and returns the lines of the log: mIoU and the table of classes."""
    measure = jax.jit(lambda outputs, batch: task.measure(outputs, batch).rows)
    by_index: dict[int, np.ndarray] = {}
    worst: list[tuple[float, int, Example]] = []  # share of right pixels, index, maps
    for found, batch in outputs:
        rows = jax.tree.map(np.asarray, measure(found, dict(batch)))
        for place, (index, counts) in enumerate(zip(rows["index"].tolist(), rows["confusion"], strict=True)):
            by_index[index] = counts
            share = float(np.trace(counts) / max(1, counts.sum()))
            if len(worst) < NUM_WORST or share < worst[-1][0]:
                crop = Crop.from_rows(batch["crop"][place], task.image_size)
                example = _example(task, found["classes"][place], batch["map_whole"][place], crop)
                worst = sorted([*worst, (share, index, example)], key=lambda one: one[:2])[:NUM_WORST]
    info, split = dataset.info, dataset.info.eval_split
    files = dataset.file_names(split) or [f"{split} {number}" for number in range(info.num_eval)]
    total = np.sum([counts.astype(np.int64) for counts in by_index.values()], axis=0)
    found, root = figures(total), epath.Path(workdir)

    table = class_rows(total, found, info)
    write_csv(root / "classes.csv", ("class", "pixels", "iou", "found", "right"), table)
    write_csv(
        root / "confusion.csv",
        ("class", *info.class_names),
        [(name, *row) for name, row in zip(info.class_names, total.tolist(), strict=True)],
    )
    listed = [
        (files[index], counts.sum(), f"{np.trace(counts) / max(1, counts.sum()):.4f}", _share(figures(counts).miou))
        for index, counts in sorted(by_index.items())
    ]
    write_csv(root / "images.csv", ("file", "pixels", "right", "miou"), listed)
    photos = fixed_views.pictures(dataset, split, [index for _, index, _ in worst])
    examples = [
        Example(_resized(pixels, one.truth.shape), one.truth, one.said, f"{100 * share:.1f} % right", files[index])
        for (share, index, one), pixels in zip(worst, photos, strict=True)
    ]
    run = os.path.basename(os.path.abspath(workdir))
    title = f"{run}, step {step}: the {len(examples)} images with the most wrong pixels"
    write_whole(root / "worst.png", draw_examples(examples, info.class_names, title=title))
    return [
        f"Step {step}: mIoU {100 * found.miou:.2f} %, {100 * found.pixel_accuracy:.2f} % of the "
        f"pixels right on {len(by_index):,} pictures",
        *table_lines(table),
        f"Written to {workdir}: classes.csv, confusion.csv, images.csv, worst.png",
    ]


def class_rows(counts: np.ndarray, found: Figures, info: DatasetInfo) -> list[tuple]:
    """Returns (class, pixels, IoU, share of them found, share right of what is said to be it) of each class."""
    columns = zip(info.class_names, counts.sum(1).tolist(), found.iou, found.recall, found.precision, strict=True)
    return [(name, pixels, *map(_share, shares)) for name, pixels, *shares in columns]


def table_lines(rows: list[tuple], most: int = 20) -> list[str]:
    """Returns the table for the log; of more than `most` classes that are there those with the lowest IoU."""
    known = [row for row in rows if row[2]]
    shown = known if len(known) <= most else sorted(known, key=lambda row: float(row[2]))[:most]
    width = min(32, max([len("class"), *(len(row[0]) for row in shown)]))
    percent = lambda share: f"{100 * float(share):.1f} %" if share else "-"  # noqa: E731
    lines = [f"{'class':<{width}}        pixels      IoU    found    right"]
    lines += [
        f"{name[:width]:<{width}}  {pixels:>12,}  " + "  ".join(f"{percent(share):>7}" for share in shares)
        for name, pixels, *shares in shown
    ]
    if len(shown) < len(known):
        lines.append(f"({len(shown)} of {len(known)} classes, those with the lowest IoU)")
    return lines


def _share(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""


def _example(task: Task, logits: np.ndarray, truth: np.ndarray, crop: Crop) -> Example:
    """Returns truth and prediction of one picture at the size of the sheet; the photo comes later."""
    height, width = (int(side) for side in crop.picture_size)
    said = picture_classes(logits, crop, align_corners=task.head.align_corners)
    step = max(1, max(height, width) // _LONG_SIDE)
    rows, columns = slice(step // 2, height, step), slice(step // 2, width, step)
    return Example(None, truth[:height, :width][rows, columns].copy(), said[rows, columns].copy(), "", "")


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
