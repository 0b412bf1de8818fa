"""Fixed views of images: each time the same crops, for whoever computes something once per image and keeps it.

View 0 is the evaluation's crop; view 1, where `data.flip` is on, its mirror image; all others are training crops whose
randomness is a hash of (seed, view, the image's content).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import ml_collections
import numpy as np

from mnet_jax.data import catalog, order, pipeline
from mnet_jax.data.catalog import DatasetInfo

if TYPE_CHECKING:
    import tensorflow as tf

    from mnet_jax.data import records


_READ_AT_ONCE = 1024  # examples


def digests(data: ml_collections.ConfigDict, split: str) -> list[str]:
    """A hash of each image's content, 32 hexadecimal digits, in the order of the split."""
    if data.name == "folder":
        return [file.digest for file in catalog.listing(data).splits[split]]
    table = _table(data, split)
    parts = [table.gather(part)[0].numpy() for part in _parts(table)]
    return [hashlib.blake2b(contents, digest_size=16).hexdigest() for part in parts for contents in part]


def labels(data: ml_collections.ConfigDict, split: str) -> np.ndarray:
    """The class numbers of a split, int32 [N], without decoding an image."""
    table = _table(data, split)
    return np.concatenate([table.gather(part)[1].numpy() for part in _parts(table)]).astype(np.int32)


def _parts(table: records.RandomAccess) -> Iterator[np.ndarray]:
    for start in range(0, table.num_examples, _READ_AT_ONCE):
        yield np.arange(start, min(start + _READ_AT_ONCE, table.num_examples))


def file_names(data: ml_collections.ConfigDict, split: str) -> list[str] | None:
    """The images' paths where the data set is a folder; None otherwise."""
    return [file.path for file in catalog.listing(data).splits[split]] if data.name == "folder" else None


def view_batches(
    data: ml_collections.ConfigDict,
    info: DatasetInfo,
    *,
    split: str,
    indices: Sequence[int],
    num_views: int,
    seed: int,
    batch_size: int,
) -> Iterator[pipeline.Batch]:
    """Batches with image uint8 [B, num_views, H, W, 3] of the examples `indices` of a split, in their order.

    The last batch is padded with zeros, mask 0 and index -1. What an image looks like does not depend on the others.
    """
    from mnet_jax.data import decode
    from mnet_jax.data.host import tf

    size = pipeline.image_shape(data)
    random = num_views > 1 + data.flip
    contents_of = digests(data, split) if random else {}
    words = np.array([int(contents_of[i][:16], 16) if random else 0 for i in indices], np.uint64).view(np.int64)
    keys = order.crop_key(seed, np.arange(num_views))

    def example(contents: tf.Tensor, label: tf.Tensor, index: tf.Tensor, word: tf.Tensor) -> tuple[tf.Tensor, ...]:
        views = [decode.eval_image(contents, data, size)]
        if data.flip and num_views > 1:
            views.append(tf.reverse(views[0], [1]))
        views += [decode.train_image(contents, keys[view], word, data, size) for view in range(len(views), num_views)]
        return tf.stack(views), tf.cast(label, tf.int32), index

    places = tf.data.Dataset.from_tensor_slices((np.asarray(indices, np.int64), words))
    examples = pipeline.in_parallel(pipeline.look_up(_table(data, split), places), example)
    arrays = pipeline.run(examples.batch(batch_size), info.name)
    num_batches = -(-len(indices) // batch_size)
    return pipeline.padded((pipeline.batch(*a) for a in arrays), num_batches, batch_size, (num_views, *size, 3))


def pictures(
    data: ml_collections.ConfigDict, info: DatasetInfo, *, split: str, indices: Sequence[int]
) -> Iterator[np.ndarray]:
    """The evaluation's crops of some examples, uint8 [H, W, 3] each, in the order asked for."""
    for found in view_batches(data, info, split=split, indices=indices, num_views=1, seed=0, batch_size=1):
        yield found["image"][0, 0]


def _table(data: ml_collections.ConfigDict, split: str) -> records.RandomAccess:
    from mnet_jax.data import records

    opened = records.open_split(data, split)
    if not isinstance(opened, records.TFRecords):
        return opened
    if opened.num_bytes > data.cache_mb << 20:
        raise ValueError(
            f"{data.name} {split!r} has {opened.num_bytes >> 20:,} MB, more than data.cache_mb={data.cache_mb}: "
            "this needs a set that fits in memory; try --config.data.cache_mb or a slice of the split"
        )
    return opened.load()
