"""COCO's outlines and runs as masks, pixel by pixel as its own tools make them (pycocotools, maskApi.c).

A mask is counted column by column. Runs are lengths of pixels that are, in turn, outside and inside, the first of them
outside; an outline is turned into the places where that changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_FINER = 5  # an outline is followed on a grid that is so many times finer than the pixels
_FARTHEST = 100_000.0  # pixels; an outline is followed step by step, also where it leaves the picture
_MOST = 1 << 31  # pixels of a run


def decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Returns the mask of one object, bool [height, width]; arguments and errors are those of `parse`."""
    parts = parse(segmentation, height, width)
    if isinstance(parts, np.ndarray):
        inside = np.arange(len(parts)) % 2 == 1
        return np.repeat(inside, parts).reshape(width, height).T
    mask = np.zeros((height, width), bool)
    for corners in parts:
        mask |= _from_polygon(corners, height, width)
    return mask


def parse(segmentation: Any, height: int, width: int) -> np.ndarray | list[np.ndarray]:
    """Returns the runs of one object, int64 [n], or the corners of its polygons, float64 [k, 2] each, x and y.

    Args:
      segmentation: polygons [[x, y, x, y, ...], ...], or {"counts": runs or their text, "size": [height, width]}.
      height: of the picture.
      width: of the picture.

    Raises:
      ValueError: that says in a few words what is wrong with it.
    """
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if not isinstance(size, list) or size != [height, width]:
            raise ValueError(f"its runs are of size {str(size)[:40]}, the picture is {height} high and {width} wide")
        counts = segmentation.get("counts")
        runs = _runs(counts) if isinstance(counts, str | bytes) else _checked(counts)
        if runs.sum() != height * width:
            raise ValueError(f"its runs are of {runs.sum()} pixels, the picture has {height * width}")
        return runs
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("no polygons and no runs")
    return [_checked_polygon(polygon) for polygon in segmentation]


def packed(segmentation: Any) -> Any:
    """Returns the same segmentation in a fifth of the memory: polygons as arrays, where they are numbers."""
    if isinstance(segmentation, list):
        try:
            return [np.array(polygon, np.float64) for polygon in segmentation]
        except (TypeError, ValueError):
            pass
    return segmentation


def _checked(counts: Any) -> np.ndarray:
    if not isinstance(counts, list) or not all(type(count) is int and 0 <= count < _MOST for count in counts):
        raise ValueError("its runs are no whole numbers")
    return np.array(counts, np.int64)


def _checked_polygon(polygon: Any) -> np.ndarray:
    """Returns corners float64 [k, 2], x and y."""
    try:
        corners = np.array(polygon, np.float64)
    except (TypeError, ValueError):
        corners = np.zeros(0)
    if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2 or not np.isfinite(corners).all():
        raise ValueError("a polygon is not x and y of three corners or more")
    if np.abs(corners).max() > _FARTHEST:
        raise ValueError("a polygon has a corner far outside of every picture")
    return corners.reshape(-1, 2)


def _runs(text: str | bytes) -> np.ndarray:
    """Returns the runs that a text holds: six bits a letter from "0" on, five of them a number's, the lowest first.

    From the fourth on it is the difference to the run two before.
    """
    letters = (text.encode("ascii", "replace") if isinstance(text, str) else text) + b"0"
    values, runs, at = [letter - 48 for letter in letters], [], 0
    if any(not 0 <= value < 64 for value in values):
        raise ValueError("its runs are no text of COCO's")
    while at < len(values) - 1:
        value = shift = 0
        more = True
        while more:
            letter = values[at]
            value |= (letter & 31) << shift
            at, shift, more = at + 1, shift + 5, bool(letter & 32)
            if at >= len(values) and more:
                raise ValueError("its runs break off")
        value -= (1 << shift) if letter & 16 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    if not all(0 <= run < _MOST for run in runs):
        raise ValueError("it has a run below 0, or longer than any picture")
    return np.array(runs, np.int64)


def _from_polygon(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the inside of one outline."""
    points = np.trunc(_FINER * corners + 0.5).astype(np.int64)
    ends = np.roll(points, -1, axis=0)
    xs, ys = zip(*(_line(start, end) for start, end in zip(points, ends, strict=True)), strict=True)
    x, y = np.concatenate(xs), np.concatenate(ys)
    # Where the outline passes from one fine column to the next, at the middle of a column of pixels.
    moved = np.flatnonzero(x[1:] != x[:-1]) + 1
    column = (np.minimum(x[moved], x[moved - 1]) + 0.5) / _FINER - 0.5
    row = np.ceil(np.clip((np.minimum(y[moved], y[moved - 1]) + 0.5) / _FINER - 0.5, 0, height))
    taken = (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    places = column[taken].astype(np.int64) * height + row[taken].astype(np.int64)
    changes = np.bincount(places, minlength=height * width + 1)[: height * width]
    return (np.cumsum(changes) % 2 == 1).reshape(width, height).T


def _line(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the points of a line on the fine grid, both ends included: x and y, one step at a time on the longer."""
    (dx, dy) = np.abs(end - start)
    along = 0 if dx >= dy else 1
    turned = start[along] > end[along]
    low, high = (end, start) if turned else (start, end)
    steps = np.arange(max(dx, dy) + 1)
    steps = steps[::-1] if turned else steps
    slope = float(high[1 - along] - low[1 - along]) / max(dx, dy) if max(dx, dy) else 0.0
    across = np.trunc(low[1 - along] + slope * steps + 0.5).astype(np.int64)
    straight = steps + low[along]
    return (straight, across) if along == 0 else (across, straight)
