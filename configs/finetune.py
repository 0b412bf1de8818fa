"""Fine-tuning: a checkpoint of yours, another data set. The classifier starts fresh, everything else is restored.

    python train.py --config configs/finetune.py --config.init.checkpoint=runs/v3_large \
        --config.data.name=folder --config.data.folder=photos

`photos/train/<class>/*.jpg` and `photos/val/<class>/*.jpg`, or just `photos/<class>/*.jpg`, which is split by content.
The architecture, the image size and the pixel statistics are the checkpoint's.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
    """A short run at a low rate with light augmentation."""
    config = default.get_config()
    config.model.name = None  # that of the checkpoint
    config.model.norm_decay = 0.9  # few steps: the published .99 to .999 would lag behind
    config.data.name = "folder"
    config.data.folder = "photos"
    config.data.image_size = None  # that of the checkpoint
    config.data.crop_area = (0.25, 1.0)
    config.train.batch_size = 32
    config.train.num_epochs = 20.0
    config.optimizer.name = "sgd"
    config.optimizer.weight_decay = 1e-4
    config.schedule.lr_per_256 = 0.05
    config.schedule.warmup_epochs = 1.0
    config.ema.decay = 0.99
    config.eval.batch_size = 64
    config.log.every_steps = 10
    return config
