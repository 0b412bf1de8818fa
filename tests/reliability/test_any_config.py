"""Any config that the schema allows builds and trains, or is refused in one line."""

import math

import jax
import numpy as np
import pytest
import small_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnet_jax import config as configs
from mnet_jax import schema
from mnet_jax.data.dataset import Dataset
from mnet_jax.models.tables import SPECS
from mnet_jax.models.variables import initial_variables
from mnet_jax.trained import annotations
from mnet_jax.training import batches, loop, setup
from mnet_jax.training.parallel import Devices

LIMITS = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
DEFAULTS = schema.get_config()
# What costs time and memory stays small; the schema allows more.
MOST = {
    "model.width": 0.5,
    "data.crop_pad": 16,
    "data.shuffle_buffer": 1000,
    "data.cache_mb": 100,
    "task.max_objects": 20,
    "task.max_detections": 20,
    "augment.randaugment_layers": 2,
    "train.batch_size": 16,
    "train.num_epochs": 1,
    "train.num_steps": 4,
    "train.accumulate_steps": 20,
    "train.part_size": 20,
    "train.num_devices": 2,
    "train.embedding_views": 2,
    "eval.batch_size": 64,
}
OTHERS = {
    "model.name": st.sampled_from(sorted(SPECS)),
    "data.name": st.sampled_from(["digits", "folder", "cifar10"]),
    "data.image_size": st.sampled_from([32, 33, 48, (32, 40), (31, 32), 64]),
    "data.crop_area": st.tuples(st.floats(0, 1), st.floats(0, 1)),
    "data.crop_ratio": st.tuples(st.floats(0.1, 2), st.floats(0.1, 2)),
    "data.crop_scale": st.tuples(st.floats(0, 4), st.floats(0, 4)),
    "data.mean": st.one_of(st.none(), st.tuples(*[st.floats(0, 255)] * 3)),
    "data.std": st.one_of(st.none(), st.tuples(*[st.floats(0, 255)] * 3)),
    "data.labels": st.sampled_from([None, "/nowhere.csv", "labels.csv"]),
    "data.train_split": st.sampled_from([None, "train", "train[:10%]", "train[:0]", "nothing"]),
    "data.eval_split": st.sampled_from([None, "test", "test[:10%]", "test[:1]", "train"]),
    "train.image_sizes": st.sampled_from(
        [None, ((0, 32),), ((0, 32), (1, 48)), ((0, 48), (0.01, 32)), ((1, 32),), "big"]
    ),
    "task.name": st.sampled_from(["classification", "detection", "segmentation", "clasification"]),
    "task.head": st.sampled_from([None, "ssdlite_tf", "lraspp_torchvision", "none"]),
    "task.eval_scales": st.sampled_from([(1.0,), (0.5, 1.0), ()]),
    "checkpoint.best_metric": st.sampled_from([None, "top1", "loss", "miou", "top5"]),
    "init.checkpoint": st.sampled_from([None, "/nowhere"]),
    "init.weights": st.sampled_from([None, "/nowhere.h5", "timm/unknown"]),
}
SKIPPED = ("data.data_dir", "data.folder", "data.manifest", "data.split_from", "train.embedding_dir")


def numbers(path, kind):
    """Numbers of a field's range, whole or not, its ends as often as all between."""
    allowed = schema.RANGES[path]
    low = max(allowed.low, 0)
    high = min(allowed.high, MOST.get(path, 1000))
    if kind is int:
        return st.one_of(st.integers(math.ceil(low), int(high)), st.sampled_from([math.ceil(low), int(high)]))
    between = st.floats(low, high, exclude_min=allowed.open_low, exclude_max=allowed.open_high and high == allowed.high)
    return st.one_of(between, st.floats(low, high).filter(lambda value: value in allowed and value > 1e-3))


def values(path):
    """What a field may have."""
    if path in OTHERS:
        return OTHERS[path]
    optional = [st.none()] if configs.field(DEFAULTS, path) is None else []
    kind = configs._type_of(DEFAULTS, path)
    if path in schema.CHOICES:
        return st.one_of(*optional, st.sampled_from(schema.CHOICES[path]))
    if path in schema.RANGES:
        return st.one_of(*optional, numbers(path, kind))
    if kind is bool:
        return st.booleans()
    raise AssertionError(f"how is {path} drawn?")


FIELDS = [path for path in configs.flatten(DEFAULTS) if path not in SKIPPED]


@st.composite
def changes(draw):
    """Up to eight fields with values of their own."""
    paths = draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=8, unique=True))
    return {path: draw(values(path)) for path in paths}


def built(place, drawn):
    """The config of a small run of two steps, with what was drawn."""
    found = configs.load("digits")
    small = {**small_run.FIELDS, "train.num_steps": 2, "schedule.warmup_steps": 1, "data.data_dir": str(place)}
    small["data.eval_split"] = "test[:20%]"
    for path, value in {**small, **drawn}.items():
        configs.set_field(found, path, value)
    return found


def one_line(error):
    text = str(error)
    assert text.strip(), repr(error)
    assert "\n" not in text, text
    assert len(text) < 1200, text


def test_a_way_to_draw_every_field():
    for path in FIELDS:
        values(path)
    assert set(SKIPPED) <= set(configs.flatten(DEFAULTS))


@pytest.mark.parametrize("examples", [8, pytest.param(40, marks=pytest.mark.long)])
def test_any_config_builds_or_is_refused(tmp_path_factory, examples):
    """Shapes and types of two steps, without a program."""
    place, counts = tmp_path_factory.mktemp("data"), {"built": 0, "refused": 0}

    @settings(max_examples=examples, **LIMITS)
    @given(changes())
    def test(drawn):
        config = built(place, drawn)
        try:
            configs.validate(config)
            dataset = Dataset.open(config.data, annotations(config))
            devices = Devices(config.train.num_devices)
            learned = setup.learning(config, dataset.info, devices.count)
            learned.task.metric(config.checkpoint.best_metric)
            variables = initial_variables(learned.network.list_variables(), config.seed)
        except (ValueError, OSError) as error:
            counts["refused"] += 1
            return one_line(error)
        counts["built"] += 1
        step = devices.pmap(learned.train_step(), donate_state=False)
        kinds, plan = dataset.annotations, learned.run_plan
        shapes = batches.shapes(kinds, plan.image_size, len(devices.local), plan.device_batch, train=True)
        state = jax.eval_shape(learned.new_state, variables)
        for _ in range(2):
            after, metrics = jax.eval_shape(step, state, shapes)
            assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
                lambda x: (x.shape, x.dtype), state
            )
            assert all(np.shape(value) == () for value in jax.tree.leaves(metrics))
            state = after

    test()
    assert min(counts.values()) >= examples // 8, counts


@pytest.mark.long
def test_any_config_trains_two_steps_or_is_refused(tmp_path_factory):
    """For real, with the network that compiles quickest."""
    place, runs = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs")
    trained = []

    @settings(max_examples=4, **LIMITS)
    @given(changes())
    def test(drawn):
        drawn.pop("model.name", None)
        config = built(place, drawn)
        config.train.num_steps, config.train.num_epochs = 2, None
        run = runs / str(len(list(runs.iterdir())))
        run.mkdir()
        try:
            metrics = loop.train(config, str(run))
        except (ValueError, OSError, FloatingPointError) as error:
            return one_line(error)
        assert metrics["num_images"] > 0
        trained.append(run)

    test()
    assert trained
