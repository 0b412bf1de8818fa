"""Examples that cannot be used: what is said of them, and what becomes of them. docs/reliability.md has the rules.

In training an example that cannot be decoded is replaced by its neighbour in the batch, and named once; more than
`data.max_unreadable` of them end the run. An evaluation counts every image, so one that cannot be decoded ends it. A
label that no class has ends either, and so does a file that is missing, damaged or cut short.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mnet_jax import files
from mnet_jax.data import batch
from mnet_jax.data.batch import Batch

if TYPE_CHECKING:
    import tensorflow as tf

    from mnet_jax.data.dataset import Dataset

Make = Callable[[int, bool], Iterator[Batch]]  # (batches that were taken already, careful) -> the batches that follow


class UnreadableError(ValueError):
    """An example that cannot be read or decoded."""


def explain(dataset: Dataset, split: str) -> Callable[[str], str]:
    """Returns a function from what tensorflow says of a split's examples to a line that names the file."""

    def explained(said: str) -> str:
        opened = dataset.open_split(split)
        fault = opened.fault() if hasattr(opened, "fault") else None
        what = f"an example of {dataset.info.name} {split!r} cannot be read"
        return f"{what}: {said}" if fault is None else f"{what}: {fault}. Prepare the data set again"

    return explained


def guarded(examples: tf.data.Dataset, row: Callable[[dict[str, Any]], dict[str, tf.Tensor]]) -> tf.data.Dataset:
    """Returns `row` of each example, in order, with `unreadable`, bool []: True where that was an error.

    Everything but the index is zero there. It costs more time an image than a plain map.
    """
    from mnet_jax.data.tensorflow_setup import graph_function, tf

    def one(example: dict[str, Any]) -> tf.data.Dataset:
        given = tf.data.Dataset.from_tensors(example)
        good = given.map(graph_function(lambda example: {**row(example), "unreadable": tf.constant(False)}))
        spec = good.element_spec

        def blank(example: dict[str, Any]) -> dict[str, tf.Tensor]:
            zeros = {name: tf.zeros(field.shape, field.dtype) for name, field in spec.items()}
            return {**zeros, "index": example["index"], "unreadable": tf.constant(True)}

        return good.ignore_errors().concatenate(given.map(graph_function(blank))).take(1)

    return examples.interleave(
        graph_function(one), cycle_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def checked(arrays: Iterator[Batch], make: Make, dataset: Dataset, split: str) -> Iterator[Batch]:
    """Yields batches, after an error those that follow with `unreadable`, and refuses labels that no class has."""
    for found in careful(arrays, make):
        _check_classes(found, dataset, split)
        yield found


def careful(arrays: Iterator[Batch], make: Make) -> Iterator[Batch]:
    """Yields batches, after an error those that follow with `unreadable`."""
    done, again = 0, False
    while True:
        try:
            found = next(arrays)
        except StopIteration:
            return
        except UnreadableError:
            if again:  # nothing that decoding is to blame for
                raise
            again, arrays = True, make(done, True)
            continue
        done += 1
        yield found


def replaced(batches: Iterator[Batch], dataset: Dataset, split: str) -> Iterator[Batch]:
    """Yields training batches, in which a neighbour stands for each example that could not be decoded.

    Raises:
      ValueError: if these are more than `data.max_unreadable`, or a whole batch.
    """
    known, most = set(), dataset.data.max_unreadable
    for found in batches:
        bad = found.pop("unreadable", None)
        if bad is not None and bad.any():
            new = sorted(set(found["index"][bad].tolist()) - known)
            known.update(new)
            if len(known) > most or bad.all():
                raise ValueError(
                    f"{_named(dataset, split, new[0] if new else min(known))} cannot be decoded, nor can "
                    f"{len(known) - 1} others, more than data.max_unreadable={most}: mend the data set, or allow more"
                )
            for index in new:
                files.tell(
                    f"warning: {_named(dataset, split, index)} cannot be decoded: another one takes its place "
                    f"({len(known)} so far, data.max_unreadable={most})"
                )
            good = np.flatnonzero(~bad)
            rows = good[np.searchsorted(good, np.arange(len(bad))) % len(good)]  # itself, or the next good one
            found = {name: value[rows] for name, value in found.items()}
        yield found


_COUNTED = "an evaluation counts every image: mend the data set, or name a split without it in data.eval_split"


def refused(batches: Iterator[Batch], dataset: Dataset, split: str, what: str = _COUNTED) -> Iterator[Batch]:
    """Yields the batches of an evaluation; ValueError that names the first example that could not be decoded.

    Args:
      batches: with `unreadable` where there may be any.
      dataset: whose examples they are.
      split: of them.
      what: why that cannot be, and what to do.
    """
    for found in batches:
        bad = found.pop("unreadable", None)
        if bad is not None and bad.any():
            raise ValueError(f"{_named(dataset, split, int(found['index'][bad][0]))} cannot be decoded, and {what}")
        yield found


def _named(dataset: Dataset, split: str, index: int) -> str:
    """Returns an example in words: its number, and its file where that is known."""
    opened, names = dataset.open_split(split), dataset.file_names(split)
    where = names[index] if names is not None else opened.place(index) if hasattr(opened, "place") else ""
    if names is not None and "://" not in where and not os.path.exists(where):
        where += ", which is gone"
    return f"example {index} of {dataset.info.name} {split!r}" + (f" ({where})" if where else "")


def _check_classes(found: Batch, dataset: Dataset, split: str) -> None:
    classes = dataset.info.num_classes
    readable = ~found.get("unreadable", np.zeros(len(found["index"]), bool))
    for name, annotation in dataset.annotations.items():
        for part in annotation.class_parts:
            values = found[batch.part_name(name, part)]
            wrong = ((values < 0) | (values >= classes)).reshape(len(values), -1) & readable[:, None]
            if classes and wrong.any():
                row = int(np.flatnonzero(wrong.any(1))[0])
                value = values.reshape(len(values), -1)[row][wrong[row]][0]
                raise ValueError(
                    f"{_named(dataset, split, int(found['index'][row]))} has the class {value}, and the set has "
                    f"{classes} classes, 0 to {classes - 1}: mend its labels"
                )
