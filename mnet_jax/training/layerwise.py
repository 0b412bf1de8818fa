"""What differs from layer to layer while fine-tuning: which layers learn, and how fast.

A layer here is a scope at the top of the parameters: "stem", "block_00" ..., "last_conv", "head", "classifier".
"""

from collections.abc import Iterable, Sequence

import jax
import optax

from mnet_jax.training.state import Tree

_ENDS = ("fusion", "last_conv", "head")  # what follows the blocks, in this order


def split(params: Tree, freeze: str, own_scopes: Sequence[str]) -> tuple[Tree, Tree]:
    """Returns (layers that learn, layers that do not).

    Args:
      params: all layers.
      freeze: `train.freeze`: "none", or "backbone", all but the task's own layers.
      own_scopes: the task's.
    """
    if freeze == "none":
        return params, {}
    learning = {name: params[name] for name in own_scopes}
    return learning, {name: layer for name, layer in params.items() if name not in own_scopes}


def in_order(names: Iterable[str], own_scopes: Sequence[str]) -> list[str]:
    """Returns layers from the image to the outputs; those of the task come last, in its own order."""
    ends = (*_ENDS, *own_scopes)

    def place(name: str) -> tuple[int, str]:
        if name in ends:
            return 2 + ends.index(name), ""
        return (0 if name == "stem" else 1), name

    return sorted(names, key=place)


def rate_factors(
    names: Iterable[str], own_scopes: Sequence[str], *, backbone_lr: float, layer_decay: float
) -> dict[str, float]:
    """Returns what each layer's learning rate is multiplied with.

    The task's own layers have 1; the layer before them `backbone_lr` times `layer_decay`, and each one further back
    `layer_decay` of the next (Clark et al. 2020, "ELECTRA", section 3.1: layer-wise learning-rate decay).
    """
    order = in_order(names, own_scopes)
    backbone = [name for name in order if name not in own_scopes][::-1]
    factors = {name: backbone_lr * layer_decay ** (1 + distance) for distance, name in enumerate(backbone)}
    return {name: factors.get(name, 1.0) for name in order}


def scale_by_layer(
    own_scopes: Sequence[str], *, backbone_lr: float, layer_decay: float
) -> optax.GradientTransformation:
    """Returns a transformation that multiplies updates by their layer's factor: last in a chain it scales the rate."""

    def scale(updates: Tree, params: Tree | None) -> Tree:
        del params
        factors = rate_factors(updates, own_scopes, backbone_lr=backbone_lr, layer_decay=layer_decay)
        return {name: jax.tree.map(lambda x, f=factors[name]: x * f, layer) for name, layer in updates.items()}

    return optax.stateless(scale)


def only_learning(
    optimizer: optax.GradientTransformation, freeze: str, own_scopes: Sequence[str]
) -> optax.GradientTransformation:
    """Returns `optimizer` for the layers that learn.

    It is initialised with all parameters and updates from all of them, but gradients, updates and its own state are of
    the layers that learn only.
    """
    if freeze == "none":
        return optimizer

    def update(updates: Tree, state: optax.OptState, params: Tree) -> tuple[Tree, optax.OptState]:
        return optimizer.update(updates, state, split(params, freeze, own_scopes)[0])

    return optax.GradientTransformation(lambda params: optimizer.init(split(params, freeze, own_scopes)[0]), update)
