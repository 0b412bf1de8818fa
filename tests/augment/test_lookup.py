"""Equalisation and autocontrast against PIL, and the TPU's form of both against the other platforms'."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

from mnet_jax.augment import lookup


def by_pil(images, function):
    return np.stack([np.asarray(function(Image.fromarray(image))) for image in images])


def odd_images() -> np.ndarray:
    """uint8 [6, 20, 24, 3]: one value, two values, few levels, a narrow range, one bright pixel, one dark pixel."""
    rng = np.random.default_rng(0)
    images = np.full((6, 20, 24, 3), 77, np.uint8)
    images[1, :7] = 78
    images[2] = rng.integers(0, 4, (20, 24, 3)) * 60
    images[3] = rng.integers(100, 120, (20, 24, 3))
    images[4, 0, 0] = 255
    images[5, 0, 0] = 0
    return images


def test_equalize_is_pils(photos):
    for images in (photos, photos[:, ::5, ::5], odd_images()):
        np.testing.assert_array_equal(jax.jit(lookup.equalize)(images), by_pil(images, ImageOps.equalize))


def test_autocontrast_is_pils(photos):
    narrow = (photos // 2 + 40).astype(np.uint8)  # a photograph's own range is nearly always 0..255 already
    for images in (photos, narrow, narrow[:, 20:60, 20:60], odd_images()):
        ours = np.asarray(jax.jit(lookup.autocontrast)(images)).astype(int)
        difference = ours - by_pil(images, ImageOps.autocontrast)
        assert set(np.unique(difference)) <= {0, 1}  # the next test says why it may be 1
        assert difference.mean() < 0.02


def test_autocontrast_of_every_range_is_within_one_of_pils_double_arithmetic():
    low, high, value = np.meshgrid(np.arange(256), np.arange(256), np.arange(256), indexing="ij")
    keep = (low < high) & (value >= low) & (value <= high)
    low, high, value = low[keep], high[keep], value[keep]
    scale = 255.0 / (high - low)
    pil = np.trunc(value * scale + -low * scale)
    ours = (value - low) * 255 // (high - low)
    difference = ours - np.clip(pil, 0, 255)
    assert set(np.unique(difference)) <= {0, 1}
    assert difference.mean() < 0.005
    assert (ours[value == high] == 255).all()  # PIL's brightest value is 254 in some ranges


def test_one_call_can_do_either(photos):
    stretch = jnp.array([True, False, True, False])
    narrow = (photos // 2 + 40).astype(np.uint8)
    both = jax.jit(lookup.equalize_or_stretch)(narrow, stretch)
    np.testing.assert_array_equal(both[::2], jax.jit(lookup.autocontrast)(narrow)[::2])
    np.testing.assert_array_equal(both[1::2], jax.jit(lookup.equalize)(narrow)[1::2])


def test_products_for_tpus_count_and_look_up_the_same(photos):
    values = jnp.asarray(photos.reshape(4, -1, 3))
    counts = lookup._count_by_scatter(values)
    np.testing.assert_array_equal(counts[1, 2], np.bincount(photos[1, ..., 2].ravel(), minlength=256))
    np.testing.assert_array_equal(lookup._count_by_products(values), counts)
    table = jnp.asarray(np.random.default_rng(1).integers(0, 256, (4, 3, 256), np.uint8))
    found = lookup._look_up_by_gather(values, table)
    np.testing.assert_array_equal(found[2, :, 1], np.asarray(table)[2, 1][photos[2, ..., 1].ravel()])
    np.testing.assert_array_equal(lookup._look_up_by_products(values, table), found)
