"""What a MobileNet is: specs and plans (pure data), and the Flax linen modules that run them."""

from mnet_jax.models.mobilenet import MobileNet, create_model, list_models

__all__ = ["MobileNet", "create_model", "list_models"]
