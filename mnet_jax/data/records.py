"""Where the encoded examples of one split are, and how tensorflow reads them."""

import dataclasses

import ml_collections

from mnet_jax.data.host import tf


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part of a TFRecord file: records `skip` .. `skip + take`; the first of them is example `first` of the split."""

    path: str
    skip: int
    take: int
    first: int


@dataclasses.dataclass(frozen=True)
class TFRecords:
    """A split in TFRecord files: read in order."""

    shards: tuple[Shard, ...]
    num_examples: int
    num_bytes: int

    def part(self, start: int, stop: int) -> "TFRecords":
        """The examples [start, stop) of the split; their indices stay those of the whole split."""
        shards = []
        for shard in self.shards:
            low, high = max(start, shard.first), min(stop, shard.first + shard.take)
            if low < high:
                shards.append(Shard(shard.path, shard.skip + low - shard.first, high - low, low))
        count = sum(shard.take for shard in shards)
        return TFRecords(tuple(shards), count, self.num_bytes * count // max(self.num_examples, 1))

    def read(self, order: tf.Tensor | None = None) -> tf.data.Dataset:
        """Yields (serialized example, index int64), shard after shard or interleaved in the given `order` of shards."""
        paths = tf.constant([shard.path for shard in self.shards])
        numbers = tf.constant([[s.skip, s.take, s.first] for s in self.shards], tf.int64)

        def records(i: tf.Tensor) -> tf.data.Dataset:
            skip, take, first = tf.unstack(numbers[i])
            # 8 MiB at a time: a remote file (gs://) is read in few requests. The range ends the zip where the shard
            # ends: `take` with a tensor crashes here in TensorFlow 2.21 (segmentation fault as the iterator is made).
            file = tf.data.TFRecordDataset(paths[i], buffer_size=8 << 20).skip(skip)
            return tf.data.Dataset.zip(file, tf.data.Dataset.range(first, first + take))

        if order is None:
            return tf.data.Dataset.range(len(self.shards)).flat_map(records)
        return tf.data.Dataset.from_tensor_slices(order).interleave(
            records, cycle_length=16, block_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )


@dataclasses.dataclass(frozen=True)
class Table:
    """Encoded examples in memory: read in any order."""

    encoded: tf.Tensor  # string [N]
    labels: tf.Tensor  # int64 [N]
    num_examples: int

    def gather(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(encoded images, labels) of the examples int64 [n]."""
        return tf.gather(self.encoded, index), tf.gather(self.labels, index)


def parse(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Serialized TFDS examples, string [n] -> (encoded images, string [n]; labels, int64 [n])."""
    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    example = tf.io.parse_example(serialized, features)
    return example["image"], example["label"]


def load_table(records: TFRecords) -> Table:
    """Reads a whole split into memory, still encoded."""
    serialized = records.read().map(lambda record, index: record).batch(records.num_examples)
    encoded, labels = parse(serialized.get_single_element())
    return Table(encoded, labels, records.num_examples)


def open_split(data: ml_collections.ConfigDict, split: str) -> TFRecords:
    """The records of a split of the data set that `config.data` names."""
    from mnet_jax.data import catalog

    builder = catalog.open_builder(data)
    shards, first = [], 0
    for file in builder.info.splits[split].file_instructions:
        shards.append(Shard(str(file.filename), file.skip, file.take, first))
        first += file.take
    return TFRecords(tuple(shards), first, builder.info.splits[split].num_bytes)
