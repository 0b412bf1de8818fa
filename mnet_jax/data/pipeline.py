"""From examples to batches: order, this process's share, resume at any step, padding and mask.

`batch.py` says what a batch is. Nothing here knows what kinds of annotation there are, or how a picture is cut.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from mnet_jax import runtime
from mnet_jax.data import batch, faults, order
from mnet_jax.data.batch import Batch
from mnet_jax.data.dataset import Dataset

if TYPE_CHECKING:
    import tensorflow as tf

    from mnet_jax.data import records
    from mnet_jax.data.crop import Crop
    from mnet_jax.data.decode import Example

_FILES_AT_ONCE = 8  # examples that are planned together where each is a file, with perhaps 10 MB from a camera
STAGES = ("read", "decode", "resize")  # of the training input, each with those before; the last is all the host does


def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Returns an endless stream of training batches; the batch that follows `start_step` updates comes first.

    The order of an epoch is a function of (seed, epoch), crops and flips of (seed, epoch, index). Batches cross the
    borders of epochs and nothing is dropped. What precedes `start_step` is not read, or, from large sets in TFRecords,
    from the running epoch only and not decoded.

    Large means more than `data.cache_mb` of TFRecords: each process reads its own part of the split, files in random
    order and through a buffer of `data.shuffle_buffer`. From all other sets the processes take their parts of one
    permutation of the whole split.
    """
    from mnet_jax.data import decode

    decoder, finish = decode.Decoder.for_training(dataset.data), _finish(dataset, train=True)
    split = dataset.info.train_split

    def arrays(done: int, careful: bool) -> Iterator[Batch]:
        step = start_step + done
        chunks = _train_chunks(dataset, batch_size, seed, step, process_index, process_count, careful=careful)
        examples = decode.images(chunks, decoder, finish, careful=careful)
        return run(examples.batch(batch_size, drop_remainder=True), faults.explain(dataset, split))

    checked = faults.checked(arrays(0, False), arrays, dataset, split)
    return (_masked(found) for found in faults.replaced(checked, dataset, split))


def eval_batches(
    dataset: Dataset, *, batch_size: int, split: str | None = None, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """Returns one pass over a split (None = the evaluation split): every example exactly once over all processes.

    All processes yield the same number of batches; what a process lacks is padding, with mask 0 and index -1.
    """
    from mnet_jax.data import decode, records
    from mnet_jax.data.tensorflow_setup import tf

    opened = dataset.open_split(split or dataset.info.eval_split)
    start, stop = order.share(opened.num_examples, process_index, process_count)
    largest_share = -(-opened.num_examples // process_count)
    num_batches = -(-largest_share // batch_size)
    split = split or dataset.info.eval_split
    decoder, finish = decode.Decoder.for_evaluation(dataset.data), _finish(dataset, train=False)

    def arrays(done: int, careful: bool) -> Iterator[Batch]:
        first = start + done * batch_size
        if isinstance(opened, records.TFRecords):
            part = opened.part(first, stop)
            chunks = part.chunks(part.read())
        else:
            chunks = look_up_chunks(opened, tf.data.Dataset.range(first, stop), careful=careful)
        examples = decode.images(chunks, decoder, finish, careful=careful)
        return run(examples.batch(batch_size), faults.explain(dataset, split))

    found: Iterator[Batch] = iter(())
    if start < stop:
        found = faults.refused(faults.checked(arrays(0, False), arrays, dataset, split), dataset, split)
    return padded(found, dataset.fields(train=False), num_batches, batch_size)


def _finish(dataset: Dataset, *, train: bool) -> Callable[[Example, tf.Tensor, Crop], dict[str, tf.Tensor]]:
    """Returns the function from an example, its pixels and their Crop to its row of a batch, but for the mask."""
    wants_crop = "crop" in dataset.fields(train=train)
    kinds = batch.kinds(dataset.annotations, train=train)

    def finish(example: Example, image: tf.Tensor, crop: Crop) -> dict[str, tf.Tensor]:
        row = {"image": image, "index": example["index"]}
        for name, annotation in kinds.items():
            for part, value in annotation.transform(example["annotations"][name], crop).items():
                row[batch.part_name(name, part)] = value
        return {**row, "crop": crop.row()} if wants_crop else row

    return finish


def _masked(arrays: Batch) -> Batch:
    return {**arrays, "mask": np.ones(len(arrays["index"]), np.float32)}


def padded(
    arrays: Iterator[Batch], fields: dict[str, batch.Field], num_batches: int, batch_size: int
) -> Iterator[Batch]:
    """Yields the batches with their masks, each filled up to `batch_size`, and then empty ones up to `num_batches`."""
    nothing = batch.empty(fields)
    for _ in range(num_batches):
        found = next(arrays, None)
        yield batch.pad(nothing if found is None else _masked(found), fields, batch_size)


# --- Encoded examples, in order ---


def _train_chunks(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    start_step: int,
    process_index: int,
    process_count: int,
    *,
    careful: bool = False,
) -> tf.data.Dataset:
    """Returns the examples of `train_batches`, still encoded, in chunks; each has its random `key`, int64."""
    from mnet_jax.data import records
    from mnet_jax.data.tensorflow_setup import tf

    data = dataset.data
    split = dataset.open_split(dataset.info.train_split)
    if isinstance(split, records.TFRecords) and split.num_bytes > data.cache_mb << 20:
        part = split.part(*order.share(split.num_examples, process_index, process_count))
        if not part.num_examples:
            raise ValueError(
                f"{dataset.info.name} has {split.num_examples} examples in {dataset.info.train_split!r} and this run "
                f"{process_count} processes: each needs at least one; start fewer processes"
            )
        return _stream(part, seed, start_step * batch_size, data.shuffle_buffer)
    table = split.load() if isinstance(split, records.TFRecords) else split
    vector = tf.TensorSpec([batch_size], tf.int64)
    indices = tf.data.Dataset.from_generator(
        lambda: order.train_indices(seed, table.num_examples, batch_size, start_step, process_index, process_count),
        output_signature=(vector, vector),
    )
    return look_up_chunks(table, indices.unbatch(), "key", careful=careful)


def _stream(part: records.TFRecords, seed: int, first: int, buffer: int) -> tf.data.Dataset:
    """Returns endless chunks of a process's part of a split, from example `first` on."""
    from mnet_jax.data.tensorflow_setup import graph_function, tf

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
        return part.chunks(rest).map(
            graph_function(lambda chunk: {**chunk, "key": tf.fill(tf.shape(chunk["index"]), key)})
        )

    return tf.data.Dataset.counter(first_epoch).flat_map(graph_function(one_epoch))


def look_up_chunks(
    table: records.RandomAccess, indices: tf.data.Dataset, *names: str, careful: bool = False
) -> tf.data.Dataset:
    """Returns chunks of the examples at the places that come one by one.

    Args:
      table: the split.
      indices: yields index int64 [], or a tuple of it and more numbers.
      names: what these numbers are called in the chunks.
      careful: whether a file that cannot be read has no contents, rather than being an error.
    """
    from mnet_jax.data import layout, records
    from mnet_jax.data.tensorflow_setup import graph_function, in_parallel, tf

    def gather(index: tf.Tensor, *rest: tf.Tensor) -> Example:
        return {**table.gather(index), **dict(zip(names, rest, strict=True))}

    if isinstance(table, records.Table) and table.are_paths:
        found = indices.batch(records.MOST_AT_ONCE).map(graph_function(gather)).prefetch(2).unbatch()
        read_file = layout.read_if_there if careful else tf.io.read_file
        read = in_parallel(found, lambda example: {**example, "contents": read_file(example["contents"])})
        return read.batch(_FILES_AT_ONCE)
    mean_bytes = table.mean_bytes() if isinstance(table, records.Table) else 0
    return indices.batch(records.chunk_size(mean_bytes)).map(graph_function(gather))


# --- Running ---


def run(dataset: tf.data.Dataset, explain: Callable[[str], str]) -> Iterator[Batch]:
    """Returns the elements of a tf.data set as NumPy arrays, two made ahead in threads of its own.

    The order does not depend on the threads' timing.

    Args:
      dataset: of dicts of tensors.
      explain: from the first line of what tensorflow says to the text of the error.

    Raises:
      UnreadableError: while iterating, if an example cannot be read.
    """
    from mnet_jax.data import records
    from mnet_jax.data.tensorflow_setup import tf

    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = runtime.num_cores()
    options.threading.max_intra_op_parallelism = 1
    # The arrays share memory with tensors that they keep alive: nothing is copied, nothing is overwritten later.
    running = [dataset.prefetch(2).with_options(options).as_numpy_iterator()]
    unreadable = tf.errors.OpError  # by its own name, because the generator may outlive the module as Python exits

    def batches() -> Iterator[Batch]:
        while running:
            try:
                arrays = next(running[0])
            except StopIteration:
                return
            except unreadable as error:
                raise faults.UnreadableError(explain(records.said(error))) from error
            yield arrays

    generator = batches()
    # Its threads call Python. Were they still at work when Python ends, tensorflow would wait for them for ever.
    weakref.finalize(generator, running.clear)
    return generator


def run_stage(dataset: Dataset, stage: str, batch_size: int) -> Iterator[int]:
    """Yields, for each batch of the training input cut off after one of `STAGES`, its encoded bytes ("read") or 0."""
    from mnet_jax.data import decode
    from mnet_jax.data.tensorflow_setup import graph_function, in_parallel, tf

    if stage == "resize":
        for _ in train_batches(dataset, batch_size=batch_size, seed=0, start_step=0):
            yield 0
    chunks = _train_chunks(dataset, batch_size, 0, 0, 0, 1)
    decoder = decode.Decoder.for_training(dataset.data)

    def decoded(example: Example) -> dict[str, tf.Tensor]:
        return {"pixel": tf.reduce_max(decoder.part(example)[:1, :1])}  # needs the picture, does nothing else with it

    if stage == "read":
        found = chunks.map(graph_function(lambda chunk: {"bytes": tf.strings.length(chunk["contents"])})).unbatch()
    else:
        found = in_parallel(decode.planned(chunks, decoder), decoded)
    for arrays in run(found.batch(batch_size, drop_remainder=True), faults.explain(dataset, dataset.info.train_split)):
        yield int(np.sum(arrays["bytes"])) if stage == "read" else 0
