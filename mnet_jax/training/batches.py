"""Where a run's batches come from: images decoded each time, or embeddings that were computed once."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Protocol

import jax
import numpy as np

from mnet_jax.data import order, pipeline
from mnet_jax.data.annotations import Annotation
from mnet_jax.data.batch import Batch, spec
from mnet_jax.data.dataset import Dataset


class BatchSource(Protocol):
    """Endless batches for training and one pass for evaluation; `batch_size` is one process's share."""

    def train(self, *, batch_size: int, start_step: int, process_index: int, process_count: int) -> Iterator[Batch]:
        """Yields one process's share of the batches that follow `start_step` updates, for ever."""

    def evaluation(self, *, batch_size: int, process_index: int, process_count: int) -> Iterator[Batch]:
        """Yields one process's share of all images to evaluate on, once each, filled up and masked."""


@dataclasses.dataclass(frozen=True)
class ImageBatches:
    """The images of a data set, decoded from their files each time."""

    dataset: Dataset
    seed: int

    def train(self, *, batch_size: int, start_step: int, process_index: int, process_count: int) -> Iterator[Batch]:
        """Yields batches in the order of (seed, epoch)."""
        return pipeline.train_batches(
            self.dataset,
            batch_size=batch_size,
            seed=self.seed,
            start_step=start_step,
            process_index=process_index,
            process_count=process_count,
        )

    def evaluation(self, *, batch_size: int, process_index: int, process_count: int) -> Iterator[Batch]:
        """Yields batches in the order of the split."""
        return pipeline.eval_batches(
            self.dataset, batch_size=batch_size, process_index=process_index, process_count=process_count
        )


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A split whose images are embeddings float32 [N, views, F], with the values of its annotations, [N, ...] each."""

    embeddings: np.ndarray
    annotations: dict[str, np.ndarray]

    def rows(self, index: np.ndarray, view: np.ndarray | int) -> Batch:
        """Returns the batch of these examples, each in one of its views."""
        annotations = {name: values[index] for name, values in self.annotations.items()}
        return {"embedding": self.embeddings[index, view], **annotations}


@dataclasses.dataclass(frozen=True)
class EmbeddingBatches:
    """Embeddings in place of images, in the same order as the images would come."""

    train_split: Embedded
    eval_split: Embedded
    seed: int

    def train(self, *, batch_size: int, start_step: int, process_index: int, process_count: int) -> Iterator[Batch]:
        """Yields batches with embedding float32 [B, F]; the view is a hash of (seed, epoch, index)."""
        num_examples, num_views = self.train_split.embeddings.shape[:2]
        for index, key in order.train_indices(
            self.seed, num_examples, batch_size, start_step, process_index, process_count
        ):
            view = (order.hash64(key, index) % np.uint64(num_views)).astype(np.int64)
            yield {**self.train_split.rows(index, view), "mask": np.ones(batch_size, np.float32)}

    def evaluation(self, *, batch_size: int, process_index: int, process_count: int) -> Iterator[Batch]:
        """Yields batches with embedding float32 [B, F] of each image's first view."""
        num_examples = len(self.eval_split.embeddings)
        start, stop = order.share(num_examples, process_index, process_count)
        largest_share = -(-num_examples // process_count)
        for first in range(start, start + -(-largest_share // batch_size) * batch_size, batch_size):
            index = np.arange(first, first + batch_size)
            mask = index < stop
            rows = self.eval_split.rows(np.where(mask, index, 0), 0)
            yield {**rows, "mask": mask.astype(np.float32), "index": np.where(mask, index, -1)}


def shapes(
    annotations: Mapping[str, Annotation],
    image_size: tuple[int, int],
    devices: int,
    device_batch: int,
    *,
    train: bool,
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns what batches of images (H, W) are on the devices, [devices, images a device, ...] each."""
    fields = spec(annotations, image_size, train=train)
    return {
        name: jax.ShapeDtypeStruct((devices, device_batch, *field.shape), field.device_dtype)
        for name, field in fields.items()
    }
