"""Where the encoded examples of one split are, and how tensorflow reads them.

`TFRecords` is read in order; `Table` and `ArrayRecords` at any place: `gather` takes indices int64 [n] and gives
(encoded images string [n], labels int64 [n]). Of a folder, the images are still paths of files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ml_collections
import numpy as np

from mnet_jax.data import catalog
from mnet_jax.data.host import graph_function, tf

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


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

    def part(self, start: int, stop: int) -> TFRecords:
        """The examples [start, stop) of the split; their indices stay those of the whole split."""
        shards = []
        for shard in self.shards:
            low, high = max(start, shard.first), min(stop, shard.first + shard.take)
            if low < high:
                shards.append(Shard(shard.path, shard.skip + low - shard.first, high - low, low))
        count = sum(shard.take for shard in shards)
        return TFRecords(tuple(shards), count, self.num_bytes * count // self.num_examples)

    def read(self, order: tf.Tensor | None = None) -> tf.data.Dataset:
        """Yields (serialized example, index int64) of several shards in turn, which come in this `order`."""
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
        return Table(*parse(tf.gather(serialized, tf.argsort(index))))


@dataclasses.dataclass(frozen=True)
class Table:
    """Examples in memory: encoded images, or the paths of image files."""

    sources: tf.Tensor  # string [N]
    labels: tf.Tensor  # int64 [N]
    are_paths: bool = False

    @property
    def num_examples(self) -> int:
        """Examples in the split."""
        return len(self.labels)

    def mean_bytes(self) -> int:
        """Mean size of an encoded image, in bytes."""
        return int(tf.reduce_mean(tf.cast(tf.strings.length(self.sources), tf.float32)))

    def gather(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(encoded images or paths, labels)."""
        return tf.gather(self.sources, index), tf.gather(self.labels, index)


@dataclasses.dataclass(frozen=True)
class ArrayRecords:
    """A split in ArrayRecord files, which can be read at any place."""

    source: Sequence[bytes]

    @property
    def num_examples(self) -> int:
        """Examples in the split."""
        return len(self.source)

    def gather(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(encoded images, labels)."""

        def read(index: np.ndarray) -> np.ndarray:
            return np.array(self.source.__getitems__(index.tolist()), object)

        serialized = tf.numpy_function(read, [index], tf.string, stateful=False)
        return parse(tf.ensure_shape(serialized, [None]))


RandomAccess = Table | ArrayRecords


def parse(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Serialized TFDS examples, string [n] -> (encoded images, string [n]; labels, int64 [n])."""
    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    example = tf.io.parse_example(serialized, features)
    return example["image"], example["label"]


def open_split(data: ml_collections.ConfigDict, split: str) -> TFRecords | RandomAccess:
    """A split, or a TFDS slice of one, of the data set that `config.data` names. Raises ValueError if there is none."""
    catalog.count(data, split)
    if data.name == "folder":
        files = catalog.listing(data).splits[split]
        labels = tf.constant([file.label for file in files], tf.int64)
        return Table(tf.constant([file.path for file in files]), labels, are_paths=True)
    return _open_tfds(catalog.open_builder(data), split)


def _open_tfds(builder: tfds.core.DatasetBuilder, split: str) -> TFRecords | ArrayRecords:
    import tensorflow_datasets as tfds

    if builder.info.file_format.value == "array_record":
        return ArrayRecords(builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES))
    shards, first = [], 0
    for file in builder.info.splits[split].file_instructions:
        shards.append(Shard(str(file.filename), file.skip, file.take, first))
        first += file.take
    splits = builder.info.splits.values()
    mean_bytes = sum(info.num_bytes for info in splits) / max(sum(info.num_examples for info in splits), 1)
    return TFRecords(tuple(shards), first, int(mean_bytes * first))
