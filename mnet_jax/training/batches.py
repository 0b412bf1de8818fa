"""The images of a run's data set as batches; `features.CachedBatches` is the same for features."""

import dataclasses
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np

from mnet_jax.data import pipeline
from mnet_jax.data.catalog import DatasetInfo


def image_shapes(images: tuple[int, ...], image_size: tuple[int, int]) -> dict[str, jax.ShapeDtypeStruct]:
    """What batches of images are on the devices: `images` is (devices, images a device), `image_size` (H, W)."""
    return {
        "image": jax.ShapeDtypeStruct((*images, *image_size, 3), np.uint8),
        "label": jax.ShapeDtypeStruct(images, np.int32),
        "mask": jax.ShapeDtypeStruct(images, np.float32),
        "index": jax.ShapeDtypeStruct(images, np.int32),
    }


@dataclasses.dataclass(frozen=True)
class ImageBatches:
    """Decoded from their files each time."""

    config: ml_collections.ConfigDict
    info: DatasetInfo

    def train(
        self, *, batch_size: int, start_step: int, process_index: int, process_count: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """One process's share of endless batches for training, from the one that follows `start_step` updates on."""
        return pipeline.train_batches(
            self.config.data,
            self.info,
            batch_size=batch_size,
            seed=self.config.seed,
            start_step=start_step,
            process_index=process_index,
            process_count=process_count,
        )

    def evaluation(self, *, batch_size: int, process_index: int, process_count: int) -> Iterator[dict[str, np.ndarray]]:
        """One process's share of all images for evaluation, once each, padded and masked."""
        return pipeline.eval_batches(
            self.config.data,
            self.info,
            batch_size=batch_size,
            process_index=process_index,
            process_count=process_count,
        )
