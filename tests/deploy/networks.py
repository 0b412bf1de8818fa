"""Networks with random weights and random batch statistics: everything that folding touches differs from its start."""

import numpy as np

from mnet_jax.deploy import fold as folding
from mnet_jax.deploy.metadata import About
from mnet_jax.models.variables import list_variables
from mnet_jax.tasks.classification import export
from mnet_jax.tasks.classification.network import Classifier

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

# By leaf. Layer scales are kept small: larger ones let random attention saturate, and a softmax of scores in the
# thousands turns the last bit of a sum into another result, in the unfolded network as well.
_UNIFORM = {
    "scale": (0.7, 1.4),
    "var": (0.5, 1.5),
    "bias": (-0.5, 0.5),
    "mean": (-0.5, 0.5),
    "layer_scale": (0.05, 0.2),
}


def fold(plan, variables, *, output="logits", **options):
    """The graph of a classifier."""
    return folding.fold(plan, variables, lambda graph: export.head(graph, Classifier(plan), None, output), **options)


def random_variables(plan, seed=0, listed=None):
    """Random values of a plan's variables, or of those that a network lists."""
    generator = np.random.default_rng(seed)
    tree = {"params": {}, "batch_stats": {}}
    for variable in listed or list_variables(plan):
        scope = tree[variable.collection]
        for name in variable.path[:-1]:
            scope = scope.setdefault(name, {})
        leaf = variable.path[-1]
        if leaf in _UNIFORM:
            value = generator.uniform(*_UNIFORM[leaf], variable.shape)
        else:
            value = variable.deviation * generator.standard_normal(variable.shape)
        scope[leaf] = value.astype(np.float32)
    return tree


def random_images(size, count=2, seed=1):
    """Patches of random colours: noise of single pixels averages out, and all images would give the same logits."""
    height, width = size if isinstance(size, tuple) else (size, size)
    patches = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return patches[:, rows][:, :, columns]


def normalized(images):
    return (images - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)


def about(plan, size, **changes):
    fields = {
        "model": plan.name,
        "width": plan.width,
        "class_names": tuple(f"class {number}" for number in range(plan.num_classes)),
        "image_size": size if isinstance(size, tuple) else (size, size),
        "input": "uint8",
        "output": "logits",
        "quantize": "none",
        "mean": MEAN,
        "std": STD,
        "eval_crop": 0.875,
        "interpolation": "bilinear",
        "source": "random weights",
        "step": 0,
        "version": "0.1.0",
    }
    return About(**fields | changes)
