"""RandAugment's operations one by one, and the grouping that runs them."""

import collections
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from mnet_jax.augment import randaugment
from mnet_jax.augment.switch import apply_by_kind

FILL = (124, 116, 104)
MAGNITUDE = 7.0


def affine(image, *coefficients):
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, fillcolor=FILL)


# What each operation is at magnitude 7 on images of 160 x 120, by PIL.
EXPECTED = {
    "brightness": lambda image, sign: ImageEnhance.Brightness(image).enhance(1 + 0.63 * sign),
    "contrast": lambda image, sign: ImageEnhance.Contrast(image).enhance(1 + 0.63 * sign),
    "color": lambda image, sign: ImageEnhance.Color(image).enhance(1 + 0.63 * sign),
    "sharpness": lambda image, sign: ImageEnhance.Sharpness(image).enhance(1 + 0.63 * sign),
    "posterize": lambda image, sign: ImageOps.posterize(image, 5),
    "solarize": lambda image, sign: ImageOps.solarize(image, 77),
    "solarize_add": lambda image, sign: image.point([i + 77 if i < 128 else i for i in range(256)] * 3),
    "invert": lambda image, sign: ImageOps.invert(image),
    "autocontrast": lambda image, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, sign: ImageOps.equalize(image),
    "rotate": lambda image, sign: image.rotate(21 * sign, fillcolor=FILL),
    "shear_x": lambda image, sign: affine(image, 1, 0.21 * sign, 0, 0, 1, 0),
    "shear_y": lambda image, sign: affine(image, 1, 0, 0, 0.21 * sign, 1, 0),
    "translate_x": lambda image, sign: affine(image, 1, 0, 0.315 * 160 * sign, 0, 1, 0),
    "translate_y": lambda image, sign: affine(image, 1, 0, 0, 0, 1, 0.315 * 120 * sign),
}


@pytest.fixture(scope="module")
def layer():
    return jax.jit(randaugment.layer, static_argnames=("magnitude", "fill"))


def test_every_operation_is_expected():
    assert set(EXPECTED) == set(randaugment.OPERATIONS)
    assert len(randaugment.OPERATIONS) == 15


@pytest.mark.parametrize("name", randaugment.OPERATIONS)
def test_operation_is_pils(layer, photos, name):
    operation = jnp.full(4, randaugment.ALL.index(name))
    signs = (1.0, -1.0, 1.0, -1.0)
    ours = np.asarray(layer(photos, operation, jnp.array(signs), magnitude=MAGNITUDE, fill=FILL)).astype(int)
    pil = np.stack([EXPECTED[name](Image.fromarray(p), s) for p, s in zip(photos, signs, strict=True)]).astype(int)
    if name == "rotate":  # three shears take neighbouring pixels: test_geometry.py measures how near
        assert np.abs(ours - pil).mean() < 12
    else:
        # Blends differ where a factor such as 0.37 has another last bit than PIL's 1 - 0.63; shears where a place lies
        # exactly between two pixels.
        assert np.mean(np.any(ours != pil, axis=-1)) < 0.02
        if not name.startswith("shear"):
            assert np.abs(ours - pil).max() <= 1


def test_a_batch_of_all_operations_is_each_one_alone(layer, photos):
    """15 operations and 2 images without any, twice: each image's result does not know its neighbours."""
    operations = np.array([*range(-2, 15)] * 2)
    rng = np.random.default_rng(0)
    images = photos[rng.integers(0, 4, len(operations)), ::2, ::2]
    signs = rng.choice([-1.0, 1.0], len(operations)).astype(np.float32)
    together = np.asarray(layer(images, operations, signs, magnitude=9.0, fill=FILL))
    order = rng.permutation(len(operations))
    shuffled = np.asarray(layer(images[order], operations[order], signs[order], magnitude=9.0, fill=FILL))
    np.testing.assert_array_equal(shuffled, together[order])
    for i in range(0, len(operations), 5):
        alone = layer(images[i : i + 1], operations[i : i + 1], signs[i : i + 1], magnitude=9.0, fill=FILL)
        np.testing.assert_array_equal(alone[0], together[i])
    np.testing.assert_array_equal(together[operations < 0], images[operations < 0])
    changed = np.any(together != images, axis=(1, 2, 3))
    assert changed[operations >= 0].mean() > 0.9  # autocontrast may have nothing to do


def test_magnitude_zero_changes_nothing_but_what_has_no_strength(layer, photos):
    operations = jnp.arange(15)
    images = photos[np.arange(15) % 4, ::2, ::2]
    result = np.asarray(layer(images, operations, jnp.ones(15), magnitude=0.0, fill=FILL))
    for number, name in enumerate(randaugment.OPERATIONS):
        if name not in ("autocontrast", "equalize", "invert"):
            np.testing.assert_array_equal(result[number], images[number], err_msg=name)


@pytest.mark.parametrize(
    "operations",
    [("solarize", "posterize"), ("translate_y", "equalize", "shear_x", "brightness"), randaugment.ALL[::-1]],
)
def test_a_choice_of_operations_does_what_they_do_among_all(layer, photos, operations):
    some = jax.jit(functools.partial(randaugment.layer, operations=operations, magnitude=MAGNITUDE, fill=FILL))
    drawn = np.array([-1, *range(len(operations))] * 2)
    images = photos[np.arange(len(drawn)) % 4, ::2, ::2]
    signs = np.where(np.arange(len(drawn)) < len(operations), -1.0, 1.0).astype(np.float32)
    numbers = np.array([-1 if place < 0 else randaugment.ALL.index(operations[place]) for place in drawn])
    expected = layer(images, numbers, signs, magnitude=MAGNITUDE, fill=FILL)
    np.testing.assert_array_equal(some(images, drawn, signs), expected)


def test_small_and_narrow_images(layer):
    rng = np.random.default_rng(1)
    for height, width in ((8, 40), (1, 1)):
        images = rng.integers(0, 256, (15, height, width, 3), np.uint8)
        result = layer(images, jnp.arange(15), jnp.ones(15), magnitude=10.0, fill=FILL)
        assert result.shape == images.shape


def test_grouping_runs_each_function_on_its_own_images_only():
    """Against a plain loop, over kinds of all shapes, with a count of the rounds."""
    rounds = collections.Counter()

    def add(amount, name):
        def function(group, scale):
            jax.debug.callback(lambda: rounds.update([name]))
            return group + (amount * scale)[:, None, None, None].astype(group.dtype)

        return function

    functions = [add(1, "one"), add(10, "ten"), add(100, "hundred")]
    run = jax.jit(lambda *inputs: apply_by_kind(functions, *inputs))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 50, (13, 2, 3, 3))
    scale = rng.integers(1, 4, 13)
    for kind in (
        np.full(13, -1),
        np.full(13, 2),
        np.full(13, 7),
        rng.integers(-1, 4, 13),
        np.arange(13) % 3,
        -np.arange(13),
    ):
        rounds.clear()
        result = np.asarray(run(images, kind, scale))
        jax.effects_barrier()
        amount = np.array([{0: 1, 1: 10, 2: 100}.get(k, 0) for k in kind.tolist()]) * scale
        np.testing.assert_array_equal(result, images + amount[:, None, None, None])
        for number, name in enumerate(("one", "ten", "hundred")):
            assert rounds[name] == math.ceil(np.sum(kind == number) / 4)
