"""MobileNetV4-Hybrid-Large on ImageNet at 384 px, 500 epochs.

    python train.py --config configs/v4_hybrid_large.py --workdir gs://BUCKET/v4_hybrid_large --config.data.data_dir=gs://BUCKET/tfds

Hardware: meant for a Cloud TPU slice; the batch of 1024 is the whole slice's and the learning rate follows it when you
change it. Nobody has run it to the end on the full ImageNet yet, so there is no hour count or accuracy of ours.
Published: 83.4 top-1 in the paper (arXiv 2404.10518, table 5); 84.00 by timm, 600 epochs.
The recipe follows Model Garden's AdamW + cosine at batch 16384, with the rate scaled to this batch.
"""

import ml_collections

from mnet_jax import schema


def get_config() -> ml_collections.ConfigDict:
    """MobileNetV4-Hybrid-Large, AdamW and cosine."""
    config = schema.get_config()
    config.model.name = "v4_hybrid_large"
    config.model.dtype = "bfloat16"
    config.model.dropout = 0.2
    config.model.drop_path = 0.35
    config.data.image_size = 384
    config.augment.randaugment_layers = 2
    config.augment.randaugment_magnitude = 10.0
    config.augment.randaugment_prob = 0.7
    config.augment.mixup_alpha = 0.8
    config.augment.cutmix_alpha = 1.0
    config.augment.mix_prob = 0.3
    config.train.part_size = 128  # fits one v5e chip's 16 GiB (docs/tpu.md)
    config.train.num_epochs = 500.0
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.2
    config.optimizer.epsilon = 1e-07
    config.schedule.lr_per_256 = 0.00015625
    config.optimizer.clip_norm = 1.0
    config.schedule.warmup_epochs = 5.0
    config.eval.every_epochs = 5.0
    return config
