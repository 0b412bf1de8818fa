"""LR-ASPP on MobileNetV3-Large at 480 px: the recipe of torchvision's lraspp_mobilenet_v3_large.

    python train.py --config configs/lraspp_v3_large.py --config.init.weights=SOURCE --config.data.folder=VOC2012

`VOC2012` has Pascal VOC's layout (JPEGImages, SegmentationClass, ImageSets/Segmentation); SOURCE is a name of
`mnet weights`. Published: mIoU 57.9 on COCO's val2017 in VOC's 21 classes, measured with a short side of 520 (8 V100, 4
images each, 30 epochs of COCO's train2017 in those classes; torchvision's references/segmentation). On VOC alone, which
is smaller, nobody has published it, and nobody has run this one to the end yet. What differs:
pictures are judged at their own size, and in evaluation fill the input instead of keeping their shape.
"""

import ml_collections

from mnet_jax import schema
from mnet_jax.models.heads.mask_tables import find_segmenter


def get_config() -> ml_collections.ConfigDict:
    """The segmenter, SGD, poly and the jitter of the scale."""
    config = schema.get_config()
    config.update_from_flattened_dict(find_segmenter("lraspp_v3_large").settings)
    config.data.name = "folder"
    config.data.folder = "VOC2012"
    config.data.crop = "scale"
    config.data.eval_crop = 1.0
    config.train.batch_size = 32
    config.train.num_epochs = 30.0
    config.optimizer.name = "sgd"
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 1e-6
    config.optimizer.decay_depthwise = True
    config.optimizer.decay_norms = True
    config.schedule.name = "poly"
    config.schedule.lr_per_256 = 0.08  # 0.01 for 32
    config.ema.decay = 0.0
    config.eval.batch_size = 32
    config.eval.every_epochs = 5.0
    config.eval.report = True
    return config
