"""Layers that do not learn, or slower than others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnet_jax import schema
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.trained import build_model, build_task
from mnet_jax.training import layerwise
from mnet_jax.training.initial import flat
from mnet_jax.training.optimizer import make_optimizer, make_schedule
from mnet_jax.training.parallel import AXIS, Devices
from mnet_jax.training.run_plan import derive
from mnet_jax.training.state import new_state
from mnet_jax.training.step import make_train_step

OWN = ("classifier",)
INFO = DatasetInfo(
    name="set", num_classes=3, class_names=("a", "b", "c"), num_train=64, num_eval=8, train_split="train",
    eval_split="test", mean=(127.5,) * 3, std=(127.5,) * 3,
)  # fmt: skip


def test_factors_fall_from_the_classifier_to_the_stem():
    names = ["block_01", "block_00", "head", "classifier", "stem", "last_conv"]
    assert layerwise.in_order(names, OWN) == ["stem", "block_00", "block_01", "last_conv", "head", "classifier"]
    factors = layerwise.rate_factors(names, OWN, backbone_lr=0.5, layer_decay=0.8)
    expected = [0.5 * 0.8**5, 0.5 * 0.8**4, 0.5 * 0.8**3, 0.5 * 0.8**2, 0.5 * 0.8, 1.0]
    assert [factors[name] for name in layerwise.in_order(names, OWN)] == pytest.approx(expected)


@pytest.mark.parametrize("rule", ["sgd", "rmsprop", "adamw"])
def test_a_factor_is_a_learning_rate(rule):
    """Five updates of one layer with factor f are those of a run whose learning rate is f times as high."""
    params = {"block_00": {"kernel": jnp.array([0.5, -1.0])}, "classifier": {"kernel": jnp.array([2.0, 0.3])}}

    def run(rate, backbone_lr):
        config = schema.get_config()
        config.train.num_steps, config.train.batch_size = 10, 256
        config.schedule.name, config.schedule.lr_per_256 = "constant", rate
        config.optimizer.name, config.optimizer.backbone_lr = rule, backbone_lr
        optimizer = make_optimizer(config, make_schedule(config, derive(config, INFO, 1)), OWN)
        values, state = params, optimizer.init(params)
        for step in range(5):
            gradients = jax.tree.map(lambda p, step=step: jnp.cos(3 * p + step), params)
            updates, state = optimizer.update(gradients, state, values)
            values = optax.apply_updates(values, updates)
        return values

    slow = run(0.1, 0.25)
    np.testing.assert_allclose(slow["block_00"]["kernel"], run(0.025, 1.0)["block_00"]["kernel"], rtol=1e-5)
    np.testing.assert_allclose(slow["classifier"]["kernel"], run(0.1, 1.0)["classifier"]["kernel"], rtol=1e-6)


@pytest.fixture(scope="module")
def frozen():
    """(states after 0 and 2 steps with a frozen backbone on two devices, model, config, task)."""
    config = schema.get_config()
    config.model.name, config.model.width, config.data.image_size = "v1", 0.25, 32
    config.model.norm_frozen, config.train.freeze = True, "backbone"
    config.train.num_steps, config.train.batch_size, config.schedule.lr_per_256 = 4, 8, 10.0
    config.optimizer.weight_decay, config.train.accumulate_steps = 0.1, 2
    config.ema.decay = 0.9
    run, devices = derive(config, INFO, 2), Devices(2)
    model, task = build_model(config, INFO, axis_name=AXIS), build_task(config, INFO)
    schedule = make_schedule(config, run)
    optimizer = make_optimizer(config, schedule, task.own_scopes)
    from mnet_jax.models.variables import initial_variables

    first = new_state(initial_variables(model.list_variables(), 0), optimizer, ema=True)
    step = make_train_step(model, task, optimizer, schedule, config, AXIS)
    step = devices.pmap(step, donate_state=False)
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (8, 32, 32, 3), np.uint8), "label": np.arange(8, dtype=np.int32) % 3,
             "mask": np.ones(8, np.float32)}  # fmt: skip
    state = devices.replicate(first)
    for _ in range(2):
        state, metrics = step(state, devices.split(batch))
    return first, state, metrics


def test_frozen_layers_keep_their_bits_and_the_classifier_learns(frozen):
    first, last, metrics = frozen
    for kind in ("params", "batch_stats"):
        before, after = flat(getattr(first, kind)), flat(getattr(last, kind))
        averaged = flat(last.ema[kind])
        for name, value in after.items():
            moves = name.startswith("classifier/")
            assert (np.asarray(value).tobytes() != np.asarray(before[name]).tobytes()) == moves, name
            assert (np.asarray(averaged[name]).tobytes() != np.asarray(before[name]).tobytes()) == moves, name
    assert float(metrics["gradient_norm"]) > 0
    assert int(last.step) == 2


def test_frozen_layers_have_no_optimizer_state(frozen):
    sizes = [leaf.size for leaf in jax.tree.leaves(frozen[1].opt_state)]
    classifier = sum(leaf.size for leaf in jax.tree.leaves(frozen[1].params["classifier"]))
    assert sum(sizes) <= 2 * classifier + 4  # rmsprop: squares and momentum
