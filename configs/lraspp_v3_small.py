"""LR-ASPP on MobileNetV3-Small, its tail halved, on Cityscapes: crops of 512x1024, the head of V3's paper.

    python train.py --config configs/lraspp_v3_small.py --workdir gs://BUCKET/m --config.data.data_dir=gs://BUCKET/tfds

Published: mIoU 68.38 on Cityscapes val (V3's paper, table 7, row 11, from scratch, no recipe); 62.74 from scratch and
64.11 from ImageNet weights in mmsegmentation 1.2.2 (320,000 steps of 16 images), whose recipe this is: SGD with rate
0.01, poly with power 0.9, weight decay 5e-4. Nobody has run this one to the end yet. What differs from it: the rate
ends at 0, and the head is the paper's.

TFDS's `cityscapes` needs the archives of its owners. Pictures have twice the sides of the crop: in evaluation they are
halved, and factor 2 of the crops is their own size.
"""

import ml_collections

from mnet_jax import schema
from mnet_jax.models.heads.mask_tables import find_segmenter


def get_config() -> ml_collections.ConfigDict:
    """The segmenter, SGD, poly and the jitter of the scale."""
    config = schema.get_config()
    config.update_from_flattened_dict(find_segmenter("lraspp_v3_small_tf").settings)
    config.data.name = "cityscapes"
    config.data.image_size = (512, 1024)
    config.data.crop = "scale"
    config.data.eval_crop = 1.0
    config.augment.brightness = 0.1
    config.augment.contrast = 0.3
    config.augment.saturation = 0.3
    config.train.batch_size = 16
    config.train.num_steps = 320_000
    config.optimizer.name = "sgd"
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay_depthwise = True
    config.optimizer.decay_norms = True
    config.schedule.name = "poly"
    config.schedule.lr_per_256 = 0.16  # 0.01 for 16
    config.ema.decay = 0.0
    config.eval.batch_size = 16
    config.eval.every_steps = 20_000
    config.eval.report = True
    config.checkpoint.every_steps = 5000
    return config
