"""What a MobileNet is: specs and plans (pure data), and the Flax linen modules that run them.

`create_model` and `MobileNet` are loaded on first use: whoever only reads plans does not wait for jax.
"""

from typing import TYPE_CHECKING

from mnet_jax.models.tables import list_models

if TYPE_CHECKING:
    from mnet_jax.models.mobilenet import MobileNet, create_model

__all__ = ["MobileNet", "create_model", "list_models"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    from mnet_jax.models import mobilenet

    return getattr(mobilenet, name)
