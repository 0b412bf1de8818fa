"""Shears, translations and rotations against PIL, and the TPU's form against the other platforms'."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mnet_jax.augment import geometry

FILL = (10, 200, 30)


def affine(photo, *coefficients):
    """PIL's affine warp with nearest sampling."""
    image = Image.fromarray(photo)
    return np.asarray(image.transform(image.size, Image.Transform.AFFINE, coefficients, fillcolor=FILL))


def share_that_differs(ours, expected):
    return np.mean(np.any(np.asarray(ours) != expected, axis=-1))


SLOPES = (0.3, -0.3, 0.0, 0.123)
OFFSETS = (0.0, 0.0, -71.4, 33.0)


def test_row_shifts_are_pils_shear_and_translation(photos):
    ours = geometry.shift_rows(photos, jnp.array(SLOPES), jnp.array(OFFSETS), reach=72, fill=FILL)
    for result, photo, slope, offset in zip(ours, photos, SLOPES, OFFSETS, strict=True):
        # PIL counts in 1/65536 pixels, so that a few places exactly between two pixels go the other way.
        assert share_that_differs(result, affine(photo, 1, slope, offset, 0, 1, 0)) < 0.01


def test_column_shifts_are_pils_shear_and_translation(photos):
    ours = geometry.shift_columns(photos, jnp.array(SLOPES), jnp.array(OFFSETS), reach=72, fill=FILL)
    for result, photo, slope, offset in zip(ours, photos, SLOPES, OFFSETS, strict=True):
        assert share_that_differs(result, affine(photo, 1, 0, 0, slope, 1, offset)) < 0.01


@pytest.mark.parametrize("shape", [(120, 160), (160, 120), (33, 32)])
@pytest.mark.parametrize("degrees", [3, 15, 30])
def test_rotation_takes_every_pixel_from_within_one_of_its_place(shape, degrees):
    height, width = shape
    y, x = np.mgrid[:height, :width]
    coordinates = np.stack([x, y, np.full_like(x, 255)], axis=-1).astype(np.uint8)
    for sign in (1, -1):
        result = geometry.rotate(
            coordinates[None], jnp.array([float(sign)]), angle=math.radians(degrees), fill=(0, 0, 0)
        )
        result = np.asarray(result[0]).astype(float)
        angle = math.radians(degrees) * sign  # counter-clockwise, seen with y downwards
        right, down = x - (width - 1) / 2, y - (height - 1) / 2
        from_x = math.cos(angle) * right - math.sin(angle) * down + (width - 1) / 2
        from_y = math.sin(angle) * right + math.cos(angle) * down + (height - 1) / 2
        shown = result[..., 2] == 255
        assert np.hypot(result[..., 0] - from_x, result[..., 1] - from_y)[shown].max() < 1.4
        assert np.hypot(result[..., 0] - from_x, result[..., 1] - from_y)[shown].mean() < 0.6
        # What is blank came from outside, up to the same distance.
        beyond = np.maximum(
            np.abs(from_x - (width - 1) / 2) - width / 2, np.abs(from_y - (height - 1) / 2) - height / 2
        )
        assert beyond[shown].max() < 1.4
        assert beyond[~shown].min() > -1.4


def test_rotation_looks_like_pils(photos):
    ours = np.asarray(geometry.rotate(photos, jnp.array([1.0, -1.0, 1.0, 0.0]), angle=math.radians(27), fill=FILL))
    np.testing.assert_array_equal(ours[3], photos[3])
    for result, photo, degrees in zip(ours[:3], photos, (27, -27, 27), strict=False):
        pil = Image.fromarray(photo).rotate(degrees, resample=Image.Resampling.BILINEAR, fillcolor=FILL)
        assert np.abs(result.astype(float) - np.asarray(pil)).mean() < 9  # grey levels; the opposite turn is off by 60
    opposite = np.asarray(Image.fromarray(photos[0]).rotate(-27, fillcolor=FILL))
    assert np.abs(ours[0].astype(float) - opposite).mean() > 30


@pytest.mark.parametrize("operation", ["shift_rows", "shift_columns", "rotate"])
def test_selects_for_tpus_move_the_same_pixels(photos, operation, monkeypatch):
    first = jnp.array(SLOPES) if operation != "rotate" else jnp.array([1.0, -1.0, 0.0, 1.0])
    rest = (jnp.array(OFFSETS),) if operation != "rotate" else ()
    limits = {"reach": 71.4} if operation != "rotate" else {"angle": 0.5}
    function = functools.partial(getattr(geometry, operation), fill=FILL, **limits)
    usual = function(photos, first, *rest)
    monkeypatch.setattr(geometry, "_by_gathers", geometry._by_selects)
    np.testing.assert_array_equal(jax.jit(function)(photos, first, *rest), usual)
