"""MobileNetV4-Hybrid-Medium on ImageNet at 256 px, 500 epochs.

    python train.py --config configs/v4_hybrid_medium.py --workdir gs://BUCKET/v4_hybrid_medium --config.data.data_dir=gs://BUCKET/tfds

Hardware: meant for a Cloud TPU slice; the batch of 1024 is the whole slice's and the learning rate follows it when you
change it. Nobody has run it to the end on the full ImageNet yet, so there is no hour count or accuracy of ours.
Published: 80.7 top-1 in the paper (arXiv 2404.10518, table 5); 81.48 by timm, 550 epochs.
The recipe follows Model Garden's AdamW + cosine at batch 16384, with the rate scaled to this batch.
"""

import ml_collections

from mnet_jax import schema


def get_config() -> ml_collections.ConfigDict:
    """MobileNetV4-Hybrid-Medium, AdamW and cosine."""
    config = schema.get_config()
    config.model.name = "v4_hybrid_medium"
    config.model.dtype = "bfloat16"
    config.model.dropout = 0.2
    config.model.drop_path = 0.075
    config.data.image_size = 256
    config.augment.randaugment_layers = 2
    config.augment.randaugment_magnitude = 10.0
    config.augment.randaugment_prob = 0.7
    config.train.part_size = 512  # fits one v5e chip's 16 GiB (docs/tpu.md)
    config.train.num_epochs = 500.0
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.1
    config.optimizer.epsilon = 1e-07
    config.schedule.lr_per_256 = 0.00025
    config.optimizer.clip_norm = 1.0
    config.schedule.warmup_epochs = 5.0
    config.eval.every_epochs = 5.0
    return config
