"""From examples to batches: order, this process's share, resume at any step, padding and mask.

Every batch is a dict: image uint8 [B, H, W, 3], label int32 [B], mask float32 [B] (1 real, 0 padding) and index int64
[B], the example's place in its split (-1 in padding). B counts this process's images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import ml_collections
import numpy as np

from mnet_jax.data import order
from mnet_jax.data.catalog import DatasetInfo

if TYPE_CHECKING:
    import tensorflow as tf

Batch = dict[str, np.ndarray]


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
    """An endless stream of training batches; the batch of step `start_step` comes first.

    The order of an epoch is a function of (seed, epoch), crops and flips of (seed, epoch, index). Batches cross the
    borders of epochs and nothing is dropped. Steps before `start_step` are skipped unread, or at least undecoded.
    """
    from mnet_jax.data import decode, records
    from mnet_jax.data.host import tf

    split = records.open_split(data, info.train_split)
    table = records.load_table(split)

    def indices() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return order.train_indices(seed, table.num_examples, batch_size, start_step, process_index, process_count)

    vector = tf.TensorSpec([batch_size], tf.int64)
    encoded = (
        tf.data.Dataset.from_generator(indices, output_signature=(vector, vector))
        .map(lambda index, key: (*table.gather(index), index, key))
        .unbatch()
    )

    def example(contents: tf.Tensor, label: tf.Tensor, index: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = decode.train_image(contents, key, index, data, image_shape(data))
        return image, tf.cast(label, tf.int32), index

    dataset = encoded.map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size, drop_remainder=True)
    for image, label, index in _iterate(dataset):
        yield {"image": image, "label": label, "mask": np.ones(batch_size, np.float32), "index": index}


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
    from mnet_jax.data.host import tf

    whole = records.open_split(data, split or info.eval_split)
    start, stop = order.share(whole.num_examples, process_index, process_count)
    size = image_shape(data)
    largest_share = -(-whole.num_examples // process_count)
    num_batches = -(-largest_share // batch_size)

    def example(serialized: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        contents, label = records.parse(serialized[None])
        return decode.eval_image(contents[0], data, size), tf.cast(label[0], tf.int32), index

    yielded = 0
    if start < stop:
        dataset = whole.part(start, stop).read().map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)
        for image, label, index in _iterate(dataset):
            yield _pad(
                {"image": image, "label": label, "mask": np.ones(len(label), np.float32), "index": index}, batch_size
            )
            yielded += 1
    empty = {
        "image": np.zeros((0, *size, 3), np.uint8),
        "label": np.zeros(0, np.int32),
        "mask": np.zeros(0, np.float32),
        "index": np.zeros(0, np.int64),
    }
    for _ in range(yielded, num_batches):
        yield _pad(empty, batch_size)


def _pad(batch: Batch, batch_size: int) -> Batch:
    """Fills a batch up to `batch_size` with zeros, and with -1 where it holds indices."""
    missing = batch_size - len(batch["mask"])
    if not missing:
        return batch
    fill = {"index": -1}
    return {
        key: np.concatenate([value, np.full((missing, *value.shape[1:]), fill.get(key, 0), value.dtype)])
        for key, value in batch.items()
    }


def _iterate(dataset: tf.data.Dataset) -> Iterator[tuple[np.ndarray, ...]]:
    """Runs a data set in its own threads, two batches ahead, in an order that does not depend on their timing."""
    from mnet_jax.data.host import num_cores, tf

    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = num_cores()
    options.threading.max_intra_op_parallelism = 1
    # The arrays share memory with tensors that they keep alive: nothing is copied, nothing is overwritten later.
    yield from dataset.prefetch(2).with_options(options).as_numpy_iterator()
