"""Every variable of a plan, and how all of them start. NumPy only.

The Flax modules declare the same variables, and a test holds the two together. These lists are for those who need
variables without running a model: counting, importing published weights, and starting a run without compiling anything.
"""

import zlib
from collections.abc import Iterable

import numpy as np

from mnet_jax.models.plans import ModelPlan, Variable


def list_variables(plan: ModelPlan, *, embedding: bool = True) -> list[Variable]:
    """Returns all variables of the plan in the order in which its layers run, then the ranges of quantised training.

    Args:
      plan: the network.
      embedding: whether the embedding is used, and the classifier where there is one; otherwise those that maps need.
    """
    above = (plan.fusion, plan.last_conv, plan.head, plan.classifier) if embedding else ()
    layers = [layer for layer in (plan.stem, *above) if layer is not None]
    variables = plan.stem.variables(plan.norm)
    for block in plan.blocks:
        variables += block.variables(plan.norm)
    for layer in layers[1:]:
        variables += layer.variables(plan.norm)
    if plan.quantization is None:
        return variables
    # Each range is (lowest, highest): (0, 0) until training has seen a batch. That of the pooled vector is the
    # network's own, used or not.
    paths = [("pool_range",)]
    for part in (*layers, *plan.blocks):
        paths += part.ranges()
    return variables + list_ranges(paths)


def list_ranges(paths: Iterable[tuple[str, ...]]) -> list[Variable]:
    """Returns the variables of ranges of quantised training, (lowest, highest) each, by their paths."""
    return [Variable(collection="batch_stats", path=path, shape=(2,)) for path in paths]


def initial_variables(variables: Iterable[Variable], seed: int) -> dict[str, dict]:
    """Returns fresh variables {"params": ..., "batch_stats": ...} as NumPy arrays, distributed as those of `init`.

    Nothing is traced or compiled (the compiled `init` of v3_small costs 20 s of CPU time, nearly all of it for random
    bits), and the values are the same on every backend: a leaf's depend on the seed and its path alone.
    """
    tree = {"params": {}, "batch_stats": {}}
    for variable in variables:
        scope = tree[variable.collection]
        for name in variable.path[:-1]:
            scope = scope.setdefault(name, {})
        value = np.full(variable.shape, variable.mean, np.float32)
        if variable.deviation:
            generator = np.random.default_rng([seed, zlib.crc32("/".join(variable.path).encode())])
            value += np.float32(variable.deviation) * generator.standard_normal(variable.shape, np.float32)
        scope[variable.path[-1]] = value
    return tree
