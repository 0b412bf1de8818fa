"""CIFAR-10 from scratch: MobileNetV3-Large at 32 px with a stem for small images.

    mnet prepare --data cifar10   # once: downloads 162 MB; or --config.data.data_dir=DIR of a prepared one
    python train.py --config configs/cifar10.py

Hardware: one accelerator. None was at hand, so this run has not been made to the end and there is no accuracy of ours.
Published for MobileNets from scratch at 32 px: 94.43 for v2 1.0 with its first strides at 1, SGD and cosine, 200 epochs
(kuangliu/pytorch-cifar). The aim of this recipe is 95.
"""

import ml_collections

from mnet_jax import schema


def get_config() -> ml_collections.ConfigDict:
    """MobileNetV3-Large, SGD and cosine, 200 epochs; strides 1, 1, 2, 2, 2 leave a 4 x 4 map."""
    config = schema.get_config()
    config.model.name = "v3_large"
    config.model.stem_stride = 1
    config.model.norm_decay = 0.9
    config.data.name = "cifar10"
    config.data.image_size = 32
    config.data.crop = "pad"
    config.data.eval_crop = 1.0
    config.augment.randaugment_layers = 1
    config.augment.randaugment_magnitude = 5.0
    config.augment.erase_prob = 0.25
    config.train.batch_size = 128
    config.train.num_epochs = 200.0
    config.optimizer.name = "sgd"
    config.optimizer.weight_decay = 5e-4
    config.schedule.lr_per_256 = 0.2
    config.schedule.warmup_epochs = 5.0
    config.ema.decay = 0.999
    config.eval.batch_size = 500
    config.eval.every_epochs = 5.0
    return config
