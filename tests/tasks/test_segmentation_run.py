"""A small segmenter on real street scenes through the whole of training: report, resume, commands."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from on_devices import ROOT, run
from PIL import Image

from mnet_jax.training import checkpoint
from mnet_jax.training.initial import flat
from mnet_jax.training.reporting.run_files import read_rows

pytestmark = pytest.mark.long

CONFIG = """
from mnet_jax.config import load


def get_config():
    config = load("finetune_masks")
    config.model.name, config.model.width, config.data.folder = "v1", 0.25, "photos"
    config.data.image_size, config.data.interpolation = (48, 64), "bilinear"
    config.task.class_weights = "balanced"
    config.train.batch_size, config.train.num_epochs, config.train.num_steps = 8, None, 4
    config.train.accumulate_steps, config.train.num_devices = 2, 2
    config.schedule.warmup_epochs, config.schedule.lr_per_256 = None, 0.5
    config.eval.batch_size, config.eval.every_epochs, config.eval.every_steps = 4, None, 2
    config.checkpoint.every_epochs, config.checkpoint.every_steps = None, 2
    config.log.every_steps = 1
    return config
"""


@pytest.fixture(scope="module")
def camvid(unpacked):
    """The street scenes."""
    return unpacked("camvid") / "camvid"


@pytest.fixture(scope="module")
def place(camvid, tmp_path_factory):
    """A directory with 24 of them, one without its mask."""
    place = tmp_path_factory.mktemp("masks")
    for kind in ("images", "masks"):
        (place / "photos" / kind).mkdir(parents=True)
        for file in sorted((camvid / kind).iterdir())[:24]:
            shutil.copy(file, place / "photos" / kind)
    sorted((place / "photos" / "masks").iterdir())[3].unlink()
    shutil.copy(camvid / "classes.txt", place / "photos")
    (place / "masks.py").write_text(CONFIG)
    return place


@pytest.fixture(scope="module")
def whole(place):
    """The directory of a run on two devices, in two parts each."""
    run(place, ROOT / "train.py", "--config=masks.py", "--workdir=whole")
    return place / "whole"


def test_it_is_judged_by_miou(whole):
    rows = read_rows(whole / "metrics.jsonl")
    evaluations = [row for row in rows if row["kind"] == "eval"]
    assert [row["step"] for row in evaluations] == [2, 4]
    assert {"miou", "pixel_accuracy", "class_accuracy", "loss", "iou_sky", "iou_bicyclist"} <= evaluations[0].keys()
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert (whole / "worst.png").read_bytes().startswith(b"\x89PNG")
    names = [line.split(",")[0] for line in (whole / "classes.csv").read_text().splitlines()]
    assert names[0] == "class"
    assert len(names) == 12  # void is none
    assert "no mask of this name" in (whole / "left_out.csv").read_text()
    counts = [line.split(",")[1:] for line in (whole / "confusion.csv").read_text().splitlines()[1:]]
    counts = np.array(counts, np.int64)
    assert np.trace(counts) / counts.sum() == pytest.approx(max(row["pixel_accuracy"] for row in evaluations), abs=1e-6)


def test_resumed_is_bit_for_bit_the_same(place, whole):
    killed = place / "killed"
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "checkpoints" / "4")
    said = run(place, ROOT / "train.py", "--config=masks.py", "--workdir=killed").stderr
    assert "Going on from step 2" in said
    left, right = (flat(checkpoint.load(str(path)).variables) for path in (whole, killed))
    assert [name for name in left if left[name].tobytes() != right[name].tobytes()] == []


def test_the_commands_know_it(place, whole):
    mnet = (place, "-m", "mnet_jax.commands.cli")
    found = json.loads(run(*mnet, "evaluate", "--checkpoint", whole, "--json").stdout)
    last = [row for row in read_rows(whole / "metrics.jsonl") if row["kind"] == "eval"][-1]
    for name in ("miou", "pixel_accuracy", "loss"):
        assert found[name] == pytest.approx(last[name], rel=1e-3, abs=1e-6)
    photo = sorted((place / "photos" / "images").iterdir())[0]
    said = run(*mnet, "predict", "--checkpoint", whole, photo, "--draw", place / "drawn", "--json").stdout
    told = json.loads(said)["images"][0]
    assert sum(row["share"] for row in told["classes"]) == pytest.approx(1)
    with Image.open(photo) as original, Image.open(place / "drawn" / f"{photo.stem}.png") as drawn:
        assert drawn.width == original.width
        size = original.size
    with Image.open(place / "drawn" / f"{photo.stem}_mask.png") as mask:
        assert mask.size == size
        values = np.asarray(mask)
    with Image.open(io.BytesIO(base64.b64decode(told["mask"]))) as mask:
        np.testing.assert_array_equal(np.asarray(mask), values)
    for row in told["classes"]:
        assert (values == row["index"]).mean() == pytest.approx(row["share"])
