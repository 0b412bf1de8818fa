"""Photos of real ants and bees side by side through all of it: training, resume, commands, exported files."""

import csv
import json
import shutil

import numpy as np
import pytest
from on_devices import ROOT, run
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

from mnet_jax.training import checkpoint
from mnet_jax.training.initial import flat
from mnet_jax.training.reporting.run_files import read_rows

pytestmark = pytest.mark.long
NAMES = ("ants", "bees")

CONFIG = """
from mnet_jax.config import load


def get_config():
    config = load("finetune_multilabel")
    config.data.folder, config.data.image_size = "photos", 96
    config.train.batch_size, config.train.num_epochs, config.train.num_steps = 16, None, 12
    config.train.num_devices, config.train.patience = 2, None
    config.schedule.warmup_epochs, config.schedule.lr_per_256 = None, 0.5
    config.eval.batch_size, config.eval.every_epochs, config.eval.every_steps = 24, None, 6
    config.checkpoint.every_steps = 6
    return config
"""


@pytest.fixture(scope="module")
def photos(unpacked):
    """Ants and bees."""
    return unpacked("hymenoptera") / "hymenoptera"


@pytest.fixture(scope="module")
def place(photos, real_data, tmp_path_factory):
    """A directory with 120 pictures: an ant, a bee, or both side by side; and 20 of neither: patches of colours."""
    place = tmp_path_factory.mktemp("labels")
    (place / "photos" / "all").mkdir(parents=True)
    ants, bees = (sorted(photos.glob(f"*/{name}/*.jpg")) for name in NAMES)
    rows = ["file,ants,bees"]
    for i in range(140):
        there = ((ants[i],), (bees[i],), (ants[i], bees[i]), (ants[i], bees[-i]), (bees[i], ants[-i]), (ants[i],))[
            i % 6
        ]
        there = there if i < 120 else ()
        patches = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
        sheet = Image.fromarray(patches).resize((96 * max(1, len(there)), 96))
        for left, file in enumerate(there):
            with Image.open(file) as image:
                sheet.paste(image.convert("RGB").resize((96, 96)), (96 * left, 0))
        sheet.resize((96, 96)).save(place / "photos" / "all" / f"{i:03}.jpg", quality=95)
        kinds = [file.parent.name for file in there]
        rows.append(f"{i:03}.jpg,{','.join(str(int(name in kinds)) for name in NAMES)}")
    (place / "photos" / "labels.csv").write_text("\n".join(rows))
    (place / "labels.py").write_text(CONFIG)
    shutil.copy(real_data / "weights" / "teachablemachine_v2_0.35_224.h5", place / "weights.h5")
    return place


COMMAND = (ROOT / "train.py", "--config=labels.py", "--config.init.weights=weights.h5")


@pytest.fixture(scope="module")
def whole(place):
    """The directory of a run on two devices."""
    run(place, *COMMAND, "--workdir=whole")
    return place / "whole"


def table(path):
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.fixture
def command(place, mnet, monkeypatch):
    """`mnet` in the directory, what it wrote as JSON."""
    monkeypatch.chdir(place)

    def called(*arguments):
        code, out, err = mnet(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return called


def test_its_files_say_what_scikit_learn_says(command, whole):
    last = [row for row in read_rows(whole / "metrics.jsonl") if row["kind"] == "eval"][-1]
    assert last["map"] > 0.7
    said = command("predict", "--checkpoint", whole, "--step", "best", "photos/all")["images"]
    told = {row["image"].rsplit("/", 1)[1]: row for row in said}
    held_out = [row for row in table(whole / "photos.csv") if row["split"] == "validation"]
    truth = np.array([[name in row["class"].split(";") for name in NAMES] for row in held_out])
    scores = np.zeros(truth.shape)
    names = np.zeros(truth.shape, bool)
    for number, row in enumerate(held_out):
        found = told[row["file"].rsplit("/", 1)[1]]
        for one in (*found["labels"], *found["others"]):
            scores[number, one["index"]] = one["score"]
            names[number, one["index"]] = one in found["labels"]
    best = max((row for row in read_rows(whole / "metrics.jsonl") if row["kind"] == "eval"), key=lambda row: row["map"])
    assert best["map"] == pytest.approx(average_precision_score(truth, scores), abs=1e-6)
    assert best["f1_micro"] == pytest.approx(f1_score(truth, names, average="micro"), abs=1e-6)
    assert best["f1_macro"] == pytest.approx(f1_score(truth, names, average="macro"), abs=1e-6)
    rows = table(whole / "classes.csv")
    for number, (name, row) in enumerate(zip(NAMES, rows, strict=True)):
        assert row["class"] == name
        assert float(row["ap"]) == pytest.approx(average_precision_score(truth[:, number], scores[:, number]), abs=1e-4)
        assert int(row["images"]) == truth[:, number].sum()
    assert len(table(whole / "predictions.csv")) == len(held_out)
    for name in ("precision_recall.png", "mistakes.png"):
        assert (whole / name).read_bytes().startswith(b"\x89PNG")


def test_resumed_is_bit_for_bit_the_same(place, whole):
    killed = place / "killed"
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "checkpoints" / "12")
    assert "Going on from step 6" in run(place, *COMMAND, "--workdir=killed").stderr
    left, right = (flat(checkpoint.load(str(path)).variables) for path in (whole, killed))
    assert [name for name in left if left[name].tobytes() != right[name].tobytes()] == []


def test_a_folder_is_judged_with_the_thresholds_of_the_run_and_files_give_the_same(command, whole):
    found = command("evaluate", "--checkpoint", whole)
    last = [row for row in read_rows(whole / "metrics.jsonl") if row["kind"] == "eval"][-1]
    for name in ("map", "f1_micro", "f1_macro", "loss", "threshold_ants"):
        assert found[name] == pytest.approx(last[name], rel=1e-4)
    judged = command("evaluate", "--checkpoint", whole, "--folder", "photos")
    assert judged["num_images"] == 140
    assert judged["threshold_bees"] == last["threshold_bees"]
    for format in ("tflite", "onnx"):
        command("export", "--checkpoint", whole, "--format", format, "--out", f"model.{format}")
        result = command("verify-export", f"model.{format}", "--checkpoint", whole, "--folder", "photos")
        assert result["num_images"] == 140
        assert result["agreement"] == 1.0
        assert result["max_error"] < 1e-5
        assert result["map_file"] == pytest.approx(judged["map"], abs=1e-4)
