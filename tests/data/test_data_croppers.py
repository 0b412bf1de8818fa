"""Crop boxes: inside the image, distributed as promised, and the evaluation box as published recipes have it."""

import numpy as np
import pytest

from mnet_jax.data import croppers
from mnet_jax.data.tensorflow_setup import tf

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def boxes(height, width, count=4000, area=AREA, ratio=RATIO):
    draws = tf.random.stateless_uniform([count, croppers.NUM_DRAWS], [1, 2])
    shape = tf.constant([height, width])
    found = tf.data.Dataset.from_tensor_slices(draws).map(lambda d: croppers.inception_box(shape, d, area, ratio))
    return found.batch(count).get_single_element().numpy()


def reference(height, width, count, seed=0):
    """torchvision's RandomResizedCrop.get_params, in NumPy."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < count:
        for _ in range(10):
            pixels = rng.uniform(*AREA) * height * width
            ratio = np.exp(rng.uniform(*np.log(RATIO)))
            w, h = round(np.sqrt(pixels * ratio)), round(np.sqrt(pixels / ratio))
            if 0 < w <= width and 0 < h <= height:
                found.append((rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w))
                break
    return np.array(found)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (256, 256)])
def test_inception_boxes_are_distributed_as_torchvisions(height, width):
    ours, theirs = boxes(height, width), reference(height, width, 4000)
    y, x, h, w = ours.T
    assert (y >= 0).all()
    assert (x >= 0).all()
    assert (y + h <= height).all()
    assert (x + w <= width).all()
    assert (h * w / (height * width)).min() > 0.075
    ratios = w / h
    assert ratios.min() > 0.74
    assert ratios.max() < 1.35
    # Quantiles of each number, in pixels, within the error of 4000 draws.
    for column in range(4):
        quantiles = [np.quantile(b[:, column], np.linspace(0.1, 0.9, 9)) for b in (ours, theirs)]
        np.testing.assert_allclose(*quantiles, atol=0.05 * max(height, width))


def test_area_and_ratio_are_uniform_in_a_large_square():
    _, _, h, w = boxes(4000, 4000, area=(0.1, 0.5)).T  # small enough that every draw fits
    areas, logs = h * w / 4000**2, np.log(w / h)
    np.testing.assert_allclose(np.quantile(areas, [0.25, 0.5, 0.75]), [0.2, 0.3, 0.4], atol=0.012)
    np.testing.assert_allclose(np.quantile(logs, [0.25, 0.5, 0.75]), [-0.144, 0, 0.144], atol=0.012)
    assert abs(np.corrcoef(areas, logs)[0, 1]) < 0.05


def test_places_are_uniform():
    y, x, h, w = boxes(300, 400).T
    room_y, room_x = 300 - h, 400 - w
    np.testing.assert_allclose((y[room_y > 0] / room_y[room_y > 0]).mean(), 0.5, atol=0.02)
    np.testing.assert_allclose((x[room_x > 0] / room_x[room_x > 0]).mean(), 0.5, atol=0.02)
    _, places = np.unique(boxes(4, 4, area=(0.25, 0.25), ratio=(1.0, 1.0))[:, 0], return_counts=True)
    np.testing.assert_allclose(places / 4000, [1 / 3] * 3, atol=0.03)  # all places of a 2 px box, the last one too


@pytest.mark.parametrize(
    ("shape", "expected"), [((10, 1000), (0, 494, 10, 13)), ((1000, 10), (494, 0, 13, 10)), ((1, 1), (0, 0, 1, 1))]
)
def test_no_draw_fits(shape, expected):
    """A very long image gets its centre, in the nearest allowed ratio."""
    found = boxes(*shape, count=20, area=(1.0, 1.0))
    np.testing.assert_array_equal(found, [expected] * 20)


@pytest.mark.parametrize(
    ("shape", "size", "share", "expected"),
    [
        ((375, 500), (224, 224), 0.875, (24, 86, 328, 328)),
        ((256, 256), (224, 224), 0.875, (16, 16, 224, 224)),
        ((500, 300), (224, 224), 0.875, (119, 19, 262, 262)),
        ((100, 100), (50, 100), 1.0, (0, 0, 100, 100)),
        ((100, 100), (50, 100), 0.9, (28, 5, 45, 90)),
        ((1, 1), (224, 224), 0.5, (0, 0, 1, 1)),
        ((333, 100), (224, 224), 1.0, (0, 0, 333, 100)),
    ],
)
def test_center_box(shape, size, share, expected):
    assert tuple(croppers.center_box(tf.constant(shape), size, share).numpy()) == expected


def test_center_box_is_resize_256_crop_224():
    """The box agrees within a pixel with the part of the original that "resize to 256, crop 224" shows."""
    rng = np.random.default_rng(0)
    for height, width in rng.integers(100, 1000, (50, 2)):
        y, x, h, w = croppers.center_box(tf.constant([height, width], tf.int32), (224, 224), 0.875).numpy()
        short = min(height, width)
        side = 224 * short / 256
        np.testing.assert_allclose([h, w], side, atol=0.5)
        np.testing.assert_allclose([y, x], [(height - side) / 2, (width - side) / 2], atol=1)
