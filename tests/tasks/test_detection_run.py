"""A small detector on a folder of photos with boxes through the whole of training: resume, report, commands."""

import json
import shutil

import numpy as np
import pytest
from on_devices import ROOT, run
from PIL import Image, ImageDraw

from mnet_jax.training import checkpoint
from mnet_jax.training.initial import flat
from mnet_jax.training.reporting.run_files import read_rows

pytestmark = pytest.mark.long

NAMES, COLOURS = ("disc", "square"), ((230, 60, 40), (40, 90, 230))


def write_photos(root, split, count, seed):
    """Photos of several sizes with 0 to 3 discs and squares, and COCO's JSON."""
    rng = np.random.default_rng(seed)
    said = {"images": [], "annotations": [], "categories": [{"id": n + 1, "name": x} for n, x in enumerate(NAMES)]}
    (root / split).mkdir(parents=True)
    for number in range(count):
        width, height = 120 + 8 * (number % 5), 140 - 6 * (number % 4)
        photo = Image.new("RGB", (width, height), (90, 110, 90))
        for place in range(number % 4):
            side, kind = int(rng.integers(25, 45)), int(rng.integers(2))
            x, y = 4 + 38 * place, int(rng.integers(2, height - side - 2))
            side = min(side, 36)
            pen = ImageDraw.Draw(photo)
            (pen.ellipse, pen.rectangle)[kind]((x, y, x + side, y + side), fill=COLOURS[kind])
            said["annotations"].append({
                "id": len(said["annotations"]) + 1, "image_id": number, "category_id": kind + 1, "iscrowd": 0,
                "bbox": [x, y, side, side], "area": side * side,
            })  # fmt: skip
        photo.save(root / split / f"{number:03}.jpg", quality=95)
        said["images"].append({"id": number, "file_name": f"{number:03}.jpg", "height": height, "width": width})
    (root / split / "_annotations.coco.json").write_text(json.dumps(said))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with photos."""
    place = tmp_path_factory.mktemp("boxes")
    write_photos(place / "photos", "train", 24, 0)
    write_photos(place / "photos", "val", 9, 1)
    return place


CONFIG = """
from mnet_jax.config import load


def get_config():
    config = load("finetune_boxes")
    config.model.name, config.model.width, config.data.folder = "v1", 0.25, "photos"
    config.data.image_size, config.data.interpolation = 128, "bilinear"
    config.train.batch_size, config.train.num_epochs, config.train.num_steps = 8, None, 4
    config.train.accumulate_steps, config.train.num_devices = 2, 2
    config.schedule.warmup_epochs, config.schedule.lr_per_256 = None, 0.5
    config.eval.batch_size, config.eval.every_epochs, config.eval.every_steps = 8, None, 2
    config.checkpoint.every_epochs, config.checkpoint.every_steps = None, 2
    config.log.every_steps = 1
    return config
"""


@pytest.fixture(scope="module")
def whole(place):
    """The directory of a run on two devices, in two parts each."""
    (place / "boxes.py").write_text(CONFIG)
    run(place, ROOT / "train.py", "--config=boxes.py", "--workdir=whole")
    return place / "whole"


def test_it_is_judged_by_average_precision(whole):
    rows = read_rows(whole / "metrics.jsonl")
    evaluations = [row for row in rows if row["kind"] == "eval"]
    assert [(row["step"], row["num_images"]) for row in evaluations] == [(2, 9), (4, 9)]
    assert {"ap", "ap50", "ap75", "ar100", "voc2007", "found", "loss"} <= evaluations[0].keys()
    assert all(np.isfinite(row["loss"]) for row in rows)
    for name in ("precision_recall.png", "mistakes.png"):
        assert (whole / name).read_bytes().startswith(b"\x89PNG")
    assert (whole / "classes.csv").read_text().splitlines()[1].startswith("disc,")


def test_resumed_is_bit_for_bit_the_same(place, whole):
    """What a run that was killed after its first checkpoint leaves behind, gone on with."""
    killed = place / "killed"
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "checkpoints" / "4")
    said = run(place, ROOT / "train.py", "--config=boxes.py", "--workdir=killed").stderr
    assert "Going on from step 2" in said
    left, right = (flat(checkpoint.load(str(path)).variables) for path in (whole, killed))
    assert [name for name in left if left[name].tobytes() != right[name].tobytes()] == []
    ours, theirs = (
        [(row["step"], row["ap"], row["loss"]) for row in read_rows(path / "metrics.jsonl") if row["kind"] == "eval"]
        for path in (whole, killed)
    )
    assert ours == theirs


def test_the_commands_know_it(place, whole):
    mnet = (place, "-m", "mnet_jax.commands.cli")
    found = json.loads(run(*mnet, "evaluate", "--checkpoint", whole, "--json").stdout)
    last = [row for row in read_rows(whole / "metrics.jsonl") if row["kind"] == "eval"][-1]
    for name in ("ap50", "ar100", "loss", "found"):
        assert found[name] == pytest.approx(last[name], rel=1e-3, abs=1e-6)
    photo = place / "photos" / "val" / "003.jpg"
    said = run(*mnet, "predict", "--checkpoint", whole, photo, "--draw", place / "drawn", "--json").stdout
    assert "objects" in json.loads(said)["images"][0]
    with Image.open(place / "drawn" / "003.png") as drawn, Image.open(photo) as original:
        assert drawn.size == original.size
