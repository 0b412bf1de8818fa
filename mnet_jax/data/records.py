"""Where the encoded examples of one split are, and how tensorflow reads them.

An example is a dict: contents, the encoded image; annotations, {name: parts} (`annotations.Annotation`); and index, its
place in the split. A chunk is n examples in one dict, [n, ...] each. `TFRecords` is read in order; `Table` and
`ArrayRecords` at any place: `gather` takes indices int64 [n] and gives a chunk. Of a folder, a table's contents are
still paths of files.
"""

from __future__ import annotations

import dataclasses
import functools
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
        """Reads all of the split into memory, still encoded."""
        serialized, index = self.read().batch(self.num_examples).get_single_element()
        return Table(**self.parse(tf.gather(serialized, tf.argsort(index))))

    def chunks(self, examples: tf.data.Dataset) -> tf.data.Dataset:
        """Returns parsed chunks of what `read` yields, so large that planning them together costs little each."""

        def parse(serialized: tf.Tensor, index: tf.Tensor) -> Chunk:
            return {**self.parse(serialized), "index": index}

        return examples.batch(chunk_size(self.num_bytes // self.num_examples)).map(graph_function(parse))


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
