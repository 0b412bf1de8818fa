"""The augmentation as a whole: determinism, ranges, what is off, what a task can follow, and that it lowers for TPU."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnet_jax.augment import apply, randaugment
from mnet_jax.augment.settings import Augmentation, Effect
from mnet_jax.tasks.classification.task import Classification

EVERYTHING = Augmentation(
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

    def layer(images, operation, sign, *, magnitude, fill, operations):
        assert operations == tuple(randaugment.OPERATIONS)
        jax.debug.callback(lambda *drawn: seen.append([np.asarray(value) for value in drawn]), operation, sign)
        return images

    monkeypatch.setattr(randaugment, "layer", layer)
    settings = Augmentation(randaugment_layers=2, randaugment_prob=0.75)
    apply.augment_images(KEY, jnp.zeros((15000, 1, 1, 3), jnp.uint8), jnp.arange(15000), settings, fill=FILL)
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
        lambda x: apply.augment_images(KEY, x, jnp.arange(4000), Augmentation(brightness=0.4), fill=FILL)
    )
    result = brighten(grey)
    values = np.asarray(result)[:, 0, 0, 0]
    assert values.min() == 60
    assert values.max() == 139
    assert abs(values.mean() - 99.5) < 1.5


def test_off_is_the_normalisation_alone(images):
    task = Classification(num_classes=5, mean=(124.0, 116.0, 104.0), std=(58.0, 57.0, 57.5), augment=Augmentation())
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
    settings = Augmentation(randaugment_layers=1, erase_prob=0.5, mixup_alpha=0.2, cutmix_alpha=1.0)
    statistics = {"mean": (124, 116, 104), "std": (58, 57, 57.5)}
    task = Classification(num_classes=5, **statistics, label_smoothing=0.1, augment=settings)
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
    sums = np.asarray(targets).sum(axis=1)  # neighbours: 0..19 are real with real partners
    np.testing.assert_allclose(sums[:20], 1, atol=1e-6)
    np.testing.assert_allclose(sums[20:], 0, atol=1e-6)


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


def test_recolouring_operations_alone_leave_every_pixel_in_its_place(images):
    """What a task with boxes or masks can let RandAugment draw from: two halves of an image stay two halves."""
    recolouring = randaugment.operations_with({Effect.RECOLOURS})
    assert len(recolouring) == 10
    halves = np.broadcast_to(images[:, :1, :1], images.shape).copy()
    halves[:, :, 24:] = images[:, -1:, -1:]
    settings = Augmentation(brightness=0.4, hue=0.1, randaugment_layers=3)

    def run(operations):
        return np.asarray(
            jax.jit(lambda x: apply.augment_images(KEY, x, jnp.arange(24), settings, fill=FILL, operations=operations))(
                halves
            )
        )

    def halved(result):
        left, right = result[:, :, :20], result[:, :, 28:]  # between them sharpness mixes neighbours
        return (left == left[:, :1, :1]).all(axis=(1, 2, 3)) & (right == right[:, :1, :1]).all(axis=(1, 2, 3))

    result = run(recolouring)
    assert halved(result).all()
    assert np.any(result != halves, axis=(1, 2, 3)).mean() > 0.9
    assert not halved(run(randaugment.ALL)).all()


def test_what_a_task_cannot_follow_is_refused_in_one_line_with_the_fields_to_set():
    def check(task="boxes", follows=frozenset({Effect.RECOLOURS}), operations=randaugment.ALL, **fields):
        apply.check_effects(Augmentation(**fields), task, follows=follows, operations=operations)

    check()
    check(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    check(randaugment_layers=2, operations=randaugment.operations_with({Effect.RECOLOURS}))
    check(randaugment_layers=2, randaugment_prob=0.0, mixup_alpha=0.2, mix_prob=0.0)  # off all the same
    check(follows=frozenset(Effect), randaugment_layers=2, erase_prob=0.2, mixup_alpha=0.2, cutmix_alpha=1.0)
    for fields, message in (
        (
            {"mixup_alpha": 0.2, "hue": 0.1},
            "augment.mixup_alpha=0.2: the task boxes cannot follow images that are mixed with others; "
            "set --config.augment.mixup_alpha=0.0",
        ),
        (
            {"randaugment_layers": 2},
            "augment.randaugment_layers=2: the task boxes cannot follow images whose pixels move; "
            "set --config.augment.randaugment_layers=0",
        ),
        (
            {"erase_prob": 0.25, "cutmix_alpha": 1.0},
            "augment.erase_prob=0.25, augment.cutmix_alpha=1.0: the task boxes cannot follow images that are partly "
            "covered or that are mixed with others; set --config.augment.erase_prob=0.0 "
            "--config.augment.cutmix_alpha=0.0",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message) + "$"):
            check(**fields)


def test_every_field_that_switches_something_on_has_an_effect():
    """A new operation cannot be forgotten: what a field alone puts into the program is in `effects`."""
    of_others = {"randaugment_magnitude", "randaugment_prob", "mix_prob"}  # they say how much of what others switch on
    switches = [field.name for field in dataclasses.fields(Augmentation) if field.name not in of_others]
    everything = Augmentation(**{name: 1 for name in switches})
    assert list(apply.effects(everything)) == switches
    assert apply.effects(everything)["randaugment_layers"] == {Effect.RECOLOURS, Effect.MOVES}
    for name in switches:
        assert list(apply.effects(Augmentation(**{name: 1}))) == [name]
    assert apply.effects(Augmentation()) == {}
