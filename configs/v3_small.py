"""MobileNetV3-Small 1.0 on ImageNet at 224 px, 600 epochs.

    python train.py --config configs/v3_small.py --workdir gs://BUCKET/v3_small --config.data.data_dir=gs://BUCKET/tfds

Hardware: meant for a Cloud TPU slice; the batch of 1024 is the whole slice's and the learning rate follows it when you
change it. Nobody has run it to the end on the full ImageNet yet, so there is no hour count or accuracy of ours.
Published: 67.4 top-1 in the paper (arXiv 1905.02244, table 3); 67.67 by torchvision, RMSprop and staircase, 600 epochs.
The published RMSprop runs use an exponential staircase, not a cosine. For the paper's, as Model Garden has it:
    config.train.num_epochs = 1000.0
    config.schedule.name = "exponential"
    config.schedule.decay_rate = 0.99
    config.schedule.decay_epochs = 3.0
"""

import ml_collections

from mnet_jax import schema


def get_config() -> ml_collections.ConfigDict:
    """MobileNetV3-Small, RMSprop and cosine."""
    config = schema.get_config()
    config.model.name = "v3_small"
    config.model.dtype = "bfloat16"
    config.train.num_epochs = 600.0
    config.schedule.warmup_epochs = 5.0
    config.eval.every_epochs = 5.0
    return config
