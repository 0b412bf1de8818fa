"""What a network is: `tables.find_spec(name)` -> `resolve.resolve` -> a plan, which the modules, counting, import of
published weights and export read.

`MobileNet` is loaded on first use: whoever only reads plans does not wait for jax.
"""

from typing import TYPE_CHECKING

from mnet_jax.models.tables import list_models

if TYPE_CHECKING:
    from mnet_jax.models.mobilenet import MobileNet

__all__ = ["MobileNet", "list_models"]


def __getattr__(name: str) -> object:
    if name != "MobileNet":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    from mnet_jax.models.mobilenet import MobileNet

    return MobileNet
