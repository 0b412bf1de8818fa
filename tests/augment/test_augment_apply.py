"""The augmentation as a whole: determinism, ranges, what is off, and that it lowers for TPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnet_jax.augment import apply, randaugment
from mnet_jax.augment.settings import AugmentConfig
from mnet_jax.tasks.classification.task import Classification

EVERYTHING = AugmentConfig(
    brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, randaugment_layers=2, randaugment_prob=0.8, erase_prob=0.4
)
FILL = (124, 116, 104)
KEY = jax.random.key(11)


def augment_everything(images, positions, key):
    return apply.augment_images(key, images, positions, EVERYTHING, fill=FILL)


@pytest.fixture(scope="module")
def run():
    return jax.jit(augment_everything)


@pytest.fixture(scope="module")
def images(photos):
    """uint8 [24, 40, 48, 3]: crops of photographs."""
    rng = np.random.default_rng(0)
    places = zip(rng.integers(0, 4, 24), rng.integers(0, 80, 24), rng.integers(0, 112, 24), strict=True)
    return np.stack([photos[photo, top : top + 40, left : left + 48] for photo, top, left in places])


@pytest.fixture(scope="module")
def augmented(run, images):
    return np.asarray(run(images, jnp.arange(24), KEY))


def test_results_are_images_and_differ_from_each_other(images, augmented):
    assert augmented.dtype == np.uint8
    assert augmented.shape == images.shape
    assert np.any(augmented != images, axis=(1, 2, 3)).all()
    assert 60 < augmented.mean() < 190
    assert augmented.std(axis=(1, 2, 3)).mean() > 20


def test_an_example_depends_on_key_and_position_only(run, images, augmented):
    order = np.random.default_rng(1).permutation(24)
    others = images.copy()
    others[12:] = 255 - others[12:]
    np.testing.assert_array_equal(run(images[order], jnp.asarray(order), KEY), augmented[order])
    np.testing.assert_array_equal(run(others, jnp.arange(24), KEY)[:12], augmented[:12])
    assert np.any(run(images, jnp.arange(24) + 24, KEY) != augmented, axis=(1, 2, 3)).all()
    assert np.any(run(images, jnp.arange(24), jax.random.key(12)) != augmented, axis=(1, 2, 3)).all()


def test_four_devices_do_what_one_does(images, augmented):
    spread = jax.pmap(augment_everything, in_axes=(0, 0, None), devices=jax.devices()[:4])
    result = spread(images.reshape(4, 6, 40, 48, 3), jnp.arange(24).reshape(4, 6), KEY)
    np.testing.assert_array_equal(np.asarray(result).reshape(augmented.shape), augmented)


def test_each_operation_is_drawn_as_often_as_the_others(monkeypatch):
    seen = []

    def layer(images, operation, sign, *, magnitude, fill):
        jax.debug.callback(lambda *drawn: seen.append([np.asarray(value) for value in drawn]), operation, sign)
        return images

    monkeypatch.setattr(randaugment, "layer", layer)
    config = AugmentConfig(randaugment_layers=2, randaugment_prob=0.75)
    apply.augment_images(KEY, jnp.zeros((15000, 1, 1, 3), jnp.uint8), jnp.arange(15000), config, fill=FILL)
    jax.effects_barrier()
    (first, signs), (second, _) = seen
    for operations in (first, second):
        counts = np.bincount(operations[operations >= 0], minlength=15)
        assert len(counts) == 15
        assert np.abs(counts - 750).max() < 120
        assert abs(np.mean(operations < 0) - 0.25) < 0.02
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.mean(signs)) < 0.03


def test_jitter_factors_span_their_range():
    grey = jnp.full((4000, 1, 1, 3), 100, jnp.uint8)
    brighten = jax.jit(
        lambda x: apply.augment_images(KEY, x, jnp.arange(4000), AugmentConfig(brightness=0.4), fill=FILL)
    )
    result = brighten(grey)
    values = np.asarray(result)[:, 0, 0, 0]
    assert values.min() == 60
    assert values.max() == 139
    assert abs(values.mean() - 99.5) < 1.5


def test_off_is_the_normalisation_alone(images):
    task = Classification(num_classes=5, mean=(124.0, 116.0, 104.0), std=(58.0, 57.0, 57.5), augment=AugmentConfig())
    batch = {"image": images, "label": np.arange(24) % 5, "mask": np.ones(24, np.float32)}
    inputs, targets = task.train_inputs(KEY, batch, jnp.arange(24))
    expected = (images.astype(np.float32) - np.float32([124, 116, 104])) / np.float32([58, 57, 57.5])
    np.testing.assert_allclose(inputs, expected, atol=1e-6)
    np.testing.assert_array_equal(task.eval_inputs(batch), inputs)
    np.testing.assert_array_equal(targets, np.eye(5)[batch["label"]])
    compiled = jax.jit(task.train_inputs).lower(KEY, batch, jnp.arange(24)).compile()
    for word in ("while", "gather", "scatter", "conditional", "xor"):  # xor: threefry
        assert f" {word}(" not in compiled.as_text()


def test_everything_at_once_trains_on_padding_too(images):
    """Padded examples are as safe as others and weigh nothing."""
    config = AugmentConfig(randaugment_layers=1, erase_prob=0.5, mixup_alpha=0.2, cutmix_alpha=1.0)
    task = Classification(num_classes=5, mean=(124, 116, 104), std=(58, 57, 57.5), label_smoothing=0.1, augment=config)
    mask = np.float32(np.arange(24) < 20)
    batch = {
        "image": images * (mask > 0)[:, None, None, None],
        "label": np.where(mask > 0, np.arange(24) % 5, -1),
        "mask": mask,
    }
    inputs, targets = jax.jit(task.train_inputs)(KEY, batch, jnp.arange(24))
    assert inputs.shape == images.shape
    assert inputs.dtype == targets.dtype == jnp.float32
    assert np.isfinite(inputs).all()
    pixels = np.asarray(inputs) * np.float32([58, 57, 57.5]) + np.float32([124, 116, 104])
    assert pixels.min() > -1e-3
    assert pixels.max() < 255 + 1e-3
    sums = np.asarray(targets).sum(axis=1)  # mirrored pairs: 4..19 are real with real partners
    np.testing.assert_allclose(sums[4:20], 1, atol=1e-6)
    np.testing.assert_allclose(sums[:4] + sums[:19:-1], 1, atol=1e-6)


def test_it_lowers_for_tpu_without_gathers_of_pixels(images):
    lowered = jax.export.export(jax.jit(augment_everything), platforms=["tpu"])(
        jax.ShapeDtypeStruct((16, 64, 64, 3), jnp.uint8), jax.ShapeDtypeStruct((16,), jnp.int32), KEY
    )
    gathers = [line for line in lowered.mlir_module().splitlines() if '"stablehlo.gather"' in line]
    assert gathers
    for line in gathers:  # whole images by their place in the batch, and small tables; no index for each pixel
        result = line.split("->")[-1]
        indices = line.split("(tensor<")[-1].split("tensor<")[1].split(">")[0]
        numbers = [int(size) for size in indices.split("x")[:-1]]
        assert np.prod(numbers) < 1024, (indices, result)
