"""MobileNet v1 to v5 in JAX and Flax: public functions, loaded on first use."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnet_jax.deploy.export import export
    from mnet_jax.deploy.formats import load as load_exported
    from mnet_jax.models import list_models
    from mnet_jax.pretrained.load import load_pretrained
    from mnet_jax.tasks.classification.network import create_model
    from mnet_jax.training.checkpoint import load as load_checkpoint

__all__ = ["create_model", "export", "list_models", "load_checkpoint", "load_exported", "load_pretrained"]

__version__ = "0.1.0"

_HOMES = {
    "create_model": ("mnet_jax.tasks.classification.network", "create_model"),
    "export": ("mnet_jax.deploy.export", "export"),
    "list_models": ("mnet_jax.models", "list_models"),
    "load_exported": ("mnet_jax.deploy.formats", "load"),
    "load_pretrained": ("mnet_jax.pretrained.load", "load_pretrained"),
    "load_checkpoint": ("mnet_jax.training.checkpoint", "load"),
}


if not TYPE_CHECKING:  # a type checker would take any name that is asked for

    def __getattr__(name: str) -> object:
        """Imports a public function when it is first asked for, so that `import mnet_jax` costs nothing (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
        module, attribute = _HOMES[name]
        return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
