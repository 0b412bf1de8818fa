"""Parameters, batch statistics and multiply-adds against numbers counted elsewhere."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import pytest

from mnet_jax.models import list_models
from mnet_jax.models.count import summarize
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.tasks.classification.network import create_model

COUNTS = json.loads((pathlib.Path(__file__).parent / "exact_counts.json").read_text())
GOLDEN = COUNTS["published"]
NETWORKS = sorted({tuple(row[:3] + row[4:6]) for row in GOLDEN})  # the same at every image size

# Parameters at width 0.75 of the networks that the golden rows have only at width 1 (counted with TensorFlow's rule).
NARROW = {
    "v1": 2_585_560,
    "v2": 2_636_424,
    "v3_large": 3_993_528,
    "v3_small": 2_041_872,
    "v4_conv_small": 2_931_952,
    "v4_conv_medium": 6_325_616,
    "v4_conv_large": 19_267_880,
    "v4_hybrid_medium": 7_295_824,
    "v4_hybrid_large": 22_754_984,
}


def test_every_model_has_golden_counts():
    assert len(GOLDEN) == 134
    # The reduced ones the papers count under their heads alone: tests/tasks/test_segmentation_network.py.
    reduced = {name for name in list_models() if name.endswith("_rf2")}
    assert sorted({row[0] for row in GOLDEN}) == sorted(set(list_models()) - reduced)


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: "-".join(map(str, row[:4])))
def test_plan_counts(row):
    name, width, rule, image_size, params, batch_statistics, multiply_adds = row
    _, totals = summarize(resolve(SPECS[name], num_classes=1000, width=width, width_rule=rule), image_size)
    assert totals.params == params
    assert totals.batch_statistics == batch_statistics
    assert totals.variables == params + batch_statistics
    assert totals.multiply_adds == multiply_adds


@pytest.mark.parametrize(("name", "params"), NARROW.items())
def test_plan_counts_at_width_075(name, params):
    assert summarize(resolve(SPECS[name], num_classes=1000, width=0.75), 224)[1].params == params


@pytest.mark.parametrize(("name", "rule"), sorted({(row[0], row[2]) for row in COUNTS["libraries"]}))
def test_plan_counts_at_the_widths_of_libraries(name, rule):
    """From width 0.1 to 2, the counts of timm and torchvision."""
    for network, width, their_rule, params, batch_statistics in COUNTS["libraries"]:
        if network == name and their_rule == rule:
            _, totals = summarize(resolve(SPECS[name], num_classes=1000, width=width, width_rule=rule), 64)
            assert (width, totals.params, totals.batch_statistics) == (width, params, batch_statistics)


@pytest.mark.parametrize(
    "network",
    [pytest.param(network, marks=pytest.mark.long if network[0] == "v5_300m" else ()) for network in NETWORKS],
    ids=["-".join(map(str, network[:3])) for network in NETWORKS],
)
def test_flax_variables_are_those_of_the_plan(network):
    """The real init, traced without running: same paths, shapes and float32 as the plan's list; exact golden counts."""
    name, width, rule, params, batch_statistics = network
    model = create_model(name, width=width, width_rule=rule)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    leaves = {
        tuple(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
        if leaf.dtype == jnp.float32
    }
    assert leaves == {(variable.collection, *variable.path): variable.shape for variable in model.list_variables()}
    count = {
        collection: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes[collection])) for collection in shapes
    }
    assert {"batch_stats": 0} | count == {"params": params, "batch_stats": batch_statistics}
