"""Configs: every bad one gets one clear line; durations and batches come out right."""

import ast
import json
import pathlib
import re

import ml_collections
import pytest

from mnet_jax import config as configs
from mnet_jax import schema
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import find_spec
from mnet_jax.training.run_plan import check_norms, derive, due

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py") if path.stem != "default")


def a_config(**fields):
    config = schema.get_config()
    config.train.num_steps = 10
    for path, value in fields.items():
        *parents, key = path.split("__")
        section = config
        for parent in parents:
            section = section[parent]
        with section.unlocked(), section.ignore_type():
            section[key] = value
    return config


def an_info(num_train=1000, num_eval=300):
    return DatasetInfo(
        name="set", num_classes=3, class_names=("a", "b", "c"), num_train=num_train, num_eval=num_eval,
        train_split="train", eval_split="test", mean=(127.5,) * 3, std=(127.5,) * 3,
    )  # fmt: skip


# field, value, what the line must contain: 34 ways to get a config wrong
BAD = [
    ("model__nme", "v2", "model.nme.*Did you mean 'model.name'"),
    ("optimiser", "sgd", "unknown config field 'optimiser'"),
    ("model__width", 0.0, r"model.width=0.0.*above 0"),
    ("model__width", "wide", "model.width='wide'.*a number"),
    ("model__width", float("nan"), "model.width=nan"),
    ("model__dropout", 1.0, "model.dropout=1.0.*below 1"),
    ("model__dtype", "float16", "choose one of 'float32', 'bfloat16'"),
    ("model__padding", "valid", "'same', 'symmetric'"),
    ("model__stem_stride", 3, "choose one of 4, 2, 1"),
    ("model__width_rule", "keras", "'tf', 'timm', 'torchvision'"),
    ("model__norm_sync", "yes", "True or False"),
    ("model__name", None, "init.checkpoint"),
    ("train__freeze", "backbone", "keeps weights that somebody trained.*--config.init"),
    ("train__embedding_views", 4, 'train.embedding_views=4 .* needs train.freeze="backbone"'),
    ("task__class_weights", "balance", "Did you mean 'balanced'"),
    ("train__patience", 0, "at least 1"),
    ("optimizer__layer_decay", 1.5, "at most 1"),
    ("data__image_size", 16, "from 32 to 4096"),
    ("data__image_size", (224, 224, 3), r"\(height, width\)"),
    ("data__image_size", "224", "one number or"),
    ("data__crop", "inceptoin", "Did you mean 'inception'"),
    ("data__crop_area", (0.5, 0.1), "lowest, highest"),
    ("data__crop_area", (0.0, 1.0), "above 0"),
    ("data__crop_ratio", (1.0,), "lowest, highest"),
    ("data__mean", (1, 2), "three numbers"),
    ("data__folder", "photos", 'data.name="folder"'),
    ("data__name", "folder", 'data.name="folder"'),
    ("data__eval_crop", 1.5, "at most 1"),
    ("data__interpolation", "lanczos", "'bilinear', 'bicubic'"),
    ("train__batch_size", 0, "at least 1"),
    ("train__batch_size", 12.5, "a whole number"),
    ("train__batch_size", None, "no default of its own"),
    ("train__num_epochs", 3.0, "two units for one duration.*--config.train.num_epochs=None"),
    ("train__num_steps", None, "length of the run is missing"),
    ("task__label_smoothing", -0.1, "at least 0"),
    ("optimizer__name", "rmsprob", "Did you mean 'rmsprop'"),
    ("optimizer__epsilon", 0.0, "above 0"),
    ("schedule__name", "exponential", "needs schedule.decay_epochs or schedule.decay_steps"),
    ("schedule__lr_per_256", -1.0, "above 0"),
    ("ema__decay", 1.0, "below 1"),
    ("augment__erase_prob", 1.5, "augment.erase_prob"),
    ("augment__randaugment_magnitude", 15.0, "augment.randaugment_magnitude"),
    ("augment__hue", 0.7, "augment.hue"),
    ("seed", -1, "at least 0"),
    ("log__every_steps", True, "a whole number"),
]


@pytest.mark.parametrize(("field", "value", "line"), BAD)
def test_bad_config_gives_one_clear_line(field, value, line):
    with pytest.raises(ValueError, match=line) as error:
        configs.validate(a_config(**{field: value}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sizes", "line"),
    [
        (160, r"give pairs of an epoch and pixels, such as \(\(0, 128\)"),
        (((0, 160), (1, "x")), "give pairs of an epoch and pixels"),
        (((1, 160),), "the first epoch is 0"),
        (((0, 160), (0, 224)), "each is later than the one before"),
        (((0, 160), (1, 256)), "from 16 pixels to data.image_size=224"),
        (((0, 160), (90, 224)), "never reached in a run of 10 steps"),
    ],
)
def test_bad_sizes_of_images_give_one_clear_line(sizes, line):
    with pytest.raises(ValueError, match=rf"train.image_sizes=.*{line}") as error:
        derive(a_config(train__image_sizes=sizes), an_info(), 1)
    assert "\n" not in str(error.value)


def test_sizes_of_images_by_epoch():
    config = a_config(train__image_sizes=((0, 128), (1.5, (160, 192)), (4, 224)), train__batch_size=100)
    config.train.num_steps = 60
    assert derive(config, an_info(), 2).image_sizes == ((0, (128, 128)), (15, (160, 192)), (40, (224, 224)))
    assert derive(a_config(), an_info(), 2).image_sizes == ((0, (224, 224)),)


def test_missing_field_is_named():
    config = a_config()
    with config.unlocked():
        del config.model["width"]
    with pytest.raises(ValueError, match="'model.width' is missing"):
        configs.validate(config)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_are_valid_and_survive_json(name):
    config = configs.load(name)
    if name.startswith("finetune") or name == "quantize":
        config.init.checkpoint = "runs/some"
    configs.validate(config)
    again = configs.from_json(configs.to_json(config))
    configs.validate(again)
    assert configs.difference(config, again) == {}
    assert configs.to_json(again) == configs.to_json(config)


def test_docstring_names_its_own_file():
    for name in CONFIGS:
        text = ast.get_docstring(ast.parse((ROOT / "configs" / f"{name}.py").read_text()))
        assert f"configs/{name}.py" in text or name == "digits"
        assert "python train.py" in text


def test_json_of_an_older_version_gets_defaults_and_a_newer_one_is_refused():
    fields = json.loads(configs.to_json(a_config()))
    del fields["model"]["drop_path"]
    assert configs.from_json(json.dumps(fields)).model.drop_path == 0.0
    fields["model"]["depth"] = 2
    with pytest.raises(ValueError, match=r"model\.depth"):
        configs.from_json(json.dumps(fields))


def test_every_field_of_the_schema_is_read():
    """A field that nothing reads is a dead option: its name must occur as an attribute somewhere in the package."""
    read = set()
    for path in (ROOT / "mnet_jax").rglob("*.py"):
        read |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    # durations are read by `derive` through DURATIONS
    read |= {path.rpartition(".")[2] for pair in schema.DURATIONS for path in pair}
    assert [path for path in configs.flatten(schema.get_config()) if path.rpartition(".")[2] not in read] == []


def test_durations_become_steps():
    config = a_config(train__num_steps=None, train__num_epochs=3.0, train__batch_size=64, schedule__warmup_epochs=0.5)
    config.eval.every_epochs = 1.5
    config.checkpoint.every_steps = 7
    run = derive(config, an_info(1000), num_devices=8)
    assert run.total_steps == round(3 * 1000 / 64) == 47
    assert run.warmup_steps == round(0.5 * 1000 / 64) == 8
    assert run.eval_steps == 1.5 * 1000 / 64
    assert [step for step in range(1, 48) if due(step, run.eval_steps, 47)] == [24, 47]
    assert (run.checkpoint_steps, run.device_batch) == (7, 8)
    assert run.epoch(run.total_steps) == pytest.approx(3.0, rel=0.01)
    # the evaluation batch is never larger than the set, and covers it with whole devices
    assert run.eval_device_batch == -(-300 // 8)


def test_rate_follows_the_batch():
    rates = [derive(a_config(train__batch_size=batch), an_info(), num_devices=1).peak_lr for batch in (256, 1024)]
    assert rates == pytest.approx([0.016, 0.064])


def test_batch_must_divide_over_devices_and_parts():
    config = a_config(train__batch_size=100, train__accumulate_steps=2)
    with pytest.raises(ValueError, match=r"does not divide.*--config.train.batch_size=96"):
        derive(config, an_info(), num_devices=8)


@pytest.mark.parametrize(
    ("least", "part_size", "num_devices", "parts"),
    [
        (1, None, 1, 1),
        (1, 96, 1, 1),
        (1, 95, 1, 2),
        (1, 40, 1, 3),
        (4, 40, 1, 4),
        (1, 40, 4, 1),
        (1, 1, 2, 48),
        (1, 7, 1, 16),
    ],
)
def test_a_device_takes_no_more_images_at_a_time_than_part_size(least, part_size, num_devices, parts):
    config = a_config(train__batch_size=96, train__accumulate_steps=least, train__part_size=part_size)
    assert derive(config, an_info(), num_devices).num_parts == parts


@pytest.mark.parametrize(
    ("model", "fields", "num_devices", "said"),
    [
        ("v2", {"data__image_size": 32}, 1, ValueError),  # 1 x 1 at stride 32
        ("v2", {"data__image_size": 64}, 1, "has 4 values a channel .* 2 x 2 an image of 64 x 64 pixels, 1 image at"),
        ("v2", {"data__image_size": 96}, 1, None),
        ("v2", {"data__image_size": 32, "train__batch_size": 6}, 1, "has 6 values a channel .* 1 x 1 .* 6 images at"),
        ("v2", {"data__image_size": 32, "train__batch_size": 8}, 1, None),
        ("v2", {"data__image_size": 32, "train__batch_size": 8}, 8, ValueError),  # one image a device
        ("v2", {"data__image_size": 32, "train__batch_size": 8, "model__norm_sync": True}, 8, None),
        ("v2", {"data__image_size": 32, "train__batch_size": 8, "train__accumulate_steps": 8}, 1, ValueError),
        ("v2", {"data__image_size": 32, "model__norm_frozen": True}, 1, None),
        ("v2", {"data__image_size": 32, "model__stem_stride": 2}, 1, "has 4 values .* 2 x 2 an image"),
        (
            "v4_conv_small",
            {"data__image_size": 224, "train__batch_size": 2},
            1,
            "in 'head' has 2 values .* one value an",
        ),
        ("v4_conv_small", {"data__image_size": 224}, 1, ValueError),  # its head has a norm behind the average
    ],
)
def test_batch_norm_needs_more_than_one_value(model, fields, num_devices, said):
    config = a_config(**{"train__batch_size": 1} | fields)
    plan = resolve(find_spec(model), width=0.25, stem_stride=config.model.stem_stride)
    run = derive(config, an_info(), num_devices)
    if said is ValueError:
        with pytest.raises(
            ValueError, match=r"has 1 value a channel .* see nothing: give a larger --config.train.batch"
        ):
            check_norms(config, run, plan)
    elif said is None:
        assert check_norms(config, run, plan) is None
    else:
        assert re.search(said, check_norms(config, run, plan))


def test_warmup_longer_than_the_run():
    with pytest.raises(ValueError, match="warm-up of 10 steps"):
        derive(a_config(schedule__warmup_steps=10), an_info(), num_devices=1)


def test_due_happens_at_intervals_and_at_the_end():
    assert [step for step in range(1, 11) if due(step, 4, 10)] == [4, 8, 10]
    assert [step for step in range(1, 11) if due(step, None, 10)] == [10]


def test_difference_names_fields():
    found = configs.difference(a_config(seed=1), a_config(seed=2))
    assert found == {"seed": "seed: 1 here, 2 there"}
    assert isinstance(a_config(), ml_collections.ConfigDict)


def test_fields_that_moved_are_found_in_old_checkpoints():
    fields = json.loads(configs.to_json(a_config()))
    del fields["task"]
    fields["train"] |= {"label_smoothing": 0.3, "class_weights": "balanced", "feature_views": 8, "feature_dir": "x"}
    fields["checkpoint"]["best_metric"] = "top1"
    for name in ("embedding_views", "embedding_dir"):
        del fields["train"][name]
    config = configs.from_json(json.dumps(fields))
    assert (config.task.label_smoothing, config.task.class_weights) == (0.3, "balanced")
    assert (config.train.embedding_views, config.train.embedding_dir) == (8, "x")
    assert config.task.name == "classification"


def test_the_choices_are_those_of_the_models():
    from mnet_jax.models import plans

    assert set(schema.CHOICES["model.padding"]) == set(plans.PADDINGS)
    assert set(schema.CHOICES["model.stem_stride"]) == set(plans.STEM_STRIDES)


def test_a_config_is_found_by_its_path_or_its_bare_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from mnet_jax import schema\ndef get_config():\n    config = schema.get_config()\n"
        "    config.model.name = 'v2'\n    return config\n"
    )
    assert configs.load("mine.py").model.name == "v2"
    assert configs.load("v3_small").model.name == "v3_small"
    assert configs.load("v3_small", ["--config.model.width=0.5", "--config.data.mean=None"]).model.width == 0.5
    with pytest.raises(ValueError, match=r"no config file 'v3_smal'.*Did you mean 'v3_small'\?"):
        configs.load("v3_smal")


def test_a_users_own_package_named_configs_is_not_ours(tmp_path, monkeypatch):
    """The library imports no top-level package of that name."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "default.py").write_text("raise AssertionError('theirs')")
    monkeypatch.syspath_prepend(tmp_path)
    assert configs.load("finetune_full").train.freeze == "none"
