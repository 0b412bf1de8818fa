"""Average precision: COCO's twelve figures by pycocotools, and those of VOC 2007 and 2010.

Boxes are (y1, x1, y2, x2) in pixels of the pictures, without the "+ 1" of VOC's whole pixels unless said otherwise.
"""

import contextlib
import dataclasses
import io

import numpy as np


@dataclasses.dataclass(frozen=True)
class Found:
    """Detections of a whole split, one after the other."""

    image: np.ndarray  # int [n]: of which picture
    boxes: np.ndarray  # float [n, 4]
    classes: np.ndarray  # int [n]
    scores: np.ndarray  # float [n]


@dataclasses.dataclass(frozen=True)
class Truth:
    """Objects of a whole split, one after the other."""

    image: np.ndarray  # int [m]
    boxes: np.ndarray  # float [m, 4]
    classes: np.ndarray  # int [m]
    ignore: np.ndarray  # bool [m]: COCO's crowds, VOC's difficult ones
    area: np.ndarray  # float [m]: of the object, by which COCO tells small from large


@dataclasses.dataclass(frozen=True)
class CocoFigures:
    """What COCO's evaluation comes to. A figure that has no object to be about is NaN."""

    figures: np.ndarray  # float64 [12]: AP, AP50, AP75, AP small, medium, large, AR 1, 10, 100, small, medium, large
    class_ap: np.ndarray  # float64 [num_classes]
    class_ap50: np.ndarray  # float64 [num_classes]
    precision: np.ndarray  # float64 [10, 101, num_classes]: by IoU .5 to .95 and recall 0 to 1


def coco(found: Found, truth: Truth, num_classes: int) -> CocoFigures:
    """Returns the figures of detections by pycocotools, the reference, on what lies in memory.

    Of detections with one score those that come first count as better, picture by picture.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = np.union1d(found.image, truth.image)
    objects, detections = COCO(), COCO()
    pictures = [{"id": int(image)} for image in images]
    categories = [{"id": number + 1} for number in range(num_classes)]
    corner, size = truth.boxes[:, 1::-1], truth.boxes[:, :1:-1] - truth.boxes[:, 1::-1]
    columns = (truth.image, truth.classes, np.concatenate([corner, size], 1), truth.area, truth.ignore)
    objects.dataset = {
        "images": pictures,
        "categories": categories,
        "annotations": [  # numbers begin with 1: COCOeval takes 0 for "no match"
            {
                "id": number + 1,
                "image_id": image,
                "category_id": kind + 1,
                "bbox": box,
                "area": area,
                "iscrowd": int(ignored),
            }
            for number, (image, kind, box, area, ignored) in enumerate(
                zip(*(column.tolist() for column in columns), strict=True)
            )
        ],
    }
    corner, size = found.boxes[:, 1::-1], found.boxes[:, :1:-1] - found.boxes[:, 1::-1]
    columns = (found.image, found.classes, np.concatenate([corner, size], 1), found.scores)
    detections.dataset = {
        "images": pictures,
        "categories": categories,
        "annotations": [
            {
                "id": number + 1,
                "image_id": image,
                "category_id": kind + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "score": score,
                "iscrowd": 0,
            }
            for number, (image, kind, box, score) in enumerate(
                zip(*(column.tolist() for column in columns), strict=True)
            )
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it talks of its progress
        objects.createIndex()
        detections.createIndex()
        evaluation = COCOeval(objects, detections, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    precision = np.where(precision < 0, np.nan, precision)
    figures = np.where(evaluation.stats < 0, np.nan, evaluation.stats)
    return CocoFigures(figures, precision.mean((0, 1)), precision[0].mean(0), precision)


def voc(found: Found, truth: Truth, num_classes: int, *, year: int, inclusive: bool = False) -> np.ndarray:
    """Returns the average precision of each class by the rules of VOC, float64 [num_classes]; NaN without objects.

    A detection is judged by the object of its class that it overlaps most, the first of equals: right if by 0.5 or
    more and if that object is not taken yet. One that belongs to an object to be ignored does not count.

    Args:
      found: detections.
      truth: objects.
      num_classes: how many.
      year: 2007: the mean of the best precisions from 11 recalls on; from 2010: the area below the curve.
      inclusive: whether boxes end with their last pixel, as VOC's files have it, and not behind it.
    """
    extra = float(inclusive)
    result = np.full(num_classes, np.nan)
    for number in range(num_classes):
        ours, theirs = found.classes == number, truth.classes == number
        hits = _voc_hits(found, truth, ours, theirs, extra)
        total = int((theirs & ~truth.ignore).sum())
        if total:
            recall = np.cumsum(hits[hits >= 0]) / total
            precision = np.cumsum(hits[hits >= 0]) / np.arange(1, len(recall) + 1)
            result[number] = _voc_area(recall, precision, year)
    return result


def _voc_hits(found: Found, truth: Truth, ours: np.ndarray, theirs: np.ndarray, extra: float) -> np.ndarray:
    """Returns for one class's detections by falling score: 1 right, 0 wrong, -1 does not count; int [n]."""
    boxes, image = truth.boxes[theirs], truth.image[theirs]
    ignore, taken = truth.ignore[theirs], np.zeros(len(boxes), bool)
    rows = np.flatnonzero(ours)
    hits = []
    by_image = {int(number): np.flatnonzero(image == number) for number in np.unique(image)}
    for row in rows[np.argsort(-found.scores[rows], kind="stable")]:
        here = by_image.get(int(found.image[row]), np.zeros(0, int))
        shares = overlaps(found.boxes[row], boxes[here], extra)
        best = int(shares.argmax()) if len(here) else -1
        if best < 0 or shares[best] < 0.5:
            hits.append(0)
        elif ignore[here[best]]:
            hits.append(-1)
        else:
            hits.append(int(not taken[here[best]]))
            taken[here[best]] = True
    return np.array(hits, int)


def _voc_area(recall: np.ndarray, precision: np.ndarray, year: int) -> float:
    if year < 2010:
        best = [precision[recall >= point].max(initial=0.0) for point in np.arange(11) / 10]
        return float(np.mean(best))
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))


def overlaps(box: np.ndarray, boxes: np.ndarray, extra: float = 0.0) -> np.ndarray:
    """Returns intersection over union [m] of one box [4] with boxes [m, 4]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = np.prod(np.maximum(high - low + extra, 0), -1)
    union = np.prod(box[2:] - box[:2] + extra) + np.prod(boxes[:, 2:] - boxes[:, :2] + extra, -1) - common
    return common / np.maximum(union, np.finfo(np.float64).tiny)
