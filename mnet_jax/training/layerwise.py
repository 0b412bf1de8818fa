"""What differs from layer to layer while fine-tuning: which layers learn, and how fast.

A layer here is a scope at the top of the parameters: "stem", "block_00" ..., "last_conv", "head", "classifier".
"""

from collections.abc import Iterable

import jax
import optax

from mnet_jax.training.state import Tree

HEAD = "classifier"  # what starts fresh for other classes; all other layers are the backbone
_ENDS = ("last_conv", "head", HEAD)  # what follows the blocks, in this order


def split(params: Tree, freeze: str) -> tuple[Tree, Tree]:
    """(layers that learn, layers that do not) by `train.freeze`: "none", or "backbone", all but the classifier."""
    if freeze == "none":
        return params, {}
    return {HEAD: params[HEAD]}, {name: layer for name, layer in params.items() if name != HEAD}


def in_order(names: Iterable[str]) -> list[str]:
    """Layers from the image to the logits."""

    def place(name: str) -> tuple[int, str]:
        if name in _ENDS:
            return 2 + _ENDS.index(name), ""
        return (0 if name == "stem" else 1), name

    return sorted(names, key=place)


def rate_factors(names: Iterable[str], *, backbone_lr: float, layer_decay: float) -> dict[str, float]:
    """What each layer's learning rate is multiplied with.

    The classifier has 1; the layer before it `backbone_lr` times `layer_decay`, and each one further back `layer_decay`
    of the next (Clark et al. 2020, "ELECTRA", section 3.1: layer-wise learning-rate decay).
    """
    backwards = in_order(names)[::-1]
    return {
        name: (1.0 if name == HEAD else backbone_lr) * layer_decay**distance for distance, name in enumerate(backwards)
    }


def scale_by_layer(*, backbone_lr: float, layer_decay: float) -> optax.GradientTransformation:
    """Multiplies updates by their layer's factor: last in a chain it scales the layer's learning rate."""

    def scale(updates: Tree, params: Tree | None) -> Tree:
        del params
        factors = rate_factors(updates, backbone_lr=backbone_lr, layer_decay=layer_decay)
        return {name: jax.tree.map(lambda x, f=factors[name]: x * f, layer) for name, layer in updates.items()}

    return optax.stateless(scale)


def only_learning(optimizer: optax.GradientTransformation, freeze: str) -> optax.GradientTransformation:
    """`optimizer` for the layers that learn.

    It is initialised with all parameters and updates from all of them, but gradients, updates and its own state are of
    the layers that learn only.
    """
    if freeze == "none":
        return optimizer

    def update(updates: Tree, state: optax.OptState, params: Tree) -> tuple[Tree, optax.OptState]:
        return optimizer.update(updates, state, split(params, freeze)[0])

    return optax.GradientTransformation(lambda params: optimizer.init(split(params, freeze)[0]), update)
