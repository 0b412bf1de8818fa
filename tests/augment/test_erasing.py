"""Random erasing: how large, where, and with what."""

import jax
import numpy as np
import pytest
import scipy.stats

from mnet_jax.augment import erasing

COUNT = 4000

boxes = jax.jit(erasing._boxes, static_argnums=(1, 2))
erase = jax.jit(erasing.erase, static_argnames="prob")


@pytest.fixture(scope="module")
def draws():
    return jax.random.uniform(jax.random.key(0), (COUNT, erasing.NUM_DRAWS))


def boxes_of(draws, height, width):
    """Height, width, top and left of each box, after checking that it is a full rectangle."""
    inside = np.asarray(boxes(draws, height, width))
    rows, columns = inside.any(axis=2), inside.any(axis=1)
    np.testing.assert_array_equal(inside, rows[:, :, None] & columns[:, None, :])
    sizes = rows.sum(axis=1), columns.sum(axis=1)
    starts = rows.argmax(axis=1), columns.argmax(axis=1)
    assert (starts[0] + sizes[0] <= height).all()
    assert (starts[1] + sizes[1] <= width).all()
    return *sizes, *starts


def test_area_is_uniform_and_ratio_log_uniform(draws):
    height, width, top, left = boxes_of(draws, 128, 128)
    area = height * width / 128**2
    assert area.min() > 0.015
    assert area.max() < 0.35
    assert scipy.stats.kstest(area, scipy.stats.uniform(0.02, 1 / 3 - 0.02).cdf).statistic < 0.03
    small = area < 0.25  # larger boxes cannot take the outermost ratios
    log_ratio = np.log(height / width)[small]
    low, high = np.log(0.3), np.log(3.3)
    assert scipy.stats.kstest(log_ratio, scipy.stats.uniform(low, high - low).cdf).statistic < 0.04
    share = top / (128 - height + 1e-9), left / (128 - width + 1e-9)
    assert all(abs(np.mean(place) - 0.5) < 0.02 for place in share)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 100), (9, 3), (1, 1)])
def test_boxes_fit_any_image(draws, height, width):
    box_height, box_width, _, _ = boxes_of(draws[:500], height, width)
    assert (box_height >= 1).all()
    assert (box_width >= 1).all()
    if height * width > 1000:
        area = box_height * box_width / (height * width)
        assert abs(area.mean() - (0.02 + 1 / 3) / 2) < 0.03


def test_noise_is_uniform_and_differs_between_images_pixels_and_channels(draws):
    images = np.zeros((200, 24, 24, 3), np.uint8)
    result = np.asarray(erase(images, draws[:200], prob=1.0))
    inside = np.asarray(boxes(draws[:200], 24, 24))
    assert not result[~inside].any()
    noise = result[inside].astype(float)  # [pixels, 3]
    counts = np.bincount(result[inside].ravel(), minlength=256)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.03
    flat = noise.ravel()
    for lag in (1, 2, 3, 7, 72):
        assert abs(np.corrcoef(flat[:-lag], flat[lag:])[0, 1]) < 0.02
    assert not np.array_equal(
        erasing._noise(np.uint32([1]), (1, 8, 8, 3)), erasing._noise(np.uint32([2]), (1, 8, 8, 3))
    )


def test_probability(draws, photos):
    images = np.repeat(photos[:1, :8, :8], COUNT, axis=0)
    changed = np.any(np.asarray(erase(images, draws, prob=0.25)) != images, axis=(1, 2, 3))
    assert abs(changed.mean() - 0.25) < 0.02
