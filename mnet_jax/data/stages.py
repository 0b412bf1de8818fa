"""The training input cut off after each of its stages, to see what costs how much."""

from collections.abc import Iterator

import ml_collections
import numpy as np

from mnet_jax.data import decode, pipeline
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.host import graph_function, tf

STAGES = ("read", "decode", "resize")  # each with those before; the last is all that the host does


def run(data: ml_collections.ConfigDict, info: DatasetInfo, stage: str, batch_size: int) -> Iterator[int]:
    """Yields the encoded bytes of each batch ("read"), or 0, for ever."""
    if stage == "resize":
        for _ in pipeline.train_batches(data, info, batch_size=batch_size, seed=0, start_step=0):
            yield 0
    size = pipeline.image_shape(data)
    chunks = pipeline.train_chunks(data, info, batch_size, 0, 0, 0, 1)

    def plan(contents: tf.Tensor, label: tf.Tensor, index: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, ...]:
        draws, planned = decode.plan_train(contents, key, index, data, size)
        return contents, draws, *(planned or ())

    def decoded(contents: tf.Tensor, draws: tf.Tensor, *planned: tf.Tensor) -> tuple[tf.Tensor]:
        part = decode.planned_train_part(contents, draws, decode.Plan(*planned) if planned else None, data, size)
        return (tf.reduce_max(part[:1, :1]),)  # needs the picture, and does nothing else with it

    if stage == "read":
        lengths = chunks.map(graph_function(lambda contents, *rest: (tf.strings.length(contents),)))
        dataset = lengths.unbatch()
    else:
        dataset = pipeline.in_parallel(pipeline.planned(chunks, plan), decoded)
    for (values,) in pipeline.run(dataset.batch(batch_size, drop_remainder=True), info.name):
        yield int(np.sum(values)) if stage == "read" else 0
