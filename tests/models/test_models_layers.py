"""Activations and attention by their definitions, with gradients at the corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mnet_jax.models.layers import ACTIVATIONS, attend

X = np.concatenate([np.linspace(-8, 8, 161), [-3.0, 0.0, 3.0, 6.0, 1e4, -1e4]])
INSIDE = np.abs(X) < 3
INNER = np.sqrt(2 / np.pi) * (X + 0.044715 * X**3)
FORMULAS = {  # value and derivative in float64; at a corner the derivative of the flat side
    "relu": (np.maximum(X, 0), X > 0),
    "relu6": (np.clip(X, 0, 6), (X > 0) & (X < 6)),
    "sigmoid": (scipy.special.expit(X), scipy.special.expit(X) * scipy.special.expit(-X)),
    "hard_sigmoid": (np.clip(X + 3, 0, 6) / 6, INSIDE / 6),
    "hard_swish": (X * np.clip(X + 3, 0, 6) / 6, np.where(INSIDE, (2 * X + 3) / 6, X >= 3)),
    "gelu": (
        X * scipy.special.ndtr(X),
        scipy.special.ndtr(X) + X * np.exp(-(X**2) / 2) / np.sqrt(2 * np.pi),
    ),
    "gelu_tanh": (
        X * (1 + np.tanh(INNER)) / 2,
        (1 + np.tanh(INNER) + X * (1 - np.tanh(INNER) ** 2) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * X**2)) / 2,
    ),
}


def test_every_activation_has_a_formula():
    assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", FORMULAS)
def test_activation_and_gradient(name):
    value, derivative = FORMULAS[name]
    on_grid = jnp.asarray(X, jnp.float32)
    found = ACTIVATIONS[name](on_grid)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)
    gradient = jax.vmap(jax.grad(ACTIVATIONS[name]))(on_grid)
    np.testing.assert_allclose(gradient, derivative, rtol=1e-4, atol=2e-5)


def test_attention_weights_sum_to_one_and_survive_large_scores():
    keys = jax.random.split(jax.random.key(0), 2)
    query = 1e3 * jax.random.normal(keys[0], (2, 5, 3, 8))
    key = jax.random.normal(keys[1], (2, 7, 8))
    out = attend(query, key, jnp.ones((2, 7, 8)))
    assert out.shape == query.shape
    np.testing.assert_allclose(out, 1, rtol=1e-5)


def test_attention_in_bfloat16_has_a_float32_softmax():
    keys = jax.random.split(jax.random.key(0), 3)
    query = jax.random.normal(keys[0], (1, 16, 4, 32))
    key, value = (jax.random.normal(k, (1, 64, 32)) for k in keys[1:])
    half = attend(*(jnp.bfloat16(array) for array in (query, key, value)))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), attend(query, key, value), atol=0.03)
