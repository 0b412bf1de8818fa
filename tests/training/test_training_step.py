"""The step on small models whose right answer fits in the head, and on real ones over one and eight devices."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnet_jax import schema
from mnet_jax.data import catalog, pipeline
from mnet_jax.data.dataset import Dataset
from mnet_jax.data.tensorflow_setup import tf
from mnet_jax.models.compute import Compute
from mnet_jax.models.dropout import Dropout, example_keys
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.models.variables import initial_variables
from mnet_jax.tasks.classification.network import Classifier
from mnet_jax.tasks.classification.task import Classification
from mnet_jax.trained import annotations, build_model, build_task
from mnet_jax.training.evaluation import evaluate
from mnet_jax.training.optimizer import make_optimizer, make_schedule
from mnet_jax.training.parallel import AXIS, Devices, fetch
from mnet_jax.training.run_plan import derive
from mnet_jax.training.state import new_state
from mnet_jax.training.step import make_eval_step, make_train_step


class Linear(nn.Module):
    """Class scores linear in the mean colour; counts its calls in the batch statistics."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x, *, train):
        calls = self.variable("batch_stats", "calls", lambda: jnp.zeros(()))
        if train and not self.is_initializing():
            calls.value += 1.0
        return nn.Dense(self.num_classes, name="classifier")(x.mean((1, 2)))


def small_config(**fields):
    config = schema.get_config()
    config.train.num_steps, config.train.batch_size = 8, 16
    config.task.label_smoothing = 0.0
    config.optimizer.update({"name": "sgd", "momentum": 0.0, "weight_decay": 0.0})
    config.schedule.update({"name": "constant", "lr_per_256": 1.6})  # 0.1 for 16 images
    config.ema.decay = 0.0
    config.update_from_flattened_dict(fields)
    return config


def a_batch(size=16, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (size, 8, 8, 3), np.uint8),
        "label": rng.integers(0, 3, size, np.int32),
        "mask": np.ones(size, np.float32),
        "index": np.arange(size),
    }


class Run:
    """A step on `num_devices` devices and its state."""

    def __init__(self, config, model=None, num_devices=1, image_size=None):
        info = catalog.DatasetInfo("x", 3, ("a", "b", "c"), 160, 16, "train", "test", (127.5,) * 3, (127.5,) * 3)
        self.devices = Devices(num_devices)
        run = derive(config, info, num_devices)
        model = model or Linear()
        task = Classification(num_classes=3, label_smoothing=config.task.label_smoothing, mean=info.mean, std=info.std)
        schedule = make_schedule(config, run)
        optimizer = make_optimizer(config, schedule, task.own_scopes)
        self.state = self.devices.replicate(
            new_state(
                model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False), optimizer, ema=config.ema.decay > 0
            )
        )
        self.step = self.devices.pmap(
            make_train_step(model, task, optimizer, schedule, config, AXIS, image_size), donate_state=True
        )

    def __call__(self, batch):
        before = self.state
        (placed,) = self.devices.feed([batch])
        self.state, metrics = self.step(self.state, placed)
        assert jax.tree.leaves(before.params)[0].is_deleted()  # donated
        return fetch(metrics)


def softmax_regression(params, batch):
    """Loss and gradients of Linear in float64 NumPy."""
    x = ((batch["image"].astype(np.float64) - 127.5) / 127.5).mean((1, 2))
    logits = x @ params["kernel"] + params["bias"]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    one_hot = np.eye(3)[batch["label"]]
    error = (p - one_hot) / len(x)
    return -np.log((p * one_hot).sum(1)), {"kernel": x.T @ error, "bias": error.sum(0)}, p


@pytest.mark.parametrize(
    ("num_devices", "parts", "fields"),
    [
        (1, 1, {}),
        (8, 1, {}),
        (1, 4, {"train.accumulate_steps": 4}),
        (4, 2, {"train.accumulate_steps": 2}),
        (2, 4, {"train.part_size": 3}),  # of 8 images a device
    ],
)
def test_update_is_softmax_regression(num_devices, parts, fields):
    """However the batch is split over devices and accumulation steps, the update is the one of the whole batch."""
    run = Run(small_config(**fields), num_devices=num_devices)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), fetch(run.state.params)["classifier"])
    for step in range(3):
        batch = a_batch(seed=step)
        losses, grads, p = softmax_regression(params, batch)
        metrics = run(batch)
        assert metrics["loss"] == pytest.approx(losses.sum(), rel=1e-5)
        assert metrics["objective"] == pytest.approx(losses.mean(), rel=1e-5)
        assert metrics["count"] == 16
        assert metrics["top1"] == (p.argmax(1) == batch["label"]).sum()
        assert metrics["gradient_norm"] == pytest.approx(np.sqrt(sum((g**2).sum() for g in grads.values())), rel=1e-4)
        assert metrics["learning_rate"] == pytest.approx(0.1)
        params = {name: params[name] - 0.1 * grads[name] for name in params}
        got = fetch(run.state.params)["classifier"]
        for name in params:
            np.testing.assert_allclose(got[name], params[name], atol=1e-6)
    assert fetch(run.state.step) == 3
    assert fetch(run.state.batch_stats)["calls"] == 3 * parts


class Dropping(nn.Module):
    """Linear, of which half of the inputs are dropped, and half of the examples whole."""

    @nn.compact
    def __call__(self, x, *, train):
        self.variable("batch_stats", "calls", lambda: jnp.zeros(()))
        x = Dropout(0.5, name="dropout")(x.reshape(len(x), -1), train=train)
        return nn.Dense(3, name="classifier")(Dropout(0.5, whole=True, name="drop_path")(x, train=train))


def test_what_is_dropped_depends_on_the_place_in_the_whole_batch():
    """On any number of devices and in any number of parts; and it is another thing at each place and each step."""
    results = {}
    for num_devices, parts in ((1, 1), (4, 1), (8, 1), (1, 4), (4, 2)):
        run = Run(small_config(**{"train.accumulate_steps": parts}), Dropping(), num_devices)
        for step in range(10):
            run(a_batch(seed=step))
        results[num_devices, parts] = fetch(run.state.params)["classifier"]
    for found in results.values():
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), results[1, 1], found)

    layer, x = Dropout(0.5), jnp.ones((64, 500))
    first, second = (
        np.asarray(layer.apply(example_keys(jax.random.key(step), jnp.arange(64)), x, train=True)) for step in (0, 1)
    )
    assert set(np.unique(first)) == {0, 2}
    assert abs(first.mean() - 1) < 0.02
    agreement = (first[:, None] == first[None]).mean(-1)[np.triu_indices(64, 1)]
    assert np.abs(agreement - 0.5).max() < 0.1  # 500 values: 4.5 deviations
    assert abs((first == second).mean() - 0.5) < 0.02


def test_ema_of_parameters_and_statistics():
    run = Run(small_config(**{"ema.decay": 0.5}))
    ema = fetch(run.state.ema)
    for step in range(1, 12):
        run(a_batch(seed=step))
        decay = min(0.5, (1 + step) / (10 + step))
        now = {"params": fetch(run.state.params), "batch_stats": fetch(run.state.batch_stats)}
        ema = jax.tree.map(lambda old, new, decay=decay: decay * old + (1 - decay) * new, ema, now)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), fetch(run.state.ema), ema)


def test_one_compilation_for_many_steps(caplog):
    run = Run(small_config(), num_devices=2)
    with jax.log_compiles():
        for seed in range(4):
            run(a_batch(seed=seed))
    compiled = [record.getMessage() for record in caplog.records if "Finished XLA compilation" in record.getMessage()]
    assert len([line for line in compiled if "_fun" in line]) == 1, compiled


def test_impossible_number_of_devices():
    with pytest.raises(ValueError, match="there are 8 devices"):
        Devices(9)


# --- real models ---


def digits_config(tmp_path, **fields):
    config = schema.get_config()
    config.update_from_flattened_dict(
        {
            "model.name": "v3_small",
            "model.width": 0.25,
            "model.dropout": 0.0,
            "model.norm_sync": True,
            "data.name": "digits",
            "data.data_dir": str(tmp_path),
            "data.image_size": 32,
            "data.flip": False,
            "data.crop": "pad",
            "train.batch_size": 16,
            "train.num_steps": 5,
            "schedule.lr_per_256": 0.016,
        }
        | fields
    )
    return config


def cut_plan(num_classes):
    spec = SPECS["v3_small"]
    spec = dataclasses.replace(spec, blocks=spec.blocks[:5])
    return resolve(spec, num_classes=num_classes, width=0.5, dropout=0.2, drop_path=0.2)


def test_eight_devices_equal_one(tmp_path):
    """Ten steps with synchronised norm, dropout and drop path, on the same global batches: parameters agree to 1e-6.

    The net is the first five blocks of v3_small (squeeze-excite, h-swish, both strides, a residual), to compile sooner.
    """
    config = digits_config(tmp_path)
    dataset = Dataset.open(config.data, annotations(config))
    info = dataset.info
    task = build_task(config, info)
    results = []
    for num_devices in (1, 8):
        devices = Devices(num_devices)
        run = derive(config, info, num_devices)
        model = Classifier(cut_plan(info.num_classes), Compute(norm_axis_name=AXIS))
        schedule = make_schedule(config, run)
        optimizer = make_optimizer(config, schedule, task.own_scopes)
        start = new_state(initial_variables(model.list_variables(), 0), optimizer, ema=True)
        state = devices.replicate(start)
        step = devices.pmap(make_train_step(model, task, optimizer, schedule, config, AXIS), donate_state=True)
        batches = pipeline.train_batches(dataset, batch_size=16, seed=0, start_step=0)
        for _, batch in zip(range(10), devices.feed(batches), strict=False):
            state, metrics = step(state, batch)
        results.append(fetch((state, metrics)))
    (one, one_metrics), (eight, eight_metrics) = results
    assert one_metrics["loss"] == pytest.approx(eight_metrics["loss"], rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one.params, eight.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one.ema["params"], eight.ema["params"])


def test_evaluation_counts_every_image_once(tmp_path, imagenet_sample):
    """300 real images over 8 devices in batches of 64 give what a plain loop gives, image by image."""
    fields = {"data.name": "imagenet2012", "data.data_dir": str(imagenet_sample), "data.image_size": 64}
    config = digits_config(tmp_path, **fields)
    dataset = Dataset.open(config.data, annotations(config))
    info = dataset.info
    assert info.num_eval == 300
    model, task = build_model(config, info), build_task(config, info)
    variables = initial_variables(model.list_variables(), 3)
    variables["params"]["classifier"]["kernel"] *= 20  # so that the classes differ
    devices = Devices(8)
    step = devices.pmap(make_eval_step(model, task, AXIS), donate_state=False)
    batches = pipeline.eval_batches(dataset, batch_size=64)
    metrics = evaluate(step, devices.replicate(variables), devices.feed(batches), task.meter())

    apply = jax.jit(lambda batch: model.apply(variables, task.eval_inputs(batch), train=False))
    logits, labels = [], []
    for batch in pipeline.eval_batches(dataset, batch_size=100):
        logits.append(np.asarray(apply(batch), np.float64))
        labels.append(batch["label"])
        assert batch["mask"].all()
    logits, labels = np.concatenate(logits), np.concatenate(labels)
    order = np.argsort(-logits, axis=1)
    log_p = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    assert metrics["num_images"] == 300
    assert metrics["top1"] == pytest.approx((order[:, 0] == labels).mean())
    assert metrics["top5"] == pytest.approx((order[:, :5] == labels[:, None]).any(1).mean())
    assert metrics["loss"] == pytest.approx(-log_p[np.arange(300), labels].mean(), rel=1e-4)


@pytest.mark.parametrize("size", [(5, 5), (4, 6)])
def test_the_network_sees_images_in_the_size_of_its_stage(size):
    """As tensorflow makes them smaller: each pixel is a mean of those that it covers."""
    seen = []

    class Sees(Linear):
        def __call__(self, x, *, train):
            jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
            return super().__call__(x, train=train)

    batch = a_batch()
    Run(small_config(), Sees(), image_size=size)(batch)
    jax.effects_barrier()
    normal = ((batch["image"] - 127.5) / 127.5).astype(np.float32)
    np.testing.assert_allclose(seen[-1], tf.image.resize(normal, size, antialias=True).numpy(), atol=1e-6)
