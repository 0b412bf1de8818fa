"""Colour operations against PIL, on real photographs."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mnet_jax.augment import color

FACTORS = (0.0, 0.1, 0.37, 1.0)
STRONG_FACTORS = (1.25, 1.9, 1.0, 0.5)


def by_pil(images, function, *per_image):
    rows = zip(images, *per_image, strict=True)
    return np.stack([np.asarray(function(Image.fromarray(image), *values)) for image, *values in rows])


@pytest.mark.parametrize("factors", [FACTORS, STRONG_FACTORS])
@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_enhancers_are_pils(photos, name, enhancer, factors):
    ours = jax.jit(getattr(color, name))(photos, jnp.array(factors))
    np.testing.assert_array_equal(ours, by_pil(photos, lambda image, factor: enhancer(image).enhance(factor), factors))


def test_grey_and_smooth_are_pils(photos):
    np.testing.assert_array_equal(color.grey(photos)[..., 0], by_pil(photos, lambda image: image.convert("L")))
    np.testing.assert_array_equal(color.smooth(photos), by_pil(photos, lambda i: i.filter(ImageFilter.SMOOTH)))
    means = [int(np.asarray(Image.fromarray(photo).convert("L")).mean() + 0.5) for photo in photos]
    np.testing.assert_array_equal(color.mean_grey(photos).ravel(), means)


@pytest.mark.parametrize("bits", [(8, 7, 6, 5), (4, 3, 2, 1)])
def test_posterize_is_pils(photos, bits):
    ours = color.posterize(photos, jnp.array(bits))
    np.testing.assert_array_equal(ours, by_pil(photos, ImageOps.posterize, bits))


def test_solarize_and_invert_are_pils(photos):
    thresholds = (0, 26, 128, 256)
    ours = color.solarize(photos, jnp.array(thresholds))
    np.testing.assert_array_equal(ours, by_pil(photos, ImageOps.solarize, thresholds))
    np.testing.assert_array_equal(ours[0], ImageOps.invert(Image.fromarray(photos[0])))


def test_solarize_add_is_timms_table(photos):
    amounts = (0, 22, 110, 255)
    expected = [
        np.where(photo < 128, np.minimum(photo.astype(int) + a, 255), photo)
        for photo, a in zip(photos, amounts, strict=True)
    ]
    np.testing.assert_array_equal(color.solarize_add(photos, jnp.array(amounts)), np.stack(expected))


def test_hue_is_that_of_hsv(photos):
    shifts = (-0.5, -0.1, 0.0, 0.31)
    ours = np.asarray(jax.jit(color.hue)(photos, jnp.array(shifts)))
    np.testing.assert_array_equal(ours[2], photos[2])  # no shift, no change
    for photo, shift, result in zip(photos, shifts, ours, strict=True):
        pixels, found = photo[::7, ::7].reshape(-1, 3), result[::7, ::7].reshape(-1, 3)
        turned = [((h + shift) % 1, s, v) for h, s, v in (colorsys.rgb_to_hsv(*(p / 255)) for p in pixels)]
        expected = np.array([colorsys.hsv_to_rgb(*pixel) for pixel in turned]) * 255
        assert np.abs(found - expected).max() < 0.501


def test_hue_of_grey_black_and_white_stays():
    greys = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 16, 16, 3)
    np.testing.assert_array_equal(color.hue(greys, jnp.array([0.3])), greys)
