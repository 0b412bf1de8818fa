"""Fine-tuning on your own photos with masks: published weights, or a checkpoint of yours, with masks of your classes.

    python train.py --config configs/finetune_masks.py --config.init.weights=SOURCE --config.data.folder=photos

`photos` has images beside masks (photos/images, photos/masks, photos/classes.txt), VOC's layout, or COCO JSON with
polygons; docs/segmentation.md shows them. Any data set of TFDS with a pixel map works too:
--config.data.name=oxford_iiit_pet --config.data.folder=None.
The architecture is that of the weights, a classifier's or a segmenter's; pixels are prepared as theirs were. Give
--config.data.image_size the shape of your pictures, such as "(240,320)": in evaluation they fill it. What came of it is
in the run's directory as classes.csv and worst.png.
"""

import ml_collections

from mnet_jax import schema


def get_config() -> ml_collections.ConfigDict:
    """LR-ASPP on the backbone of the weights, all of which is trained."""
    config = schema.get_config()
    config.task.name = "segmentation"
    config.model.name = None  # that of the weights
    config.model.norm_decay = 0.97
    config.data.name = "folder"
    config.data.folder = "photos"
    config.data.image_size = 320
    config.data.crop = "scale"
    config.data.eval_crop = 1.0
    config.data.interpolation = None  # that of the weights
    config.augment.brightness = 0.1
    config.augment.contrast = 0.2
    config.augment.saturation = 0.2
    config.train.batch_size = 16
    config.train.num_epochs = 60.0
    config.optimizer.name = "sgd"
    config.optimizer.weight_decay = 4e-5
    config.optimizer.clip_norm = 10.0
    config.schedule.name = "poly"
    config.schedule.lr_per_256 = 1.6  # 0.1 for 16
    config.schedule.warmup_epochs = 1.0
    config.ema.decay = 0.99
    config.eval.batch_size = 16
    config.eval.every_epochs = 10.0
    config.eval.report = True
    config.checkpoint.every_epochs = 10.0
    config.log.every_steps = 20
    return config
