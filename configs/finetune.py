"""Fine-tuning on your own photos: published weights or a checkpoint of yours, with a classifier of your own classes.

    python train.py --config configs/finetune.py --config.init.weights=SOURCE --config.data.folder=photos
    python train.py --config configs/finetune.py --config.init.checkpoint=runs/v3_large --config.data.folder=photos

`photos/train/<class>/*.jpg` and `photos/val/<class>/*.jpg`, or just `photos/<class>/*.jpg`, which is split by content.
The architecture and how images are prepared (size, crop, interpolation, pixel statistics) are those of the weights.
The backbone stays as it is: its features of eight views of each photo are computed once, and the classifier learns
from them in seconds. What came of it is in the run's directory as confusion.png, mistakes.png and classes.csv.
docs/photos.md says more.

Measured on 2 CPU cores: 244 photos of ants and bees, MobileNetV2 x0.35, 93.5 % of 153 held-out photos in 60 s in all.
"""

import ml_collections

from mnet_jax import schema


def get_config() -> ml_collections.ConfigDict:
    """A classifier on the features of a frozen backbone, with early stopping."""
    config = schema.get_config()
    config.model.name = None  # that of the weights
    config.model.norm_frozen = True
    config.data.name = "folder"
    config.data.folder = "photos"
    config.data.image_size = None  # these three: those of the weights
    config.data.eval_crop = config.data.interpolation = None
    config.data.crop_area = (0.25, 1.0)
    config.train.batch_size = 32
    config.train.num_epochs = 30.0
    config.task.label_smoothing = 0.0
    config.train.freeze = "backbone"
    config.train.embedding_views = 8
    config.train.patience = 5
    config.optimizer.name = "sgd"
    config.optimizer.weight_decay = 1e-2
    config.schedule.lr_per_256 = 0.05
    config.schedule.warmup_epochs = 1.0
    config.ema.decay = 0.99
    config.eval.batch_size = 64
    config.eval.every_epochs = 2.0
    config.eval.report = True
    config.log.every_steps = 50
    return config
