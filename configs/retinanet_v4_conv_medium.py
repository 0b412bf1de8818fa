"""RetinaNet on MobileNetV4-Conv-M on COCO at 384 px, after the paper of MobileNetV4 and TensorFlow's model garden.

    python train.py --config configs/retinanet_v4_conv_medium.py --config.data.data_dir=gs://BUCKET/tfds

Published: AP 32.6 on val2017 (arXiv 2404.10518, table 7), and 34.0 with --config.model.name=v4_hybrid_medium: 600
epochs, batches of 2,048, Adam, l2 3e-5, cosine with 24 epochs of warm-up, drop path 0.2, random scale. The paper tunes
the rate for each network and does not tell it: the one here is a guess. Losses, anchors and thresholds are those of the
model garden's mobile RetinaNet. Nobody has run this one to the end yet. What differs: weight decay is decoupled
(AdamW), the random scale is a crop of SSD with zooming out, RandAugment recolours only.
"""

import ml_collections

from mnet_jax import schema
from mnet_jax.models.heads.tables import find_detector


def get_config() -> ml_collections.ConfigDict:
    """The detector, its focal loss, AdamW and cosine."""
    config = schema.get_config()
    config.update_from_flattened_dict(find_detector("retinanet384_v4_conv_medium").settings)
    config.model.drop_path = 0.2
    config.model.dtype = "bfloat16"
    config.data.name = "coco/2017"
    config.data.crop = "ssd"
    config.task.focal_alpha = 0.25
    config.task.box_weight = 12.5  # 50 times the mean over the four numbers of a code
    config.task.score_threshold = 0.05
    config.task.nms_iou = 0.5
    config.augment.randaugment_layers = 2
    config.train.batch_size = 2048
    config.train.part_size = 64
    config.train.num_epochs = 600.0
    config.optimizer.name = "adamw"
    config.optimizer.epsilon = 1e-7
    config.optimizer.weight_decay = 3e-5
    config.schedule.lr_per_256 = 0.0005
    config.schedule.warmup_epochs = 24.0
    config.ema.decay = 0.0
    config.eval.batch_size = 256
    config.eval.every_epochs = 20.0
    config.eval.report = True
    return config
