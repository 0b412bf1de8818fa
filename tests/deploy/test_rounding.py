"""Weights rounded for the results of their layers: against every other choice, and against the nearest."""

import itertools

import jax
import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.int8 import rewrite, rounding


def correlated(count, number, seed=0):
    """Samples [count, number] whose columns share most of what they have, and are not centred."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 2)) @ rng.normal(size=(2, number)) + 0.1 * rng.normal(size=(count, number)) + 1.0


def nearest(columns, scale):
    return np.clip(np.round(columns / scale), -127, 127)


def test_near_the_best_of_all_roundings():
    """Six inputs: each weight up or down, all 64 choices, for twenty output channels."""
    covariance = np.cov(correlated(1000, 6).T, bias=True)
    columns = np.random.default_rng(1).uniform(-3, 3, (6, 20))
    scale = np.ones(20)
    found = rounding.result_variance(columns - rounding.round_columns(columns, scale, covariance), covariance)
    near = rounding.result_variance(columns - nearest(columns, scale), covariance)
    choices = [np.floor(columns) + np.array(up)[:, None] for up in itertools.product((0, 1), repeat=6)]
    best = np.min([rounding.result_variance(columns - choice, covariance) for choice in choices], 0)
    assert found.sum() < 0.3 * near.sum()
    assert found.sum() < 4 * best.sum()


def test_a_depthwise_covariance_is_one_for_each_channel():
    columns = np.random.default_rng(1).uniform(-30, 30, (9, 5))
    covariances = np.stack([np.cov(correlated(500, 9, seed).T, bias=True) for seed in range(5)])
    together = rounding.round_columns(columns, np.ones(5), covariances)
    for channel in range(5):
        alone = rounding.round_columns(columns[:, [channel]], np.ones(1), covariances[channel])
        np.testing.assert_array_equal(together[:, [channel]], alone)


def test_inputs_that_never_vary_are_no_trouble():
    covariance = np.cov(correlated(100, 4).T, bias=True)
    covariance[1], covariance[:, 1] = 0.0, 0.0
    columns = np.random.default_rng(0).uniform(-3, 3, (4, 3))
    for matrix in (covariance, np.zeros((4, 4))):
        levels = rounding.round_columns(columns, np.ones(3), matrix)
        assert np.isfinite(levels).all()
        assert np.abs(levels[1] - columns[1]).max() <= 0.5


@pytest.mark.parametrize("mean", [3000.0, np.inf])
def test_a_covariance_that_no_inputs_have_is_no_trouble(mean):
    """As float32 leaves it of inputs that vary little around a large mean: it has negative eigenvalues."""
    rng = np.random.default_rng(0)
    inputs = (mean + 0.01 * rng.normal(size=(200, 24))).astype(np.float32)
    with np.errstate(invalid="ignore"):
        covariance = (inputs.T @ inputs / 200 - np.outer(inputs.mean(0), inputs.mean(0))).astype(np.float64)
    assert not np.isfinite(mean) or np.linalg.eigvalsh(covariance).min() < 0
    columns, scale = rng.normal(size=(24, 3)), np.full(3, 0.02)
    levels = rounding.round_columns(columns, scale, covariance)
    assert np.all(np.abs(levels) <= 127)
    if not np.isfinite(mean):
        np.testing.assert_array_equal(levels, np.clip(np.round(columns / scale), -127, 127))


@pytest.mark.parametrize("depthwise", [False, True])
def test_moments_and_the_mean_error(depthwise):
    """Moments are those of the patches that SciPy-like slicing gives; the bias takes exactly the mean error."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 9, 7, 3), np.uint8)
    kernel = rng.normal(size=(3, 3, 1 if depthwise else 3, 3)).astype(np.float32)
    pixels = g.Pixels(name="pixels", inputs=(g.INPUT,), shape=(9, 7, 3), mean=np.full(3, 128, np.float32))
    conv = g.Conv(
        name="conv", inputs=("pixels",), shape=(5, 4, 3), kernel=kernel, bias=np.ones(3, np.float32), stride=2,
        padding=((1, 1), (1, 1)), depthwise=depthwise,
    )  # fmt: skip
    nodes = (pixels, conv)
    graph = g.Graph(input_shape=(9, 7, 3), input_dtype="uint8", nodes=nodes, outputs={"conv": "conv"})
    target = rewrite.rewrite(graph)
    known = rounding.moments(target, [images[:4], images[4:]])["conv"]
    padded = np.pad(images.astype(np.float64) - 128, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = np.array(
        [padded[n, y : y + 3, x : x + 3] for n in range(6) for y in range(0, 9, 2) for x in range(0, 7, 2)]
    )
    if depthwise:
        sets = [patches[..., channel].reshape(-1, 9) for channel in range(3)]
        expected = np.stack([np.cov(rows.T, bias=True) for rows in sets])
    else:
        rows = patches.reshape(-1, 27)
        expected = np.cov(rows.T, bias=True)
    np.testing.assert_allclose(known.covariance, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())

    scale = np.abs(kernel).max((0, 1, 2)) / 3  # coarse: errors to be seen
    rounded = rounding.round_conv(conv, scale, np.zeros(3), known)
    coarse = rounded.kernel * rounded.scale
    if depthwise:
        results = [[rows @ k[:, :, 0, c].ravel() for c, rows in enumerate(sets)] for k in (kernel, coarse)]
        true, got = (np.stack(result, 1) for result in results)
    else:
        true, got = rows @ kernel.reshape(27, 3), rows @ coarse.reshape(27, 3)
    true, got = true + conv.bias, got + rounded.bias
    np.testing.assert_allclose(got.mean(0), true.mean(0), atol=1e-3 * np.abs(true).max())
    plain = rounding.round_conv(conv, scale, np.zeros(3), None)
    near = (plain.kernel * plain.scale - kernel).reshape(-1, 3)
    assert np.var(got - true, axis=0).sum() < 0.8 * rounding.result_variance(near, known.covariance).sum()
    np.testing.assert_array_equal(plain.kernel, np.round(kernel / plain.scale))


def test_scales_stay_above_the_least():
    conv = g.Conv(
        name="conv", inputs=("x",), shape=(1, 1, 2), kernel=np.full((1, 1, 4, 2), 1e-12, np.float32),
        bias=np.zeros(2, np.float32),
    )  # fmt: skip
    known = rounding.Moments(np.ones(4), np.eye(4))
    for moments in (None, known):
        rounded = rounding.round_conv(conv, np.full(2, 1e-14), np.full(2, 1e-3), moments)
        np.testing.assert_allclose(rounded.scale, 1e-3)
        assert not rounded.kernel.any()


def test_rounding_is_the_same_each_time():
    covariance = np.cov(correlated(300, 30).T, bias=True)
    columns = np.asarray(jax.random.normal(jax.random.key(0), (30, 8)), np.float64) * 9
    first, second = (rounding.round_columns(columns, np.ones(8), covariance) for _ in range(2))
    np.testing.assert_array_equal(first, second)
