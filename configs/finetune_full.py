"""Fine-tuning of all layers: for many photos, or photos unlike those that the weights were trained on.

    python train.py --config configs/finetune_full.py --config.init.checkpoint=runs/finetune --config.data.folder=photos

Begin with what configs/finetune.py made of the same folder, so that a random classifier does not shake the backbone
(Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution"). Weights
(`init.weights`) do as well. Each step runs over images: on two CPU cores minutes, where the frozen backbone takes
seconds.
"""

import ml_collections

from mnet_jax.config import load


def get_config() -> ml_collections.ConfigDict:
    """All layers learn, the backbone at a lower rate than the classifier."""
    config = load("finetune")
    config.model.norm_frozen = False  # with frozen statistics the rate must be some ten times lower
    config.model.norm_decay = 0.9  # few steps: the published .99 to .999 would lag behind
    config.train.freeze = "none"
    config.train.embedding_views = 0
    config.train.num_epochs = 10.0
    config.optimizer.backbone_lr = 0.3
    config.optimizer.weight_decay = 1e-4
    config.eval.every_epochs = 1.0
    config.log.every_steps = 10
    return config
