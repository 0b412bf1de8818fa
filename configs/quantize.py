"""Quantisation-aware fine-tuning: a checkpoint of yours, a few epochs more, with int8 rounding in every layer.

    python train.py --config configs/quantize.py --config.init.checkpoint=runs/v3_large
    mnet export --checkpoint runs/quantize --format tflite --quantize int8 --out model.tflite

For when int8 after training (`mnet export` alone) loses too much. Give the data set of the checkpoint as you gave it
then (`--config.data.name=...`); architecture, image size and pixel statistics are the checkpoint's.
"""

import ml_collections

from mnet_jax import schema


def get_config() -> ml_collections.ConfigDict:
    """SGD at a tenth of a fine-tuning's rate; the ranges settle within the first epoch."""
    config = schema.get_config()
    config.model.name = None  # that of the checkpoint
    config.data.image_size = config.data.eval_crop = config.data.interpolation = None  # those of the checkpoint
    config.data.crop_area = (0.25, 1.0)
    config.train.batch_size = 128
    config.train.num_epochs = 3.0
    config.optimizer.name = "sgd"
    config.schedule.lr_per_256 = 0.005
    config.ema.decay = 0.99
    config.eval.batch_size = 256
    config.quantize.train = True
    return config
