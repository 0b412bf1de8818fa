"""Where the encoded examples of one split are, and how tensorflow reads them.

An example is a dict: contents, the encoded image; annotations, {name: parts} (`annotations.Annotation`); and index, its
place in the split. A chunk is n examples in one dict, [n, ...] each. `TFRecords` is read in order; `Table` and
`ArrayRecords` at any place: `gather` takes indices int64 [n] and gives a chunk. Of a folder, a table's contents are
still paths of files.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mnet_jax.data.tensorflow_setup import graph_function, tf

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

Chunk = dict[str, Any]
Parse = Callable[[tf.Tensor], Chunk]  # serialized examples, string [n] -> contents and annotations


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part of a TFRecord file: records `skip` .. `skip + take`; the first of them is example `first` of the split."""

    path: str
    skip: int
    take: int
    first: int


@dataclasses.dataclass(frozen=True)
class TFRecords:
    """A split in TFRecord files."""

    shards: tuple[Shard, ...]
    num_examples: int
    num_bytes: int
    parse: Parse

    def part(self, start: int, stop: int) -> TFRecords:
        """Returns the examples [start, stop) of the split; their indices stay those of the whole split."""
        shards = []
        for shard in self.shards:
            low, high = max(start, shard.first), min(stop, shard.first + shard.take)
            if low < high:
                shards.append(Shard(shard.path, shard.skip + low - shard.first, high - low, low))
        count = sum(shard.take for shard in shards)
        return TFRecords(tuple(shards), count, self.num_bytes * count // self.num_examples, self.parse)

    def read(self, order: tf.Tensor | None = None) -> tf.data.Dataset:
        """Returns (serialized example, index int64) one by one, of several shards in turn, shards in this `order`."""
        paths = tf.constant([shard.path for shard in self.shards])
        numbers = tf.constant([[s.skip, s.take, s.first] for s in self.shards], tf.int64)

        def records(i: tf.Tensor) -> tf.data.Dataset:
            skip, take, first = tf.unstack(numbers[i])
            # 8 MiB at a time: a remote file (gs://) is read in few requests. The range ends the zip where the shard
            # ends: `take` with a tensor crashes here in TensorFlow 2.21 (segmentation fault as the iterator is made).
            file = tf.data.TFRecordDataset(paths[i], buffer_size=8 << 20).skip(skip)
            # What a file that is cut short lacks comes as empty records, which `_present` finds.
            file = file.concatenate(tf.data.Dataset.from_tensors("").repeat())
            return tf.data.Dataset.zip(file, tf.data.Dataset.range(first, first + take))

        # 16 files at once, 16 records of each in turn: TFDS's own defaults
        order = tf.range(len(self.shards)) if order is None else order
        return tf.data.Dataset.from_tensor_slices(order).interleave(
            graph_function(records),
            cycle_length=16,
            block_length=16,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def load(self) -> Table:
        """Reads all of the split into memory, still encoded.

        Raises:
          ValueError: that names the file, if one is missing, damaged or cut short, or a record lacks an annotation.
        """
        try:
            serialized, index = self.read().batch(self.num_examples).get_single_element()
            serialized = tf.gather(_present(serialized), tf.argsort(index))
            return Table(**self.parse(serialized))
        except tf.errors.OpError as error:
            raise ValueError(f"{self.fault() or said(error)}. Prepare the data set again") from error

    def fault(self, seconds: float = 120.0) -> str | None:
        """Returns what is wrong with the first file that cannot be read as it should be; None if none was found.

        Reads the files one after the other, for so many seconds at most.
        """
        start = time.monotonic()
        for shard in self.shards:
            found = self._shard_fault(shard)
            if found is not None:
                return found
            if time.monotonic() - start > seconds:
                break
        return None

    def _shard_fault(self, shard: Shard) -> str | None:
        count = 0
        try:
            for record in tf.data.TFRecordDataset(shard.path).skip(shard.skip).take(shard.take):
                try:
                    self.parse(record[None])
                except tf.errors.OpError as error:
                    key = re.search(r"[Kk]ey: ([^,.\s]+)|Feature: ([^\s(]+)", error.message)
                    lacks = f"lacks {key[1] or key[2]!r}" if key else "cannot be read"
                    return f"{shard.path}: record {shard.skip + count} {lacks}"
                count += 1
        except tf.errors.NotFoundError:
            return f"{shard.path} is missing"
        except tf.errors.OpError as error:
            return f"{shard.path} is damaged after record {shard.skip + count} ({said(error)})"
        if count < shard.take:
            return f"{shard.path} is cut short: it has {shard.skip + count:,} records of {shard.skip + shard.take:,}"
        return None

    def place(self, index: int) -> str:
        """Returns where an example of the whole split is, in words."""
        shard = next(shard for shard in self.shards if shard.first <= index < shard.first + shard.take)
        return f"record {shard.skip + index - shard.first} of {shard.path}"

    def chunks(self, examples: tf.data.Dataset) -> tf.data.Dataset:
        """Returns parsed chunks of what `read` yields, so large that planning them together costs little each."""

        def parse(serialized: tf.Tensor, index: tf.Tensor) -> Chunk:
            return {**self.parse(_present(serialized)), "index": index}

        return examples.batch(chunk_size(self.num_bytes // self.num_examples)).map(graph_function(parse))


def said(error: tf.errors.OpError) -> str:
    """Returns the first line of what tensorflow says, without the names of its operations."""
    line = (error.message.splitlines() or [type(error).__name__])[0]
    return re.sub(r"\{\{.*?\}\} *| *\[Op:.*", "", line)


def _present(serialized: tf.Tensor) -> tf.Tensor:
    """Returns records, string [n], all of which were there: an empty one is an error, which `fault` explains."""
    there = tf.reduce_all(tf.strings.length(serialized) > 0)
    with tf.control_dependencies([tf.debugging.Assert(there, ["a file is cut short"])]):
        return tf.identity(serialized)


@dataclasses.dataclass(frozen=True)
class Table:
    """Examples in memory: encoded images, or the paths of image files.

    Of files annotations come padded with zeros to the longest of the split: they are batched again once read, and of
    different lengths could not be.
    """

    contents: tf.Tensor  # string [N]
    annotations: dict[str, dict[str, tf.Tensor]]  # [N, ...], ragged where lengths differ
    are_paths: bool = False

    @property
    def num_examples(self) -> int:
        """How many examples the split has."""
        return len(self.contents)

    def mean_bytes(self) -> int:
        """Returns the mean size of an encoded image, in bytes."""
        return int(tf.reduce_mean(tf.cast(tf.strings.length(self.contents), tf.float32)))

    def gather(self, index: tf.Tensor) -> Chunk:
        """Returns the examples at these places, int64 [n]; contents may be paths."""
        found = {"contents": self.contents, "annotations": self._dense if self.are_paths else self.annotations}
        return {**tf.nest.map_structure(lambda values: tf.gather(values, index), found), "index": index}

    @functools.cached_property
    def _dense(self) -> dict[str, dict[str, tf.Tensor]]:
        with tf.init_scope():  # once, not in a graph that is being traced
            padded = [
                {part: v.to_tensor() if isinstance(v, tf.RaggedTensor) else v for part, v in parts.items()}
                for parts in self.annotations.values()
            ]
        return dict(zip(self.annotations, padded, strict=True))


@dataclasses.dataclass(frozen=True)
class ArrayRecords:
    """A split in ArrayRecord files, which can be read at any place."""

    source: Sequence[bytes]
    parse: Parse

    @property
    def num_examples(self) -> int:
        """How many examples the split has."""
        return len(self.source)

    def gather(self, index: tf.Tensor) -> Chunk:
        """Returns the examples at these places, int64 [n]."""

        def read(index: np.ndarray) -> np.ndarray:
            return np.array(self.source.__getitems__(index.tolist()), object)

        serialized = tf.numpy_function(read, [index], tf.string, stateful=False)
        return {**self.parse(tf.ensure_shape(serialized, [None])), "index": index}


RandomAccess = Table | ArrayRecords
Split = TFRecords | RandomAccess

MOST_AT_ONCE = 64  # examples that are looked up and planned together


def chunk_size(mean_bytes: int) -> int:
    """Returns how many examples to plan together: so many that it costs little each, and a few MiB at most."""
    return max(1, min(MOST_AT_ONCE, (8 << 20) // max(mean_bytes, 1)))


def open_tfds(builder: tfds.core.DatasetBuilder, split: str, parse: Parse) -> TFRecords | ArrayRecords:
    """Returns a split, or a TFDS slice of one, of a prepared data set."""
    import tensorflow_datasets as tfds

    if builder.info.file_format.value == "array_record":
        return ArrayRecords(
            builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES), parse
        )
    shards, first = [], 0
    for file in builder.info.splits[split].file_instructions:
        shards.append(Shard(str(file.filename), file.skip, file.take, first))
        first += file.take
    splits = builder.info.splits.values()
    mean_bytes = sum(info.num_bytes for info in splits) / max(sum(info.num_examples for info in splits), 1)
    return TFRecords(tuple(shards), first, int(mean_bytes * first), parse)
