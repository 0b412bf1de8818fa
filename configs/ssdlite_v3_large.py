"""SSDLite on MobileNetV3-Large on COCO at 320 px: the recipe of torchvision's ssdlite320_mobilenet_v3_large.

    python train.py --config configs/ssdlite_v3_large.py --workdir gs://BUCKET/b --config.data.data_dir=gs://BUCKET/tfds

Published: AP 21.3 on val2017 after 660 epochs from scratch on 8 V100, 24 images each (torchvision's
references/detection: SGD, rate 0.15 with a cosine, weight decay 4e-5, IoU crop and flip). Nobody has run this one to
the end yet. What differs from it: the warm-up lasts an epoch and begins with 0, the rate falls at each step.
"""

import ml_collections

from mnet_jax import schema
from mnet_jax.models.heads.tables import find_detector


def get_config() -> ml_collections.ConfigDict:
    """The detector with halved tail, its hard negatives, SGD and cosine."""
    config = schema.get_config()
    config.update_from_flattened_dict(find_detector("ssdlite320_v3_large").settings)
    config.data.name = "coco/2017"
    config.data.crop = "ssd"
    config.data.crop_zoom_out = 0.0
    config.data.eval_crop = 1.0
    config.train.batch_size = 192
    config.train.num_epochs = 660.0
    config.optimizer.name = "sgd"
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 4e-5
    config.optimizer.decay_depthwise = True
    config.optimizer.decay_norms = True
    config.schedule.lr_per_256 = 0.2  # 0.15 for 192
    config.schedule.warmup_epochs = 1.0
    config.ema.decay = 0.0
    config.eval.batch_size = 192
    config.eval.every_epochs = 20.0
    config.eval.report = True
    return config
