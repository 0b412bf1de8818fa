"""A trained model, whether it comes from a checkpoint or from published weights: what every other part is handed."""

import dataclasses
from typing import Any

import ml_collections

from mnet_jax.data.catalog import DatasetInfo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """The accuracy that somebody published for weights, in percent of ImageNet's validation images, single crop."""

    top1: float
    top5: float | None
    image_size: int  # pixels of a side
    source: str  # where it is published


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model, with all that is needed to use it alone.

    Weights without a classifier ("no top") have `info.num_classes == 0` and no class names; their `variables` lack
    the scope "classifier", and "head" where the file lacks that too.
    """

    variables: dict[str, Any]  # {"params", "batch_stats"} of NumPy float32 arrays
    config: ml_collections.ConfigDict  # `model` and `data` say how to build it and how to prepare its images
    info: DatasetInfo
    step: int  # completed updates; 0 for published weights
    metrics: dict[str, float] | None  # of the run's own evaluation then
    path: str  # where it was read from
    published: bool = False  # somebody else's weights, from `mnet_jax.pretrained`
    claim: Claim | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name for each output of the model."""
        return self.info.class_names
