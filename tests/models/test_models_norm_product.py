"""Batch normalisation of x @ kernel: its gradient, which never reads the product, against the direct one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnet_jax.models import norm_product
from mnet_jax.tasks.classification.network import create_model


def operands(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(4, 9, 7, 8)) + 0.5, dtype)
    kernel = jnp.asarray(rng.normal(size=(8, 32)) * 0.4, dtype)
    scale, bias = (jnp.asarray(rng.normal(size=32) + 1, jnp.float32) for _ in range(2))
    return x, kernel, scale, bias


def fused(x, kernel, scale, bias):
    return norm_product.normalize_product(x, kernel, scale, bias, 1e-3)


def direct(x, kernel, scale, bias):
    e = jnp.einsum("nhwi,ic->nhwc", x, kernel, precision="highest").astype(jnp.float32)
    mean, variance = e.mean((0, 1, 2)), e.var((0, 1, 2))
    centred = (e - mean.reshape(1, 1, 1, -1)) * (scale / jnp.sqrt(variance + 1e-3)).reshape(1, 1, 1, -1)
    return centred + bias.reshape(1, 1, 1, -1), mean, variance


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 3e-6), (jnp.bfloat16, 1e-2)])
def test_results_and_gradients_are_those_of_the_formula(dtype, tolerance):
    weight = jnp.asarray(np.random.default_rng(1).normal(size=(4, 9, 7, 32)) + 0.7, jnp.float32)

    def loss(function):
        return lambda *args: jnp.sum(weight * jax.nn.relu(function(*args)[0]) ** 2)

    args = operands(dtype)
    exact = [arg.astype(jnp.float32) for arg in args]
    with jax.default_matmul_precision("highest"):
        ours = [*fused(*args), *jax.grad(loss(fused), (0, 1, 2, 3))(*args)]
        theirs = [*direct(*exact), *jax.grad(loss(direct), (0, 1, 2, 3))(*exact)]
    for a, b in zip(ours, theirs, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) < tolerance * np.linalg.norm(b)


def test_expansions_in_bfloat16_take_it_and_nothing_else_does(monkeypatch):
    shapes = []
    original = norm_product.normalize_product
    monkeypatch.setattr(
        norm_product,
        "normalize_product",
        lambda x, kernel, *rest: shapes.append(kernel.shape) or original(x, kernel, *rest),
    )

    def apply(dtype, train):
        model = create_model("v2", width=0.35, dtype=dtype)
        images = jnp.zeros((2, 32, 32, 3))
        init = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
        rngs = {"dropout": jax.random.key(0)}
        shapes.clear()
        jax.eval_shape(
            lambda v: model.apply(v, images, train=train, rngs=rngs, mutable=["batch_stats"] if train else False), init
        )
        return list(shapes)

    expansions = apply("bfloat16", True)
    assert len(expansions) == 17  # 16 blocks that expand, and the last convolution
    assert all(features >= 2 * inputs for inputs, features in expansions)
    assert apply("float32", True) == []
    assert apply("bfloat16", False) == []
