"""Fine-tuning on your own photos with boxes: published weights, or a checkpoint of yours, with boxes of your classes.

    python train.py --config configs/finetune_boxes.py --config.init.weights=SOURCE --config.data.folder=photos

`photos` is what a labelling tool wrote: COCO JSON, Pascal VOC XML or YOLO text, recognised by itself. Any data set of
TFDS with boxes works too: --config.data.name=voc/2007 --config.data.folder=None.
The architecture is that of the weights, a classifier's or a detector's; pixels are prepared as theirs were. What came
of it is in the run's directory as classes.csv, precision_recall.png and mistakes.png.
"""

import ml_collections

from mnet_jax import schema


def get_config() -> ml_collections.ConfigDict:
    """SSDLite on the backbone of the weights, all of which is trained."""
    config = schema.get_config()
    config.task.name = "detection"
    config.task.min_negatives = 30  # of softmax heads: photos without objects teach what is none
    config.model.name = None  # that of the weights
    config.model.norm_decay = 0.97
    config.data.name = "folder"
    config.data.folder = "photos"
    config.data.image_size = 320
    config.data.crop = "ssd"
    config.data.crop_zoom_out = 0.0
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
    config.schedule.lr_per_256 = 0.32  # 0.02 for 16
    config.schedule.warmup_epochs = 3.0
    config.ema.decay = 0.998
    config.eval.batch_size = 16
    config.eval.every_epochs = 5.0
    config.eval.report = True
    config.checkpoint.every_epochs = 5.0
    config.log.every_steps = 20
    return config
