"""The task for segmentation by itself: loss over parts and devices, void, weights, confusion, figures, refusals."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from on_devices import gradients

from mnet_jax import schema
from mnet_jax.config import load, validate
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.crop import Crop
from mnet_jax.models.compute import Compute
from mnet_jax.models.resolve import resolve_section
from mnet_jax.models.variables import initial_variables
from mnet_jax.tasks.segmentation import confusion, meter, pictures, predict, task
from mnet_jax.training.evaluation import Evaluator
from mnet_jax.training.optimizer import make_schedule
from mnet_jax.training.parallel import Devices
from mnet_jax.training.run_plan import derive

NAMES = ("sky", "road", "car")
INFO = DatasetInfo.made_up(3, class_names=NAMES)
SIZE, GRID, VOID = (24, 32), (6, 8), 255


def a_config(**fields):
    config = schema.get_config()
    config.model.name, config.model.width = "v1", 0.25
    config.task.name, config.task.head = "segmentation", "lraspp_torchvision"
    config.data.image_size, config.data.eval_crop, config.train.num_steps = SIZE, 1.0, 10
    config.update_from_flattened_dict(fields)
    return config


def a_task(**fields):
    config = a_config()
    config.data.image_size = (32, 32)
    return dataclasses.replace(task.build(config, INFO), **{"image_size": SIZE, **fields})


def a_batch(rng, count=8, largest=(40, 50)):
    """Images of several sizes; the map of the fourth is void, the last one only fills the batch."""
    maps = rng.integers(0, 4, (count, *SIZE)).astype(np.uint8)
    maps[maps == 3], maps[3] = VOID, VOID
    sizes = np.stack([rng.integers(9, side + 1, count) for side in largest], -1)
    whole = rng.integers(0, 4, (count, *largest)).astype(np.uint8)
    whole[whole == 3] = VOID
    for picture, (height, width) in zip(whole, sizes, strict=True):
        picture[height:], picture[:, width:] = VOID, VOID
    zeros = np.zeros((count, 2), int)
    crop = np.concatenate([zeros, sizes, zeros, np.tile(SIZE, (count, 1)), zeros[:, :1], sizes], -1)
    return {
        "image": rng.integers(0, 256, (count, *SIZE, 3), np.uint8),
        "map": maps,
        "map_whole": whole,
        "mask": np.float32([1] * (count - 1) + [0]),
        "index": np.arange(count, dtype=np.int32),
        "crop": crop.astype(np.int32),
    }


def for_training(batch):
    return {name: batch[name] for name in ("image", "map", "mask", "index")}


def a_network(params, images):
    """Logits on a grid of the mean colours there: something with a gradient."""
    count, height, width, _ = images.shape
    blocks = images.reshape(count, GRID[0], height // GRID[0], GRID[1], width // GRID[1], 3).mean((2, 4))
    return {"classes": blocks @ params["classes"], "auxiliary": jnp.tanh(blocks)[:, ::2] @ params["auxiliary"]}


def some_params():
    rng = np.random.default_rng(5)
    return {name: jnp.asarray(rng.normal(size=(3, 3)), jnp.float32) for name in ("classes", "auxiliary")}


# --- The loss ---


def numpy_loss(logits, maps, weights):
    """Mean cross entropy over the pixels that are not void, each times the weight of its class; half-pixel centres."""
    lost = total = 0.0
    for image, values in zip(np.asarray(logits, np.float64), maps, strict=True):
        for y in range(values.shape[0]):
            for x in range(values.shape[1]):
                if values[y, x] == VOID:
                    continue
                at = numpy_sample(image, (y + 0.5) / values.shape[0], (x + 0.5) / values.shape[1])
                weight = weights[values[y, x]]
                lost += weight * (np.log(np.exp(at).sum()) - at[values[y, x]])
                total += weight
    return lost / total


def numpy_sample(image, y, x):
    """The value at a place given as shares of the sides, bilinear between the centres of the grid."""
    found = np.zeros(image.shape[-1])
    y, x = (min(max(v * n - 0.5, 0), n - 1) for v, n in zip((y, x), image.shape, strict=False))
    for row in (int(y), min(int(y) + 1, image.shape[0] - 1)):
        for column in (int(x), min(int(x) + 1, image.shape[1] - 1)):
            share = (1 - abs(y - row)) * (1 - abs(x - column))
            last_row, last_column = row == int(y) == image.shape[0] - 1, column == int(x) == image.shape[1] - 1
            found += image[row, column] * share / ((2 if last_row else 1) * (2 if last_column else 1))
    return found


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 4.0)])
def test_the_loss_is_the_mean_over_pixels_that_are_not_void(weights):
    ours, batch, params = a_task(class_weights=weights), a_batch(np.random.default_rng(0), 4), some_params()
    batch["mask"] = np.ones(4, np.float32)

    @jax.jit
    def mean(params, batch):
        inputs, targets = ours.train_inputs(jax.random.key(0), batch, jnp.arange(4), lambda x: x)
        outputs = a_network(params, inputs)
        return ours.loss(outputs, targets).mean(), outputs["classes"]

    found, logits = mean(params, for_training(batch))
    assert found == pytest.approx(numpy_loss(logits, batch["map"], weights or (1, 1, 1)), rel=1e-5)


@pytest.mark.parametrize("auxiliary", [0.0, 0.4])
def test_parts_and_devices_give_the_same_gradient(auxiliary):
    """The loss is divided by the pixels of the whole step: one part on one device learns what four learn."""
    ours = a_task(auxiliary_weight=auxiliary, class_weights=(1.0, 2.0, 0.25))
    batch, params = for_training(a_batch(np.random.default_rng(0))), some_params()
    found = list(gradients(ours, a_network, params, batch, ((1, 1), (2, 2), (8, 1))))
    for other in found[1:]:
        for name in params:
            np.testing.assert_allclose(other[name], found[0][name], rtol=1e-4, atol=1e-6)
    assert np.any(found[0]["auxiliary"]) == (auxiliary > 0)


def test_a_batch_of_void_is_zero_and_never_nan():
    ours, batch, params = a_task(), for_training(a_batch(np.random.default_rng(1))), some_params()
    batch["map"] = np.full_like(batch["map"], VOID)

    @jax.jit
    def both(params, batch):
        def loss(params):
            inputs, targets = ours.train_inputs(jax.random.key(0), batch, jnp.arange(8), lambda x: x)
            return ours.loss(a_network(params, inputs), targets).mean()

        return jax.value_and_grad(loss)(params)

    value, grads = both(params, batch)
    assert value == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))
    measured = ours.measure({"classes": np.zeros((8, *GRID, 3), np.float32)}, batch)
    assert measured.sums["pixel_accuracy"] == measured.sums["count"] == 7


def test_balanced_weights_are_the_median_over_the_share():
    counts = np.zeros((2, 256), np.int64)
    counts[0, :3], counts[1, 0], counts[:, VOID] = (100, 10, 0), 300, 5000
    found = a_task(balanced=True).fitted(lambda field: {"map": counts}[field])
    np.testing.assert_allclose(found.class_weights, [205 / 400, 205 / 10, 1.0])
    assert a_task().fitted(None).class_weights is None


# --- Judging ---


def numpy_confusion(logits, batch, *, align_corners):
    """Counts pixel by pixel of each picture at its own size."""
    counts = np.zeros((len(logits), 3, 3), int)
    for image, (grid, truth) in enumerate(zip(logits, batch["map_whole"], strict=True)):
        height, width = batch["crop"][image, 9:]
        for y in range(height):
            for x in range(width):
                if truth[y, x] == VOID:
                    continue
                place = (y + 0.5) / height, (x + 0.5) / width
                if align_corners:  # onto a grid whose outermost centres are those of the input's outermost pixels
                    pixel = [v * side - 0.5 for v, side in zip(place, SIZE, strict=True)]
                    pixel = [min(max(v, 0), side - 1) / (side - 1) for v, side in zip(pixel, SIZE, strict=True)]
                    place = [(v * (few - 1) + 0.5) / few for v, few in zip(pixel, GRID, strict=True)]
                said = numpy_sample(grid.astype(np.float64), *place).argmax()
                counts[image, truth[y, x], said] += 1
    return counts


@pytest.mark.parametrize("head", ["lraspp_torchvision", "deeplab"])
def test_confusion_as_numpy_counts_it(head):
    """Pictures of several sizes, higher than one strip, with void and without one class."""
    config = a_config()
    config.task.head, config.data.image_size = head, (32, 32)
    ours = dataclasses.replace(task.build(config, INFO), image_size=SIZE)
    rng = np.random.default_rng(3)
    batch = a_batch(rng, 4, largest=(70, 45))
    batch["map_whole"][batch["map_whole"] == 2] = 1
    logits = rng.normal(size=(4, *GRID, 3)).astype(np.float32)
    rows = jax.jit(lambda outputs, batch: ours.measure(outputs, batch).rows)({"classes": logits}, batch)
    wanted = numpy_confusion(logits, batch, align_corners=head == "deeplab")
    np.testing.assert_array_equal(rows["confusion"], wanted)
    crop = Crop.from_rows(batch["crop"][2], SIZE)
    said = confusion.picture_classes(logits[2], crop, align_corners=head == "deeplab")
    truth = batch["map_whole"][2][: said.shape[0], : said.shape[1]]
    known = truth != VOID
    np.testing.assert_array_equal(np.bincount(3 * truth[known] + said[known], minlength=9).reshape(3, 3), wanted[2])


def test_figures_as_counted_by_hand():
    found = meter.figures(np.array([[6, 2, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]))
    np.testing.assert_allclose(found.iou, [6 / 9, 3 / 7, np.nan, 0])
    assert found.miou == pytest.approx((6 / 9 + 3 / 7) / 3)  # the third is nowhere: it does not count
    assert found.pixel_accuracy == pytest.approx(9 / 13)
    assert found.class_accuracy == pytest.approx((6 / 8 + 3 / 4 + 0) / 3)
    np.testing.assert_allclose(found.precision, [6 / 7, 3 / 6, np.nan, np.nan])
    assert meter.figures(np.zeros((2, 2))).miou == 0


class Colours(nn.Module):
    """A network whose logits are the colours themselves."""

    @nn.compact
    def __call__(self, images, *, train):
        del train
        return {"classes": a_network(some_params(), images)["classes"]}


class Source:
    """Two evaluation batches, as often as wanted."""

    def __init__(self, batches):
        self.batches = batches

    def evaluation(self, **unused):
        return iter(self.batches)


def test_eight_devices_count_what_one_counts():
    ours, rng = a_task(), np.random.default_rng(4)
    batches = [a_batch(rng), a_batch(rng)]
    results = []
    for count in (1, 8):
        devices = Devices(count)
        judge = Evaluator(Colours(), ours, Source(batches), devices, device_batch=8 // count, num_images=14)
        results.append(judge(devices.replicate({"params": {}, "batch_stats": {}})))
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=1e-6, nan_ok=True)
    total = sum(
        numpy_confusion(
            np.asarray(Colours().apply({}, ours.eval_inputs(batch), train=False)["classes"])[:7],
            {name: value[:7] for name, value in batch.items()},
            align_corners=False,
        ).sum(0)
        for batch in batches
    )
    assert results[1]["miou"] == pytest.approx(meter.figures(total).miou, abs=2e-3)
    assert results[1]["pixel_accuracy"] == pytest.approx(np.trace(total) / total.sum(), abs=2e-3)


@pytest.mark.long
def test_views_are_averaged():
    """Mirrored and in two sizes: the mean of the probabilities of each, in the head's own grid."""
    config = a_config()
    config.data.image_size = (64, 64)
    plain = task.build(config, INFO)
    views = dataclasses.replace(plain, eval_scales=(1.0, 0.5), eval_flip=True)
    plan = resolve_section(config.model)
    one, many = (each.network(plan, Compute()) for each in (plain, views))
    variables = initial_variables(one.list_variables(), 0)
    images = jax.random.normal(jax.random.key(1), (1, 64, 64, 3))
    apply = jax.jit(lambda images: one.apply(variables, images, train=False)["classes"])
    halves = (images[:, ::2, ::2] + images[:, 1::2, ::2] + images[:, ::2, 1::2] + images[:, 1::2, 1::2]) / 4
    total = 0
    for view in (images, halves):
        for flipped in (view, view[:, :, ::-1]):
            logits = apply(flipped)
            logits = logits[:, :, ::-1] if flipped is not view else logits
            total += jax.nn.softmax(jax.image.resize(logits, (1, 8, 8, 3), "bilinear", antialias=False))
    found = jax.jit(lambda images: many.apply(variables, images, train=False)["classes"])(images)
    np.testing.assert_allclose(jnp.exp(found), total / 4, atol=2e-5)


# --- What people see ---


def test_a_photo_is_described_by_shares_and_a_mask():
    logits = np.zeros((2, 2, 3), np.float32)
    logits[:, 0, 1], logits[:, 1, 2] = 5, 5
    crop = Crop(np.array([0, 0, 40, 60]), np.array([0, 0, *SIZE]), np.array(False), np.array([40, 60]), SIZE)
    found = predict.describe({"logits": logits, "align_corners": np.array(False)}, INFO, crop)
    assert [(row["class"], row["share"]) for row in found["classes"]] == [("road", 0.5), ("car", 0.5)]
    assert predict.lines(found) == [" 50.00 %  road", " 50.00 %  car"]
    import io

    from PIL import Image

    with Image.open(io.BytesIO(predict.more_files(found)["_mask.png"])) as mask:
        np.testing.assert_array_equal(np.asarray(mask), np.repeat([1, 2], 30)[None].repeat(40, 0))
    photo = np.full((40, 60, 3), 100, np.uint8)
    with Image.open(io.BytesIO(predict.draw(photo, found))) as drawn:
        assert drawn.width == 60
        left, right = np.asarray(drawn)[20, 5].astype(int), np.asarray(drawn)[20, 55].astype(int)
    for colour, number in ((left, 1), (right, 2)):
        assert np.abs(colour - (100 * 0.45 + pictures.palette()[number] * 0.55)).max() <= 1
    found["classes"][0]["class"] = "background"  # that stays as it is, and has no place in the legend
    with Image.open(io.BytesIO(predict.draw(photo, found))) as drawn:
        assert np.asarray(drawn)[20, 5].tolist() == [100, 100, 100]
        assert np.asarray(drawn)[20, 55].tolist() == right.tolist()
        assert not np.any(np.all(np.asarray(drawn)[40:] == pictures.palette()[1], -1))


def test_colours_differ():
    found = pictures.palette().astype(int)[:35]
    distance = np.abs(found[:, None] - found[None]).sum(-1) + 1000 * np.eye(35, dtype=int)
    assert distance.min() >= 15


def test_poly_falls_to_nothing():
    config = a_config(**{"schedule.name": "poly", "schedule.power": 0.9, "schedule.lr_per_256": 1.0})
    config.train.batch_size, config.data.image_size, config.train.num_steps = 256, 64, 100
    config.schedule.warmup_steps, config.train.num_devices = 20, 1
    schedule = make_schedule(config, derive(config, INFO, 1))
    wanted = optax.polynomial_schedule(1.0, 0.0, 0.9, 80)
    for step in (20, 21, 60, 99, 100):
        assert schedule(step) == pytest.approx(float(wanted(step - 20)), rel=1e-5, abs=1e-7)
    assert schedule(0) == pytest.approx(0.05)


# --- Refusals ---


def build(config):
    """All that a start does with a config before there is a network."""
    validate(config)
    built = task.build(config, INFO)
    built.network(
        resolve_section(config.model, quantize_range_decay=0.99 if config.quantize.train else None), Compute()
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"data.eval_crop": 0.875}, "pixels outside of the crop would not be judged"),
        ({"task.head": "lrasp"}, "lraspp"),
        ({"task.head": "ssdlite_torchvision"}, "lraspp"),
        ({"task.eval_scales": ()}, "give one number or more"),
        ({"task.eval_scales": (9.0,)}, "give one number or more"),
        ({"task.auxiliary_weight": 0.5}, "has no auxiliary head"),
        ({"augment.mixup_alpha": 0.2}, "segmentation"),
        ({"augment.erase_prob": 0.2}, "segmentation"),
        ({"quantize.train": True}, "quantize"),
    ],
)
def test_configs_that_cannot_be(fields, said):
    config = a_config()
    config.data.image_size = (64, 64)
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=said) as error:
        build(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "override", ["data.crop_scale=(2.0,0.5)", "task.output_stride=7", "schedule.power=0.0", "schedule.name=polly"]
)
def test_fields_that_cannot_be(override):
    with pytest.raises(ValueError, match=override.partition("=")[0]) as error:
        validate(load("deeplab_v2", [f"--config.{override}"]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["lraspp_v3_large", "lraspp_v3_small", "deeplab_v2", "finetune_masks"])
def test_the_configs_make_a_task(name):
    config = load(name)
    config.init.weights = "timm/mobilenetv3_large_100.ra_in1k" if name == "finetune_masks" else None
    validate(config)
    if name == "finetune_masks":
        config.model.name = "v2"
    built = task.build(config, DatasetInfo.made_up(21))
    built.network(resolve_section(config.model), Compute())
    assert built.num_classes == 21
