"""FPNLite on MobileNetV2 on COCO at 320 px: the recipe of TensorFlow's Object Detection API.

    python train.py --config configs/fpnlite_v2.py --config.init.weights=SOURCE --config.data.data_dir=gs://BUCKET/tfds

SOURCE is a name of `mnet weights`. Recipe and published figures: ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8.config,
AP 22.2 on val2017, and 28.2 with --config.data.image_size=640, after 50,000 steps of 128 images from ImageNet weights.
Nobody has run this one to the end yet. What differs: the warm-up begins at 0, not at a third of the rate; an object
whose centre the crop cuts off is dropped, where TensorFlow keeps what is left of it.
"""

import ml_collections

from mnet_jax import schema
from mnet_jax.models.heads.tables import find_detector


def get_config() -> ml_collections.ConfigDict:
    """The detector, its focal loss, momentum and cosine."""
    config = schema.get_config()
    config.update_from_flattened_dict(find_detector("fpnlite320_v2").settings)
    config.data.name = "coco/2017"
    config.data.crop_area = (0.75, 1.0)
    config.data.crop_ratio = (0.75, 3.0)
    config.task.focal_alpha = 0.25
    config.task.box_weight = 0.25  # normalize_loc_loss_by_codesize
    config.train.batch_size = 128
    config.train.num_steps = 50_000
    config.optimizer.name = "sgd"
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 4e-5
    config.optimizer.decay_depthwise = True
    config.schedule.lr_per_256 = 0.16  # 0.08 for 128
    config.schedule.warmup_steps = 1000
    config.ema.decay = 0.0
    config.eval.batch_size = 128
    config.eval.every_steps = 5000
    config.eval.report = True
    return config
