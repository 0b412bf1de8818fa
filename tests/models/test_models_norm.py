"""Batch normalisation: gradient, rounding, and the same over eight devices as on one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mnet_jax.models.blocks import InvertedResidual
from mnet_jax.models.compute import Compute
from mnet_jax.models.norm import normalize
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.models.variables import initial_variables
from mnet_jax.tasks.classification.network import Classifier

EPSILON = 1e-3


def by_definition(x, scale, bias):
    """Two passes, left to reverse mode."""
    axes = tuple(range(x.ndim - 1))
    centred = x - x.mean(axes, keepdims=True)
    variance = jnp.square(centred).mean(axes, keepdims=True)
    lift = (1,) * (x.ndim - 1) + (-1,)
    return centred / jnp.sqrt(variance + EPSILON) * scale.reshape(lift) + bias.reshape(lift)


@pytest.mark.parametrize("shape", [(4, 5, 6, 8), (5, 7, 8), (17, 3)], ids=["8 parts", "7 parts", "no parts"])
def test_gradient_is_that_of_the_definition(shape):
    keys = jax.random.split(jax.random.key(0), 5)
    x = 2 * jax.random.normal(keys[0], shape) + 1
    scale, bias, shift = (jax.random.normal(key, shape[-1:]) for key in keys[1:4])
    cotangent = jax.random.normal(keys[4], shape)

    def ours(x, scale, bias):
        return normalize(x, scale, bias, shift, EPSILON, None)[0]

    y, pull = jax.vjp(ours, x, scale, bias)
    expected, pull_expected = jax.vjp(by_definition, x, scale, bias)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(pull(cotangent), pull_expected(cotangent), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4])
def test_variance_keeps_its_digits_near_the_running_mean(mean):
    """Deviation 0.1 on a mean up to 10,000: E[x^2] - E[x]^2 in float32 would be off by up to 100 times the variance."""
    x = mean + 0.1 * np.random.default_rng(0).normal(size=(64, 8, 8, 4))
    x = x.astype(np.float32)
    shift = jnp.full((4,), mean + 0.05)
    _, found_mean, variance = normalize(x, jnp.ones(4), jnp.zeros(4), shift, EPSILON, None)
    exact = x.astype(np.float64).reshape(-1, 4)
    np.testing.assert_allclose(found_mean, exact.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance, exact.var(0), rtol=1e-4)


def test_bfloat16_input_gives_float32_statistics():
    x = (3 + jax.random.normal(jax.random.key(0), (32, 7, 7, 8))).astype(jnp.bfloat16)
    y, mean, variance = normalize(x, jnp.ones(8), jnp.zeros(8), jnp.zeros(8), EPSILON, None)
    assert y.dtype == mean.dtype == variance.dtype == jnp.float32
    exact = np.asarray(x, np.float64).reshape(-1, 8)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, exact.var(0), rtol=1e-4)
    gradient = jax.grad(lambda x: normalize(x, jnp.ones(8), jnp.zeros(8), jnp.zeros(8), EPSILON, None)[0][0].sum())(x)
    assert gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_bfloat16_result_and_gradient_are_those_of_the_rounded_input(mean):
    """Mean and bias are one vector there; against float64, with a mean of ten deviations too."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(mean + rng.normal(size=(16, 7, 7, 8)), jnp.bfloat16)
    scale, bias = rng.normal(size=(2, 8)).astype(np.float32)
    dy = rng.normal(size=x.shape).astype(np.float32)
    y, pull = jax.vjp(lambda x, s, b: normalize(x, s, b, jnp.zeros(8), EPSILON, None)[0], x, scale, bias)
    dx, dscale, dbias = pull(dy)

    exact = np.asarray(x, np.float64)
    rows = (0, 1, 2)
    deviation = np.sqrt(exact.var(rows) + EPSILON)
    hat = (exact - exact.mean(rows)) / deviation
    np.testing.assert_allclose(y, hat * scale + bias, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dscale, (dy * hat).sum(rows), rtol=1e-4, atol=2e-2)
    np.testing.assert_allclose(dbias, dy.sum(rows), rtol=1e-4, atol=1e-3)
    expected = scale / deviation * (dy - dy.mean(rows) - hat * (dy * hat).mean(rows))
    np.testing.assert_allclose(np.asarray(dx, np.float64), expected, rtol=2**-8, atol=1e-4)


def test_synchronised_over_eight_devices_is_the_global_batch():
    """Logits, statistics and gradients of a narrow network, images spread over the devices or all on one."""
    assert jax.device_count() == 8
    block = InvertedResidual(expanded=48, features=24, stride=2, squeeze_excite=True, activation="hard_swish")
    spec = dataclasses.replace(SPECS["v3_small"], blocks=(block,), last_conv=None, head=None)
    alone = Classifier(resolve(spec, num_classes=5, dropout=0.0))
    together = alone.clone(compute=Compute(norm_axis_name="devices"))
    variables = initial_variables(alone.list_variables(), seed=0)
    images = 1 + jax.random.normal(jax.random.key(1), (16, 16, 16, 3))
    images *= jnp.arange(16).reshape(16, 1, 1, 1) / 8  # devices see very different batches
    weights = jax.random.normal(jax.random.key(2), (16, 5))

    def loss(params, images, weights, model):
        logits, updates = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return (logits * weights).mean(), (logits, updates["batch_stats"])

    @functools.partial(jax.value_and_grad, has_aux=True)
    def global_loss(params):
        return loss(params, images, weights, alone)

    def device_step(params, images, weights):
        (_, (logits, stats)), grads = jax.value_and_grad(loss, has_aux=True)(params, images, weights, together)
        return logits, stats, jax.lax.pmean(grads, "devices")

    (_, (logits, stats)), grads = jax.jit(global_loss)(variables["params"])
    spread, whole = PartitionSpec("devices"), PartitionSpec()
    step = jax.shard_map(
        device_step,
        mesh=jax.make_mesh((8,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,)),
        in_specs=(whole, spread, spread),
        out_specs=(spread, whole, whole),
        check_vma=False,
    )
    many_logits, many_stats, many_grads = jax.jit(step)(variables["params"], images, weights)
    np.testing.assert_allclose(many_logits, logits, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(many_stats), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(many_grads), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-5 + 1e-4 * np.abs(theirs).max())
