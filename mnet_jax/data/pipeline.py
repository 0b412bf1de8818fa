"""From examples to batches: order, this process's share, resume at any step, padding and mask.

Every batch is a dict: image uint8 [B, H, W, 3], label int32 [B], mask float32 [B] (1 real, 0 padding) and index int64
[B], the example's place in its split (-1 in padding). B counts this process's images.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import ml_collections
import numpy as np

from mnet_jax.data import order
from mnet_jax.data.catalog import DatasetInfo

if TYPE_CHECKING:
    import tensorflow as tf

    from mnet_jax.data import records

Batch = dict[str, np.ndarray]

_MOST_AT_ONCE = 64  # examples that are looked up and planned together
_FILES_AT_ONCE = 8  # the same where each is a file of its own, with perhaps 10 MB from a camera


def image_shape(data: ml_collections.ConfigDict) -> tuple[int, int]:
    """(height, width) in pixels of `data.image_size`, which is one number or two."""
    size = data.image_size
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def train_batches(
    data: ml_collections.ConfigDict,
    info: DatasetInfo,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """An endless stream of training batches; the batch that follows `start_step` updates comes first.

    The order of an epoch is a function of (seed, epoch), crops and flips of (seed, epoch, index). Batches cross the
    borders of epochs and nothing is dropped. What precedes `start_step` is not read, or, from large sets in TFRecords,
    from the running epoch only and not decoded.

    Large means more than `data.cache_mb` of TFRecords: each process reads its own part of the split, files in random
    order and through a buffer of `data.shuffle_buffer`. From all other sets the processes take their parts of one
    permutation of the whole split.
    """
    from mnet_jax.data import decode
    from mnet_jax.data.host import tf

    size = image_shape(data)
    chunks = train_chunks(data, info, batch_size, seed, start_step, process_index, process_count)

    def plan(contents: tf.Tensor, label: tf.Tensor, index: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, ...]:
        draws, plans = decode.plan_train(contents, key, index, data, size)
        return contents, tf.cast(label, tf.int32), index, draws, *(plans or ())

    def image(
        contents: tf.Tensor, label: tf.Tensor, index: tf.Tensor, draws: tf.Tensor, *plans: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        plan = decode.Plan(*plans) if plans else None
        return decode.planned_train_image(contents, draws, plan, data, size), label, index

    dataset = in_parallel(planned(chunks, plan), image).batch(batch_size, drop_remainder=True)
    return (batch(*arrays) for arrays in run(dataset, info.name))


def train_chunks(
    data: ml_collections.ConfigDict,
    info: DatasetInfo,
    batch_size: int,
    seed: int,
    start_step: int,
    process_index: int,
    process_count: int,
) -> tf.data.Dataset:
    """The examples of `train_batches`, still encoded: (contents string, label, index, key, each int64), all [n].

    n is not the batch size and changes on the way.
    """
    from mnet_jax.data import records
    from mnet_jax.data.host import tf

    split = records.open_split(data, info.train_split)
    if isinstance(split, records.TFRecords) and split.num_bytes > data.cache_mb << 20:
        part = split.part(*order.share(split.num_examples, process_index, process_count))
        return _stream(part, seed, start_step * batch_size, data.shuffle_buffer)
    table = split.load() if isinstance(split, records.TFRecords) else split
    vector = tf.TensorSpec([batch_size], tf.int64)
    indices = tf.data.Dataset.from_generator(
        lambda: order.train_indices(seed, table.num_examples, batch_size, start_step, process_index, process_count),
        output_signature=(vector, vector),
    )
    return _look_up_chunks(table, indices.unbatch())


def eval_batches(
    data: ml_collections.ConfigDict,
    info: DatasetInfo,
    *,
    batch_size: int,
    split: str | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """One pass over a split (None = the evaluation split): every example exactly once over all processes.

    All processes yield the same number of batches; what a process lacks is padding: zeros with mask 0 and index -1.
    """
    from mnet_jax.data import decode, records
    from mnet_jax.data.host import graph_function, tf

    size = image_shape(data)
    opened = records.open_split(data, split or info.eval_split)
    start, stop = order.share(opened.num_examples, process_index, process_count)
    largest_share = -(-opened.num_examples // process_count)
    num_batches = -(-largest_share // batch_size)

    def plan(contents: tf.Tensor, label: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return contents, tf.cast(label, tf.int32), index, *decode.plan_eval(contents, data, size)

    def image(contents: tf.Tensor, label: tf.Tensor, index: tf.Tensor, *plans: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return decode.planned_eval_image(contents, decode.Plan(*plans), data, size), label, index

    if start == stop:
        arrays = iter(())
    else:
        if isinstance(opened, records.TFRecords):
            part = opened.part(start, stop)
            chunks = part.read().batch(_chunk_size(part.num_bytes // part.num_examples)).map(graph_function(_parse))
        else:
            chunks = _look_up_chunks(opened, tf.data.Dataset.range(start, stop))
        arrays = run(in_parallel(planned(chunks, plan), image).batch(batch_size), info.name)
    return padded((batch(*a) for a in arrays), num_batches, batch_size, (*size, 3))


def _stream(part: records.TFRecords, seed: int, first: int, buffer: int) -> tf.data.Dataset:
    """Endless (contents, label, index, key), each [n], of a process's part of a split, from example `first` on."""
    from mnet_jax.data.host import graph_function, tf

    if not part.num_examples:
        raise ValueError("there are more processes than training images")
    first_epoch, skipped = divmod(first, part.num_examples)

    def draw(epoch: np.ndarray) -> tuple[np.ndarray, ...]:
        files = order.permutation(seed, int(epoch), len(part.shards))
        return files, order.shuffle_seed(seed, int(epoch))[0], order.crop_key(seed, int(epoch))[0]

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        files, shuffle_seed, key = tf.numpy_function(draw, [epoch], [tf.int64] * 3, stateful=False)
        files, shuffle_seed, key = (
            tf.ensure_shape(files, [None]),
            tf.ensure_shape(shuffle_seed, []),
            tf.ensure_shape(key, []),
        )
        # Shuffled by number and skipped still encoded: the order is that of the whole epoch whatever is skipped.
        shuffled = part.read(files).shuffle(buffer, seed=shuffle_seed, reshuffle_each_iteration=False)
        rest = shuffled.skip(tf.where(epoch == first_epoch, tf.constant(skipped, tf.int64), 0))
        chunks = rest.batch(_chunk_size(part.num_bytes // part.num_examples)).map(graph_function(_parse))
        return chunks.map(
            graph_function(lambda contents, label, index: (contents, label, index, tf.fill(tf.shape(index), key)))
        )

    return tf.data.Dataset.counter(first_epoch).flat_map(graph_function(one_epoch))


def _chunk_size(mean_bytes: int) -> int:
    """Examples that are planned together: so many that planning costs little, and a few MiB at most."""
    return max(1, min(_MOST_AT_ONCE, (8 << 20) // max(mean_bytes, 1)))


def _parse(serialized: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Serialized TFDS examples [n] -> (contents, label, index)."""
    from mnet_jax.data import records

    return *records.parse(serialized), index


def _look_up_chunks(table: records.RandomAccess, indices: tf.data.Dataset) -> tf.data.Dataset:
    """(index, ...) one by one -> (contents, label, index, ...), each [n]."""
    from mnet_jax.data import records
    from mnet_jax.data.host import graph_function, tf

    def gather(index: tf.Tensor, *rest: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return *table.gather(index), index, *rest

    def read(path: tf.Tensor, *rest: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tf.io.read_file(path), *rest

    if isinstance(table, records.Table) and table.are_paths:
        found = indices.batch(_MOST_AT_ONCE).map(graph_function(gather))
        return in_parallel(found.prefetch(2).unbatch(), read).batch(_FILES_AT_ONCE)
    mean_bytes = table.mean_bytes() if isinstance(table, records.Table) else 0
    return indices.batch(_chunk_size(mean_bytes)).map(graph_function(gather))


def look_up(table: records.RandomAccess, indices: tf.data.Dataset) -> tf.data.Dataset:
    """Examples by their place: (index, ...) one by one -> (contents, label, index, ...) one by one."""
    return _look_up_chunks(table, indices).prefetch(2).unbatch()


def planned(chunks: tf.data.Dataset, plan: Callable) -> tf.data.Dataset:
    """Chunks with what `plan` makes of them, one example at a time."""
    from mnet_jax.data.host import graph_function

    return chunks.map(graph_function(plan)).prefetch(1).unbatch()


def in_parallel(dataset: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    """`dataset.map`, on all cores, in order."""
    from mnet_jax.data.host import graph_function, tf

    return dataset.map(graph_function(function), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def run(dataset: tf.data.Dataset, name: str) -> Iterator[tuple[np.ndarray, ...]]:
    """Runs a data set in threads of its own, two batches ahead, in an order that does not depend on their timing."""
    from mnet_jax.data.host import num_cores, tf

    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = num_cores()
    options.threading.max_intra_op_parallelism = 1
    # The arrays share memory with tensors that they keep alive: nothing is copied, nothing is overwritten later.
    running = [dataset.prefetch(2).with_options(options).as_numpy_iterator()]
    unreadable = tf.errors.OpError  # by its own name, because the generator may outlive the module as Python exits

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        while running:
            try:
                arrays = next(running[0])
            except StopIteration:
                return
            except unreadable as error:
                raise ValueError(f"an example of {name} cannot be read: {error.message.splitlines()[0]}") from error
            yield arrays

    generator = batches()
    # Its threads call Python. Were they still at work when Python ends, tensorflow would wait for them for ever.
    weakref.finalize(generator, running.clear)
    return generator


def batch(image: np.ndarray, label: np.ndarray, index: np.ndarray) -> Batch:
    """A batch of real examples."""
    return {"image": image, "label": label, "mask": np.ones(len(label), np.float32), "index": index}


def padded(batches: Iterator[Batch], num_batches: int, batch_size: int, shape: tuple[int, ...]) -> Iterator[Batch]:
    """Fills batches of images of `shape` up to `batch_size`, and adds empty ones up to `num_batches`."""
    empty = batch(np.zeros((0, *shape), np.uint8), np.zeros(0, np.int32), np.zeros(0, np.int64))
    padding = {"index": -1}
    for _ in range(num_batches):
        part = next(batches, empty)
        missing = batch_size - len(part["mask"])
        yield {
            key: np.concatenate([value, np.full((missing, *value.shape[1:]), padding.get(key, 0), value.dtype)])
            if missing
            else value
            for key, value in part.items()
        }
