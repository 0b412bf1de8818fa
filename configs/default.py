"""The schema's defaults as a run: MobileNetV3-Large on ImageNet at 224 px, every field as `mnet_jax/schema.py` has it.

    python train.py --config configs/default.py --config.train.num_epochs=600.0

The length of the run has no default. Start a config of your own from `mnet_jax.schema.get_config()`.
"""

from mnet_jax.schema import get_config

__all__ = ["get_config"]
