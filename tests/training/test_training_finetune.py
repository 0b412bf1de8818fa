"""Fine-tuning: what a checkpoint gives to another data set, and what it must not."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from configs import finetune
from mnet_jax.models.specs import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.models.variables import initial_variables
from mnet_jax.training import checkpoint, loop
from mnet_jax.training.start import flat, transplant


def variables(name="v3_small", num_classes=10, seed=0, width=0.25):
    return initial_variables(resolve(SPECS[name], num_classes=num_classes, width=width), seed)


def test_classifier_is_fresh_and_the_rest_restored_where_classes_differ():
    fresh, source, lines = variables(num_classes=3), variables(num_classes=10, seed=1), []
    merged = flat(transplant(fresh, source, skip=["classifier"], log=lines.append, origin="run"))
    fresh, source = flat(fresh), flat(source)
    for name, value in merged.items():
        expected = fresh if "classifier" in name else source
        np.testing.assert_array_equal(value, expected[name])
    assert f"Restored from run: {len(fresh) - 2} arrays" in lines[0]
    assert "block_00 ... block_10" in lines[0]
    assert any("params/classifier/kernel" in line and "because the classes differ" in line for line in lines[1:])
    assert any("params/classifier/bias" in line for line in lines[1:])


def test_classifier_is_restored_for_the_same_classes():
    source, lines = variables(seed=1), []
    merged = flat(transplant(variables(), source, skip=[], log=lines.append, origin="run"))
    assert all((merged[name] == value).all() for name, value in flat(source).items())
    assert len(lines) == 1


def test_classes_of_the_same_number_but_other_names_start_fresh():
    fresh, source = variables(), variables(seed=1)
    merged = flat(transplant(fresh, source, skip=["classifier"], log=print, origin="run"))
    np.testing.assert_array_equal(merged["params/classifier/kernel"], fresh["params"]["classifier"]["kernel"])


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ({"name": "v2"}, "missing there"),
        ({"width": 0.5}, r"block_01/project/norm/mean: \(8,\) here, \(16,\) there"),
    ],
)
def test_another_network_is_refused(source, line):
    with pytest.raises(ValueError, match=line) as error:
        transplant(variables(), variables(**source), skip=["classifier"], log=print, origin="run")
    assert "Set model.name, model.width" in str(error.value)


def test_missing_array_is_refused():
    source = variables()
    del source["batch_stats"]["stem"]
    with pytest.raises(ValueError, match="missing there: batch_stats/stem"):
        transplant(variables(), source, skip=[], log=print, origin="run")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three of the ten digits as a folder of PNG files, one sub-folder a class."""
    root = tmp_path_factory.mktemp("finetune") / "photos"
    raw = load_digits()
    for row in np.flatnonzero(raw.target < 3)[:180]:
        folder = root / ("zero", "one", "two")[raw.target[row]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(raw.images[row] * (255 / 16)).astype(np.uint8)).save(folder / f"{row}.png")
    return root


def test_from_a_run_to_a_folder(digits_run, photos, tmp_path, capsys):
    config = finetune.get_config()
    config.init.checkpoint = str(digits_run)
    config.data.folder = str(photos)
    config.data.flip = False
    config.train.num_devices = 1
    config.train.num_epochs = 8.0
    metrics = loop.train(config, str(tmp_path / "tuned"))
    said = capsys.readouterr().err
    assert "Restored from" in said
    assert "Started fresh: params/classifier/kernel" in said
    assert metrics["top1"] > 0.8  # digits it knows; chance is a third
    tuned = checkpoint.load(str(tmp_path / "tuned"))
    assert tuned.class_names == ("one", "two", "zero")
    base = checkpoint.load(str(digits_run))
    assert (tuned.config.model.name, tuned.config.model.width) == ("v1", 0.25)
    assert tuned.config.data.image_size == base.config.data.image_size
    assert tuned.config.data.mean == pytest.approx(base.info.mean)
    # a second start needs the old run no more
    config.init.checkpoint = str(digits_run)
    saved = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert saved["model"]["name"] == "v1"
    again = loop.train(config, str(tmp_path / "tuned"))
    assert again["top1"] == metrics["top1"]


def test_no_such_checkpoint(tmp_path):
    config = finetune.get_config()
    config.init.checkpoint = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no checkpoint in .*nowhere: give the directory of a run"):
        loop.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_load_by_step_best_and_directory(digits_run):
    steps = sorted(int(path.name) for path in (digits_run / "checkpoints").iterdir())
    assert checkpoint.load(str(digits_run)).step == steps[-1]
    assert checkpoint.load(str(digits_run), step=steps[0]).step == steps[0]
    assert checkpoint.load(str(digits_run / "checkpoints" / str(steps[0]))).step == steps[0]
    best = max(steps, key=lambda step: checkpoint.load(str(digits_run), step=step).metrics["top1"])
    assert checkpoint.load(str(digits_run), step="best").step == best
    with pytest.raises(ValueError, match=f"choose best, latest or one of {steps[0]}"):
        checkpoint.load(str(digits_run), step=999)
    raw, averaged = (checkpoint.load(str(digits_run), ema=ema).variables for ema in (False, True))
    assert not np.array_equal(raw["params"]["stem"]["kernel"], averaged["params"]["stem"]["kernel"])
