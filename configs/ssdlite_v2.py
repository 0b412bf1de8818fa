"""SSDLite on MobileNetV2 on COCO at 320 px, the way of TensorFlow's Object Detection API: focal loss, from ImageNet.

    python train.py --config configs/ssdlite_v2.py --config.init.weights=SOURCE --config.data.data_dir=gs://BUCKET/tfds

SOURCE is a name of `mnet weights`; without it the network starts from scratch and needs longer.
Published: 22.1 on COCO's test-dev (MobileNetV2's paper, table 6). Recipe: ssd_mobilenet_v2_320x320_coco17_tpu-8.config
of the API, 50,000 steps of 512 images, which publishes 20.2 for SSD. Nobody has run this one to the end yet.
"""

import ml_collections

from mnet_jax import schema
from mnet_jax.models.heads.tables import find_detector


def get_config() -> ml_collections.ConfigDict:
    """The detector, its focal loss, momentum and cosine."""
    config = schema.get_config()
    config.update_from_flattened_dict(find_detector("ssdlite320_v2_tf").settings)
    config.data.name = "coco/2017"
    config.data.crop = "ssd"
    config.data.crop_zoom_out = 0.0
    config.data.eval_crop = 1.0
    config.task.focal_alpha = 0.75
    config.task.box_weight = 0.25  # normalize_loc_loss_by_codesize
    config.train.batch_size = 512
    config.train.num_steps = 50_000
    config.optimizer.name = "sgd"
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 4e-5
    config.schedule.lr_per_256 = 0.04  # 0.08 for 512
    config.schedule.warmup_steps = 2000
    config.ema.decay = 0.0
    config.eval.batch_size = 256
    config.eval.every_steps = 5000
    config.eval.report = True
    return config
