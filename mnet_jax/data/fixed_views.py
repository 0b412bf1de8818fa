"""Fixed views of images: each time the same crops, for whoever computes something once per image and keeps it.

View 0 is the evaluation's crop; view 1, where `data.flip` is on, its mirror image; all others are training crops whose
randomness is a hash of (seed, view, the image's content).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mnet_jax import config
from mnet_jax.data import faults, order, pipeline
from mnet_jax.data.annotations import Field
from mnet_jax.data.batch import Batch
from mnet_jax.data.dataset import Dataset

if TYPE_CHECKING:
    import tensorflow as tf

    from mnet_jax.data.decode import Example


def view_batches(
    dataset: Dataset, *, split: str, indices: Sequence[int], num_views: int, seed: int, batch_size: int
) -> Iterator[Batch]:
    """Returns batches with image uint8 [B, num_views, H, W, 3], mask and index of the examples `indices` of a split.

    They come in that order; the last batch is padded. What an image looks like does not depend on the others.
    """
    from mnet_jax.data import decode
    from mnet_jax.data.tensorflow_setup import in_parallel, tf

    data = dataset.data
    random = num_views > 1 + data.flip
    contents_of = dataset.digests(split) if random else {}
    words = np.array([int(contents_of[i][:16], 16) if random else 0 for i in indices], np.uint64).view(np.int64)
    keys = order.crop_key(seed, np.arange(num_views))
    fixed, drawn = decode.Decoder.for_evaluation(data), decode.Decoder.for_training(data)

    def example(example: Example) -> dict[str, tf.Tensor]:
        contents, word = example["contents"], example["word"]
        views = [fixed.one(contents)]
        if data.flip and num_views > 1:
            views.append(tf.reverse(views[0], [1]))
        views += [drawn.one(contents, tf.constant(key), word) for key in keys[len(views) :]]
        return {"image": tf.stack(views), "index": example["index"]}

    def arrays(done: int, careful: bool) -> Iterator[Batch]:
        rest = slice(done * batch_size, None)
        places = tf.data.Dataset.from_tensor_slices((np.asarray(indices[rest], np.int64), words[rest]))
        chunks = pipeline.look_up_chunks(dataset.table(split), places, "word", careful=careful)
        make = faults.guarded if careful else in_parallel
        views = make(chunks.prefetch(2).unbatch(), example)
        return pipeline.run(views.batch(batch_size), faults.explain(dataset, split))

    what = "its embedding would be missing: mend or remove it, and start a new run"
    found = faults.refused(faults.careful(arrays(0, False), arrays), dataset, split, what)
    fields = {
        "image": Field((num_views, *config.image_size(data), 3), np.uint8),
        "mask": Field((), np.float32),
        "index": Field((), np.int64, -1),
    }
    return pipeline.padded(found, fields, -(-len(indices) // batch_size), batch_size)


def pictures(dataset: Dataset, split: str, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields the evaluation's crops of some examples, uint8 [H, W, 3] each, in the order asked for."""
    for found in view_batches(dataset, split=split, indices=indices, num_views=1, seed=0, batch_size=1):
        yield found["image"][0, 0]
