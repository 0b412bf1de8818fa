"""The optimisers and schedules against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnet_jax import schema
from mnet_jax.training.optimizer import decay_mask, make_optimizer, make_schedule
from mnet_jax.training.run_plan import RunPlan

PARAMS = {
    "stem": {"kernel": jnp.array([0.5, -1.0, 2.0]), "norm": {"scale": jnp.array([1.0]), "bias": jnp.array([0.3])}},
    "block": {"depthwise": {"depthwise_kernel": jnp.array([0.7, 0.1])}},
}


def a_plan(total_steps=100, warmup_steps=0, decay_steps=10, peak_lr=0.1):
    return RunPlan(
        total_steps=total_steps, steps_per_epoch=10.0, warmup_steps=warmup_steps, decay_steps=decay_steps,
        peak_lr=peak_lr, eval_steps=10, checkpoint_steps=None, log_steps=1, num_devices=1, device_batch=1,
        num_parts=1, eval_device_batch=1, image_size=(32, 32), image_sizes=((0, (32, 32)),),
    )  # fmt: skip


def rates(config, plan, steps):
    schedule = make_schedule(config, plan)
    return [float(schedule(step)) for step in steps]


def test_cosine_with_warmup():
    config = schema.get_config()
    config.schedule.end_factor = 0.1
    plan = a_plan(total_steps=110, warmup_steps=10)
    steps = np.arange(110)
    expected = np.where(
        steps < 10, 0.1 * (steps + 1) / 10, 0.1 * (0.1 + 0.9 * (1 + np.cos(np.pi * (steps - 10) / 100)) / 2)
    )
    np.testing.assert_allclose(rates(config, plan, steps), expected, rtol=2e-5)


@pytest.mark.parametrize("staircase", [True, False])
def test_exponential(staircase):
    config = schema.get_config()
    config.schedule.name, config.schedule.decay_rate, config.schedule.staircase = "exponential", 0.94, staircase
    steps = np.arange(40)
    exponent = steps // 10 if staircase else steps / 10
    np.testing.assert_allclose(rates(config, a_plan(), steps), 0.1 * 0.94**exponent, rtol=1e-5)


def test_constant():
    config = schema.get_config()
    config.schedule.name = "constant"
    np.testing.assert_allclose(rates(config, a_plan(warmup_steps=2), range(4)), [0.05, 0.1, 0.1, 0.1], rtol=1e-6)


def test_decay_covers_kernels_only():
    assert decay_mask(PARAMS, depthwise=False) == {
        "stem": {"kernel": True, "norm": {"scale": False, "bias": False}},
        "block": {"depthwise": {"depthwise_kernel": False}},
    }
    assert decay_mask(PARAMS, depthwise=True)["block"]["depthwise"]["depthwise_kernel"] is True


def gradients(step):
    return jax.tree.map(lambda p: jnp.cos(p * 3 + step), PARAMS)


def run(config, num_steps=5):
    optimizer = make_optimizer(config, make_schedule(config, a_plan()), ("classifier",))
    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(num_steps):
        updates, state = optimizer.update(gradients(step), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


def reference(rule, num_steps=5):
    """Applies `rule(p, g, slots, step, decays)` leaf by leaf in float64."""

    def leaf(path, p):
        decays, p, slots = path[-1].key == "kernel", np.asarray(p, np.float64), {}
        for step in range(num_steps):
            p = rule(p, np.cos(p_gradient(path, step)), slots, step, decays)
        return p

    def p_gradient(path, step):
        value = PARAMS
        for key in path:
            value = value[key.key]
        return np.asarray(value, np.float64) * 3 + step

    return jax.tree_util.tree_map_with_path(leaf, PARAMS)


def assert_close(got, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)


def constant(**fields):
    config = schema.get_config()
    config.schedule.name = "constant"
    config.optimizer.update(fields)
    return config


def test_rmsprop_is_tensorflows():
    """Squares start at 1, epsilon is inside the root, the rate is inside the momentum."""

    def rule(p, g, slots, step, decays):
        g = g + 0.01 * p * decays
        slots["square"] = 0.9 * slots.get("square", 1.0) + 0.1 * g * g
        slots["momentum"] = 0.9 * slots.get("momentum", 0.0) + 0.1 * g / np.sqrt(slots["square"] + 0.002)
        return p - slots["momentum"]

    assert_close(run(constant(weight_decay=0.01)), reference(rule))


def test_sgd_is_nesterov():
    def rule(p, g, slots, step, decays):
        g = g + 0.01 * p * decays
        slots["momentum"] = 0.9 * slots.get("momentum", 0.0) + g
        return p - 0.1 * (g + 0.9 * slots["momentum"])

    assert_close(run(constant(name="sgd", weight_decay=0.01)), reference(rule))


def test_sgd_as_torchvision_has_it():
    """Plain momentum, and every parameter decays, against torch.optim.SGD's rule."""

    def rule(p, g, slots, step, decays):
        slots["momentum"] = 0.9 * slots.get("momentum", 0.0) + g + 0.01 * p
        return p - 0.1 * slots["momentum"]

    config = constant(name="sgd", weight_decay=0.01, nesterov=False, decay_depthwise=True, decay_norms=True)
    assert_close(run(config), reference(rule))


def test_adamw_decouples_decay():
    def rule(p, g, slots, step, decays):
        slots["m"] = 0.6 * slots.get("m", 0.0) + 0.4 * g
        slots["v"] = 0.99 * slots.get("v", 0.0) + 0.01 * g * g
        m, v = slots["m"] / (1 - 0.6 ** (step + 1)), slots["v"] / (1 - 0.99 ** (step + 1))
        return p - 0.1 * (m / (np.sqrt(v) + 1e-6) + 0.05 * p * decays)

    assert_close(run(constant(name="adamw", weight_decay=0.05, beta1=0.6, beta2=0.99, epsilon=1e-6)), reference(rule))


def test_clipping_scales_the_whole_gradient():
    config = constant(name="sgd", momentum=0.0, weight_decay=0.0, clip_norm=0.5)
    updates, _ = make_optimizer(config, make_schedule(config, a_plan()), ("classifier",)).update(
        gradients(0), make_optimizer(config, make_schedule(config, a_plan()), ("classifier",)).init(PARAMS), PARAMS
    )
    norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(updates)))
    assert norm == pytest.approx(0.1 * 0.5, rel=1e-5)
