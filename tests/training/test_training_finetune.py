"""Fine-tuning: what a checkpoint gives to another data set, and what it must not."""

import contextlib
import csv
import io
import itertools
import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mnet_jax import load_pretrained
from mnet_jax.commands.cli import main
from mnet_jax.config import load as load_config
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.models.variables import initial_variables, list_variables
from mnet_jax.training import checkpoint, loop, setup
from mnet_jax.training.initial import flat, transplant
from mnet_jax.training.reporting.run_files import read_rows


def variables(name="v3_small", num_classes=10, seed=0, width=0.25):
    return initial_variables(list_variables(resolve(SPECS[name], num_classes=num_classes, width=width)), seed)


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


def tuning(digits_run, photos, place, **fields):
    """configs/finetune.py on the photos; features are shared by all runs under `place`."""
    config = load_config("finetune")
    config.init.checkpoint, config.data.folder = str(digits_run), str(photos)
    config.data.flip = False
    config.train.num_devices = 1
    config.train.embedding_views, config.train.embedding_dir = 3, str(place / "embeddings")
    config.train.num_epochs, config.eval.every_epochs = 12.0, 1.0
    config.schedule.lr_per_256 = 0.2
    config.task.class_weights = "balanced"
    for path, value in fields.items():
        section, name = path.split("__")
        config[section][name] = value
    return config


@pytest.fixture(scope="module")
def tuned(digits_run, photos, tmp_path_factory):
    """(directory with the run "tuned" and the features, what was said)."""
    place = tmp_path_factory.mktemp("tuned")
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        loop.train(tuning(digits_run, photos, place), str(place / "tuned"))
    return place, said.getvalue()


def evals(workdir):
    return [row for row in read_rows(workdir / "metrics.jsonl") if row["kind"] == "eval"]


def assert_same_checkpoint(left, right):
    """Same step, same bits."""
    left, right = checkpoint.load(str(left), ema=False), checkpoint.load(str(right), ema=False)
    assert left.step == right.step
    left, right = flat(left.variables), flat(right.variables)
    assert [name for name in left if left[name].tobytes() != right[name].tobytes()] == []


def test_from_a_run_to_a_folder(digits_run, tuned):
    place, said = tuned
    assert "Restored from" in said
    assert "Started fresh: params/classifier/kernel" in said
    assert "3 views each) computed in" in said
    assert max(row["top1"] for row in evals(place / "tuned")) > 0.7  # of a base at 25 % of ten; chance is a third
    run, base = checkpoint.load(str(place / "tuned")), checkpoint.load(str(digits_run))
    assert run.class_names == ("one", "two", "zero")
    assert (run.config.model.name, run.config.model.width) == ("v1", 0.25)
    assert run.config.data.image_size == base.config.data.image_size
    assert run.config.data.mean == pytest.approx(base.info.mean)
    before, after = flat(base.variables), flat(run.variables)
    changed = {name for name in after if after[name].tobytes() != before[name].tobytes()}
    assert changed == {"params/classifier/kernel", "params/classifier/bias"}


def test_the_checkpoint_is_a_whole_model(tuned, capsys):
    """What was measured on cached features is what `mnet evaluate` measures on the images."""
    place, _ = tuned
    best = checkpoint.load(str(place / "tuned"), step="best")
    assert main(["evaluate", "--checkpoint", str(place / "tuned"), "--step", "best", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["step"], again["num_images"]) == (best.step, best.metrics["num_images"])
    assert again["top1"] == pytest.approx(best.metrics["top1"])
    assert again["loss"] == pytest.approx(best.metrics["loss"], rel=1e-4)


def test_the_report_is_of_the_best_evaluation(tuned):
    place, said = tuned
    run = place / "tuned"
    best = checkpoint.load(str(run), step="best")
    with open(run / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    right = sum(row["class"] == row["predicted"] for row in rows)
    assert right / len(rows) == pytest.approx(best.metrics["top1"])
    assert all(pathlib.Path(row["file"]).parent.name == row["class"] for row in rows)
    assert f"Step {best.step}: {right} of {len(rows)} right" in said
    for name in ("confusion.png", "mistakes.png"):
        Image.open(run / name).verify()
    assert {path.name for path in run.iterdir()} >= {"classes.csv", "confusion.csv", "photos.csv", "left_out.csv"}


def test_stopped_early_or_resumed_it_is_the_same(digits_run, photos, tuned, monkeypatch, capsys):
    """Early stopping counts over an interruption; features come from the file; a finished run stays as it is."""
    place, _ = tuned
    config = tuning(digits_run, photos, place, train__patience=2, eval__report=False)
    script = (0.5, 0.7, 0.6, 0.65, 0.9)  # the fourth is the second without a better one

    def scripted(start):
        values = iter(script[start:])
        return lambda *_, **__: lambda *_: {"top1": next(values), "top5": 1.0, "loss": 1.0, "num_images": 37}

    monkeypatch.setattr(setup, "Evaluator", scripted(0))
    loop.train(config, str(place / "whole"))
    said = capsys.readouterr().err
    assert "3 views each) read from" in said
    assert "Stopped early: no better evaluation in 2" in said
    whole = evals(place / "whole")
    assert [row["top1"] for row in whole] == list(script[:4])

    after = whole[2]["step"] + 1  # one evaluation without a better one counts already
    monkeypatch.setattr(setup, "Evaluator", scripted(0))
    with monkeypatch.context() as patch:
        steps = itertools.count(1)  # asked once after each
        patch.setattr(loop, "_asked", lambda *_: lambda: next(steps) == after)
        loop.train(config, str(place / "resumed"))
    assert f"Asked to stop: saved step {after}" in capsys.readouterr().err
    monkeypatch.setattr(setup, "Evaluator", scripted(3))
    loop.train(config, str(place / "resumed"))
    assert_same_checkpoint(place / "whole", place / "resumed")
    assert [row["top1"] for row in evals(place / "resumed")] == list(script[:4])
    capsys.readouterr()
    loop.train(config, str(place / "resumed"))
    assert f"This run is finished: {whole[-1]['step']} of" in capsys.readouterr().err
    assert_same_checkpoint(place / "whole", place / "resumed")


def test_photos_that_come_or_go(digits_run, photos, tuned, tmp_path, capsys):
    place, _ = tuned
    root, workdir = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(photos, root)
    shutil.copytree(place / "tuned", workdir)
    config = tuning(digits_run, photos, place)
    config.data.folder = str(root)
    manifest = (workdir / "photos.csv").read_text()
    (workdir / "config.json").write_text((workdir / "config.json").read_text().replace(str(photos), str(root)))
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(root / "zero" / "new.png")
    (root / "zero" / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  " + b"\0" * 50)
    loop.train(config, str(workdir))
    said = capsys.readouterr().err
    assert "1 photos came since this run began and are not part of it" in said
    assert "left out 1 files: zero/film.mov (a video). All are listed in" in said
    assert (workdir / "left_out.csv").read_text() == "file,why\nzero/film.mov,a video\n"
    assert (workdir / "photos.csv").read_text() == manifest
    gone = manifest.splitlines()[1].split(",")[0]
    (root / gone).unlink()
    with pytest.raises(ValueError, match=f"1 of the 180 images in .*photos.csv are gone: {gone}"):
        loop.train(config, str(workdir))


def test_features_and_probe(digits_run, photos, tmp_path, capsys):
    """The arrays are what the classifier sees: with its kernel they give its logits."""
    file = tmp_path / "features.npz"
    assert main(["features", "--checkpoint", str(digits_run), str(photos), "--out", str(file)]) == 0
    assert "features float32 [180, 256]" in capsys.readouterr().out
    found = np.load(file)
    assert found["class_names"].tolist() == ["one", "two", "zero"]
    assert [pathlib.Path(name).parent.name for name in found["files"]] == found["class_names"][found["labels"]].tolist()
    head = checkpoint.load(str(digits_run)).variables["params"]["classifier"]
    guess = (found["features"] @ head["kernel"] + head["bias"]).argmax(1)
    digit = np.array([1, 2, 0])[found["labels"]]
    assert (guess == digit).mean() > 0.2  # the run itself: 25 % of ten digits; chance is a tenth

    assert main(["features", "--checkpoint", str(digits_run), str(photos / "two"), "--out", str(file)]) == 0
    flat_folder = np.load(file)
    assert set(flat_folder["labels"]) == {-1}
    expected = dict(zip(found["files"], found["features"], strict=True))
    for name, row in zip(flat_folder["files"], flat_folder["features"], strict=True):
        np.testing.assert_allclose(row, expected[f"two/{name}"], rtol=1e-3, atol=1e-4)

    capsys.readouterr()
    assert main(["probe", "--checkpoint", str(digits_run), str(photos), "--k", "1", "7", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["linear_probe"]["top1"] > 0.6  # features of a run at 25 % of ten digits; chance is a third
    assert set(result["neighbours"]) == {"1", "7"}
    assert min(result["neighbours"].values()) > 0.6
    assert main(["features", "--checkpoint", str(digits_run), str(photos), "--out", "x.csv"]) == 2
    assert "a name that ends with .npz expected" in capsys.readouterr().err


def test_no_such_checkpoint(tmp_path):
    config = load_config("finetune")
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


def test_a_run_is_no_published_weights(digits_run):
    with pytest.raises(
        ValueError, match=r"is the directory of a run: .*--checkpoint.*init\.checkpoint.*load_checkpoint"
    ):
        load_pretrained(digits_run)
