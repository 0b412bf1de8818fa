"""Every variable of a plan: where it lives, its shape and how it starts. NumPy only.

The Flax modules declare the same variables, and a test holds the two together. This list is for those who need
variables without running a model: counting, importing published weights, and starting a run without compiling anything.
"""

import dataclasses
import math
import zlib

import numpy as np

from mnet_jax.models import plans


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variable:
    """One array, float32; starts as `mean` plus a normal distribution of `deviation`."""

    collection: str  # "params" or "batch_stats"
    path: tuple[str, ...]  # scopes and leaf, such as ("block_03", "depthwise", "norm", "scale")
    shape: tuple[int, ...]
    mean: float = 0.0
    deviation: float = 0.0

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def list_variables(plan: plans.ModelPlan) -> list[Variable]:
    """All variables of the network, in the order in which its layers run."""
    variables = layer_variables(plan.stem)
    for block in plan.blocks:
        variables += block_variables(block)
    for layer in (plan.last_conv, plan.head, plan.classifier):
        if layer is not None:
            variables += layer_variables(layer)
    return variables if plan.quantization is None else variables + range_variables(plan)


def range_variables(plan: plans.ModelPlan) -> list[Variable]:
    """The ranges that quantised training observes, each (lowest, highest); (0, 0) until it has seen a batch."""
    paths = [("pool_range",)]
    for layer in (plan.stem, plan.last_conv, plan.head, plan.classifier):
        paths += [(layer.name, name) for name in layer.ranges] if layer is not None else []
    for block in plan.blocks:
        for layer in block.layers:
            if isinstance(layer, plans.SqueezeExcitePlan):
                scope = (block.name, layer.name)
                paths += [(*scope, "pool_range"), (*scope, "output_range")]
                paths += [(*scope, inner.name, name) for inner in (layer.reduce, layer.expand) for name in inner.ranges]
            else:
                paths += [(block.name, layer.name, name) for name in layer.ranges]
        if block.residual:
            paths.append((block.name, "output_range"))
    return [Variable(collection="batch_stats", path=path, shape=(2,)) for path in paths]


def block_variables(block: plans.BlockPlan) -> list[Variable]:
    """All variables of one block."""
    variables = [variable for layer in block.layers for variable in layer_variables(layer, (block.name,))]
    layer_scale = getattr(block, "layer_scale", None)
    if layer_scale is not None:
        path = (block.name, "layer_scale")
        variables.append(Variable(collection="params", path=path, shape=(block.features,), mean=layer_scale))
    return variables


def layer_variables(layer: plans.LayerPlan, scope: tuple[str, ...] = ()) -> list[Variable]:
    """All variables of one layer inside `scope`."""
    scope = (*scope, layer.name)
    match layer:
        case plans.SqueezeExcitePlan():
            return layer_variables(layer.reduce, scope) + layer_variables(layer.expand, scope)
        case plans.NormPlan():
            return _norm(layer.features, scope)
        case plans.ConvPlan():
            path, shape = (*scope, layer.kernel_name), layer.kernel_shape
            variables = [Variable(collection="params", path=path, shape=shape, deviation=layer.kernel_deviation)]
            if layer.norm:
                variables += _norm(layer.features, (*scope, "norm"))
            if layer.bias:
                variables.append(Variable(collection="params", path=(*scope, "bias"), shape=(layer.features,)))
            return variables


def _norm(features: int, scope: tuple[str, ...]) -> list[Variable]:
    leaves = (
        ("params", "scale", 1.0),
        ("params", "bias", 0.0),
        ("batch_stats", "mean", 0.0),
        ("batch_stats", "var", 1.0),
    )
    return [
        Variable(collection=collection, path=(*scope, leaf), shape=(features,), mean=mean)
        for collection, leaf, mean in leaves
    ]


def initial_variables(plan: plans.ModelPlan, seed: int) -> dict[str, dict]:
    """Fresh variables {"params": ..., "batch_stats": ...} as NumPy arrays, distributed as those of `model.init`.

    Nothing is traced or compiled (the compiled `model.init` of v3_small costs 20 s of CPU time, nearly all of it for
    random bits), and the values are the same on every backend: a leaf's depend on the seed and its path alone.
    """
    tree = {"params": {}, "batch_stats": {}}
    for variable in list_variables(plan):
        scope = tree[variable.collection]
        for name in variable.path[:-1]:
            scope = scope.setdefault(name, {})
        value = np.full(variable.shape, variable.mean, np.float32)
        if variable.deviation:
            generator = np.random.default_rng([seed, zlib.crc32("/".join(variable.path).encode())])
            value += np.float32(variable.deviation) * generator.standard_normal(variable.shape, np.float32)
        scope[variable.path[-1]] = value
    return tree
