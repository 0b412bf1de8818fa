"""Mixup and cutmix: exact shares, the right distributions, one choice a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mnet_jax.augment import mixing
from mnet_jax.augment.settings import Augmentation

KEYS = jax.random.split(jax.random.key(7), 2000)
# Image b shows the value b everywhere, so that a mixed pixel tells whose it is.
INPUTS = jnp.broadcast_to(jnp.arange(4.0)[:, None, None, None], (4, 20, 30, 3))
TARGETS = jnp.eye(4)


def mixed(settings, keys=KEYS):
    inputs, targets = jax.jit(jax.vmap(lambda key: mixing.mix(key, INPUTS, TARGETS, settings)))(keys)
    np.testing.assert_allclose(targets.sum(axis=-1), 1, atol=1e-6)
    return np.asarray(inputs), np.asarray(targets)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_mixup_weighs_pixels_and_targets_alike_with_beta(alpha):
    inputs, targets = mixed(Augmentation(mixup_alpha=alpha))
    share = targets[:, 0, 0]
    np.testing.assert_allclose(
        inputs[:, 0], np.broadcast_to((1 - share)[:, None, None, None], inputs[:, 0].shape), atol=1e-5
    )
    np.testing.assert_allclose(targets[:, 1, 0], 1 - share, atol=1e-6)  # the neighbour is the partner
    assert scipy.stats.kstest(share, scipy.stats.beta(alpha, alpha).cdf).statistic < 0.03


def test_cutmix_share_is_the_exact_area_and_the_box_is_one_rectangle():
    inputs, targets = mixed(Augmentation(cutmix_alpha=1.0))
    for example, partner in ((0, 1), (2, 3)):
        own = inputs[:, example] == example
        other = inputs[:, example] == partner
        assert (own ^ other).all()
        np.testing.assert_allclose(targets[:, example, partner], other.mean(axis=(1, 2, 3)), atol=1e-6)
        np.testing.assert_allclose(targets[:, example, example], own.mean(axis=(1, 2, 3)), atol=1e-6)
    box = inputs[:, 0, :, :, 0] == 1
    rows, columns = box.any(axis=2), box.any(axis=1)
    np.testing.assert_array_equal(box, rows[:, :, None] & columns[:, None, :])
    # Where the border cuts nothing, the box has the image's shape.
    uncut = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1]) & (rows.sum(axis=1) > 4)
    ratio = columns.sum(axis=1)[uncut] / rows.sum(axis=1)[uncut]
    assert abs(ratio.mean() - 1.5) < 0.05
    assert abs(np.mean(box[:, 10, 15]) - np.mean(box[:, 9, 14])) < 0.02
    assert box.mean(axis=0).argmax() not in (0, 29, 570, 599)  # corners are covered least


def test_probability_and_choice():
    inputs, targets = mixed(Augmentation(mixup_alpha=1.0, cutmix_alpha=1.0, mix_prob=0.6))
    untouched = np.all(inputs == np.asarray(INPUTS), axis=(1, 2, 3, 4))
    is_cutmix = ~untouched & np.isin(inputs, [0, 1, 2, 3]).all(axis=(1, 2, 3, 4))
    assert abs(untouched.mean() - 0.4) < 0.06  # and a few empty boxes
    assert abs(is_cutmix.mean() - 0.3) < 0.06
    np.testing.assert_array_equal(targets[untouched], np.broadcast_to(np.eye(4), targets[untouched].shape))


@pytest.mark.parametrize("settings", [Augmentation(), Augmentation(mixup_alpha=1.0, mix_prob=0.0)])
def test_off_is_not_in_the_program(settings):
    inputs, targets = mixing.mix(KEYS[0], INPUTS, TARGETS, settings)
    assert inputs is INPUTS
    assert targets is TARGETS


def test_odd_and_single_batches():
    settings = Augmentation(mixup_alpha=1.0)
    run = jax.jit(lambda inputs, targets: mixing.mix(KEYS[0], inputs, targets, settings))
    inputs, targets = run(INPUTS[:3], TARGETS[:3])
    np.testing.assert_allclose(inputs[2], INPUTS[2], atol=1e-6)  # the last one is its own partner
    np.testing.assert_allclose(targets[2], TARGETS[2], atol=1e-6)
    np.testing.assert_allclose(run(INPUTS[2:3], TARGETS[2:3])[0], INPUTS[2:3], atol=1e-6)


def test_partners_do_not_depend_on_how_the_batch_is_split():
    settings = Augmentation(mixup_alpha=1.0, cutmix_alpha=1.0)
    whole = mixing.mix(KEYS[0], INPUTS, TARGETS, settings)
    halves = [mixing.mix(KEYS[0], INPUTS[part], TARGETS[part], settings) for part in (slice(0, 2), slice(2, 4))]
    for together, apart in zip(whole, zip(*halves, strict=True), strict=True):
        np.testing.assert_array_equal(together, np.concatenate(apart))


@pytest.mark.parametrize("alpha", [0.01, 100.0])
def test_the_outermost_alphas_draw_finite_shares(alpha):
    values = jax.vmap(lambda u: mixing._beta(u, alpha))(jnp.linspace(0, 1, 5001))
    assert np.isfinite(values).all()
    assert (np.diff(values) >= 0).all()
    assert values[0] == 0
    assert values[-1] == 1
