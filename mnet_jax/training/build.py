"""From a config to the model and the task it describes; train, evaluate and predict all build them here."""

import ml_collections

from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models import MobileNet, create_model
from mnet_jax.tasks.classification.task import Classification


def build_model(config: ml_collections.ConfigDict, info: DatasetInfo, *, axis_name: str | None = None) -> MobileNet:
    """The network for the classes of `info`; `axis_name` is that of the devices, used where `model.norm_sync` is on."""
    section = config.model
    return create_model(
        section.name,
        num_classes=info.num_classes,
        width=section.width,
        width_rule=section.width_rule,
        dropout=section.dropout,
        drop_path=section.drop_path,
        dtype=section.dtype,
        padding=section.padding,
        stem_stride=section.stem_stride,
        norm_decay=section.norm_decay,
        norm_epsilon=section.norm_epsilon,
        quantize_range_decay=config.quantize.range_decay if config.quantize.train else None,
        norm_axis_name=axis_name if section.norm_sync else None,
        norm_frozen=section.norm_frozen,
    )


def build_task(config: ml_collections.ConfigDict, info: DatasetInfo) -> Classification:
    """Classification with the config's augmentation and smoothing, and its pixel statistics or the data set's."""
    return Classification(
        num_classes=info.num_classes,
        label_smoothing=config.train.label_smoothing,
        mean=info.mean if config.data.mean is None else tuple(config.data.mean),
        std=info.std if config.data.std is None else tuple(config.data.std),
        augment=config.augment,
    )
