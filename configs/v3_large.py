"""MobileNetV3-Large 1.0 on ImageNet at 224 px, 600 epochs.

    python train.py --config configs/v3_large.py --workdir gs://BUCKET/v3_large --config.data.data_dir=gs://BUCKET/tfds

Hardware: meant for a Cloud TPU slice; the batch of 1024 is the whole slice's and the learning rate follows it when you
change it. Nobody has run it to the end on the full ImageNet yet, so there is no hour count or accuracy of ours.
Published: 75.2 top-1 in the paper (arXiv 1905.02244, table 3); 75.78 by timm, RMSprop with a staircase, 600 epochs.
The published RMSprop runs use an exponential staircase, not a cosine. For timm's schedule:
    config.schedule.name = "exponential"
    config.schedule.decay_rate = 0.973
    config.schedule.decay_epochs = 2.4
The paper's own: decay_rate 0.99 each 3 epochs, batch 4096, rate 0.1.
"""

import ml_collections

from mnet_jax import schema


def get_config() -> ml_collections.ConfigDict:
    """MobileNetV3-Large, RMSprop and cosine, RandAugment and random erasing as in timm's recipe."""
    config = schema.get_config()
    config.model.name = "v3_large"
    config.model.dtype = "bfloat16"
    config.model.drop_path = 0.2
    config.augment.randaugment_layers = 2
    config.augment.erase_prob = 0.2
    config.train.num_epochs = 600.0
    config.schedule.warmup_epochs = 5.0
    config.eval.every_epochs = 5.0
    return config
