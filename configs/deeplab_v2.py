"""DeepLabv3 without dilated branches on MobileNetV2 on Pascal VOC at 513 px: the recipe of TensorFlow's DeepLab.

    python train.py --config configs/deeplab_v2.py --config.init.weights=SOURCE --config.data.folder=VOC2012

`VOC2012` has Pascal VOC's layout; with the augmented list (10,582 images) as ImageSets/Segmentation/train.txt it is
"train_aug". SOURCE is a name of `mnet weights`. Published: mIoU 75.32 on VOC val, from COCO's masks
(mobilenetv2_coco_voc_trainaug; MobileNetV2's paper, table 7), 30,000 steps of 16 images, SGD with rate 0.007, poly with
power 0.9, weight decay 4e-5. From ImageNet weights less is to be expected, and nobody has run this one to the end yet.
What differs from it: pictures fill the input in evaluation instead of being padded.
"""

import ml_collections

from mnet_jax import schema
from mnet_jax.models.heads.mask_tables import find_segmenter


def get_config() -> ml_collections.ConfigDict:
    """The segmenter, SGD, poly and the jitter of the scale."""
    config = schema.get_config()
    config.update_from_flattened_dict(find_segmenter("deeplab_v2_tf").settings)
    config.data.name = "folder"
    config.data.folder = "VOC2012"
    config.data.crop = "scale"
    config.data.eval_crop = 1.0
    config.train.batch_size = 16
    config.train.num_steps = 30_000
    config.optimizer.name = "sgd"
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 4e-5
    config.schedule.name = "poly"
    config.schedule.lr_per_256 = 0.112  # 0.007 for 16
    config.ema.decay = 0.0
    config.eval.batch_size = 16
    config.eval.every_steps = 3000
    config.eval.report = True
    config.checkpoint.every_steps = 1000
    return config
