"""MobileNetV4-Conv-Small on ImageNet at 224 px, 2400 epochs.

    python train.py --config configs/v4_conv_small.py --workdir gs://BUCKET/v4_conv_small --config.data.data_dir=gs://BUCKET/tfds

Hardware: meant for a Cloud TPU slice; the batch of 1024 is the whole slice's and the learning rate follows it when you
change it. Nobody has run it to the end on the full ImageNet yet, so there is no hour count or accuracy of ours.
Published: 73.8 top-1 in the paper (arXiv 2404.10518, table 5, about 9,600 epochs); 73.76 by timm, 2,400 epochs.
The recipe follows Model Garden's AdamW + cosine at batch 4096, with the rate scaled to this batch.
"""

import ml_collections

from mnet_jax import schema


def get_config() -> ml_collections.ConfigDict:
    """MobileNetV4-Conv-Small, AdamW and cosine."""
    config = schema.get_config()
    config.model.name = "v4_conv_small"
    config.model.dtype = "bfloat16"
    config.model.dropout = 0.3
    config.augment.randaugment_layers = 2
    config.augment.randaugment_magnitude = 9.0
    config.augment.randaugment_prob = 0.5
    config.train.num_epochs = 2400.0
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.01
    config.optimizer.beta1 = 0.6
    config.optimizer.epsilon = 1e-06
    config.schedule.lr_per_256 = 0.000125
    config.schedule.warmup_epochs = 5.0
    config.eval.every_epochs = 5.0
    return config
