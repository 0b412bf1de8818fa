"""MobileNetV1 1.0 on ImageNet at 224 px, 300 epochs.

    python train.py --config configs/v1.py --workdir gs://BUCKET/v1 --config.data.data_dir=gs://BUCKET/tfds

Hardware: meant for a Cloud TPU slice; the batch of 1024 is the whole slice's and the learning rate follows it when you
change it. Nobody has run it to the end on the full ImageNet yet, so there is no hour count or accuracy of ours.
Published: 70.6 top-1 in the paper (arXiv 1704.04861, table 6); 72.33 by TensorFlow Model Garden, RMSprop, 500 epochs.
The published runs use RMSprop with an exponential staircase, not a cosine. For Model Garden's schedule:
    config.train.num_epochs = 500.0
    config.schedule.name = "exponential"
    config.schedule.decay_rate = 0.94
    config.schedule.decay_epochs = 2.5
"""

import ml_collections

from mnet_jax import schema


def get_config() -> ml_collections.ConfigDict:
    """MobileNetV1, RMSprop and cosine."""
    config = schema.get_config()
    config.model.name = "v1"
    config.model.dtype = "bfloat16"
    config.train.num_epochs = 300.0
    config.schedule.warmup_epochs = 5.0
    config.eval.every_epochs = 5.0
    return config
