"""`mnet evaluate`, `predict`, `export` and `verify-export` on a run that was really trained."""

import contextlib
import csv
import io
import json
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mnet_jax.commands.cli import main
from mnet_jax.data.digits import is_test
from mnet_jax.training.reporting.run_files import read_rows

MNET = pathlib.Path(sys.executable).with_name("mnet")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The test split as 8 x 8 PNG files, `<label>_<row>.png`."""
    folder = tmp_path_factory.mktemp("photos")
    raw = load_digits()
    for row in np.flatnonzero(is_test(raw.target)):
        pixels = np.round(raw.images[row] * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{raw.target[row]}_{row:04d}.png")
    return folder


@pytest.fixture(scope="module")
def measured(digits_run):
    """What `mnet evaluate --json` prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["evaluate", "--checkpoint", str(digits_run), "--json"]) == 0
    assert err.getvalue() == "mnet: evaluating 360 images of digits, split test\n"
    return json.loads(out.getvalue())


def test_evaluate_repeats_what_training_measured(digits_run, measured):
    last = [row for row in read_rows(digits_run / "metrics.jsonl") if row["kind"] == "eval"][-1]
    assert measured["num_images"] == 360
    assert measured["step"] == last["step"]
    assert measured["weights"] == "averaged"
    for name in ("top1", "top5"):
        assert measured[name] == last[name]
    assert measured["loss"] == pytest.approx(last["loss"], rel=1e-5)


def test_evaluate_options(digits_run, mnet):
    options = ["--raw", "--split", "train[:101]", "--batch_size", "24", "--step", "latest"]
    code, out, _ = mnet("evaluate", "--checkpoint", digits_run, *options)
    assert code == 0
    assert re.search(r"^checkpoint .*raw weights", out, re.MULTILINE)
    assert re.search(r"^data +digits, split train\[:101\]$", out, re.MULTILINE)
    assert re.search(r"^images +101$", out, re.MULTILINE)
    assert re.search(r"^top-1 +[\d.]+ %$", out, re.MULTILINE)


def test_evaluate_on_a_folder(digits_run, photos, measured, tmp_path, mnet):
    """The same images as files give the same figures."""
    for number, file in enumerate(photos.iterdir()):
        for part in ("train", "val"):
            (tmp_path / part / file.name[0]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / file.name[0] / file.name).write_bytes(file.read_bytes())
        other = Image.new("RGB", (9, 9), (number % 256, number // 256, 0))  # a copy would be left out of one of them
        other.save(tmp_path / "train" / file.name[0] / file.name)
    code, out, _ = mnet("evaluate", "--checkpoint", digits_run, "--folder", tmp_path, "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["data"], result["num_images"]) == ("folder", 360)
    assert result["top1"] == measured["top1"]
    assert result["loss"] == pytest.approx(measured["loss"], rel=1e-5)


def test_evaluate_refuses_other_classes(digits_run, tmp_path, mnet):
    for red, name in enumerate(("cat", "dog")):
        for green, part in enumerate(("val", "train")):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (9, 9), (red, green, 0)).save(tmp_path / part / name / "a.png")
    code, out, err = mnet("evaluate", "--checkpoint", digits_run, "--folder", tmp_path)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"mnet: .* has classes that the model does not know: cat, dog; it knows 10: 0, 1, .*\n", err)


def test_evaluate_judges_every_photo_of_a_folder_that_lacks_classes(digits_run, photos, tmp_path, mnet):
    """All of the 3s and 7s, without a split; `mnet predict` says of how many the model is right."""
    files = [file for file in sorted(photos.iterdir()) if file.name[0] in "37"]
    for file in files:
        (tmp_path / file.name[0]).mkdir(exist_ok=True)
        (tmp_path / file.name[0] / file.name).write_bytes(file.read_bytes())
    code, out, err = mnet("evaluate", "--checkpoint", digits_run, "--folder", tmp_path, "--json")
    result = json.loads(out)
    assert (code, result["num_images"]) == (0, len(files))
    assert "no photos of 8 of the model's 10 classes: 0, 1, 2, 4, 5 and 3 more" in err
    code, _, err = mnet("evaluate", "--checkpoint", digits_run, "--folder", tmp_path, "--report", tmp_path / "report")
    rows = list(csv.reader((tmp_path / "report" / "classes.csv").read_text().splitlines()))
    recalls = {row[0]: row[5] for row in rows[1:] if row[1] != "0"}
    assert (code, set(recalls)) == (0, {"3", "7"})
    assert (tmp_path / "report" / "confusion.png").stat().st_size > 10_000
    assert re.search(r"^mnet: 7  +\d+ ", err, re.MULTILINE)

    code, out, _ = mnet("predict", "--checkpoint", digits_run, "--top", 1, *files, "--json")
    found = [image["predictions"][0]["class"] for image in json.loads(out)["images"]]
    right = [name == file.name[0] for name, file in zip(found, files, strict=True)]
    assert result["top1"] == pytest.approx(np.mean(right), abs=1e-9)
    for name, recall in recalls.items():  # accuracy of each class
        mine = [hit for hit, file in zip(right, files, strict=True) if file.name[0] == name]
        assert float(recall) == pytest.approx(np.mean(mine), abs=1e-4)


def test_evaluate_and_predict_name_the_steps_there_are(digits_run, mnet):
    for command in (["evaluate"], ["predict", "a.png"]):
        code, out, err = mnet(*command, "--checkpoint", digits_run, "--step", "7")
        assert (code, out) == (2, "")
        assert re.fullmatch(r"mnet: no checkpoint 7 in .*: choose best, latest or one of \d+.*\n", err)


def test_predict_agrees_with_evaluate_on_every_image(digits_run, photos, measured, mnet):
    """Accuracy and, which is sharper for a young network, the mean loss of the probabilities given to the labels."""
    code, out, err = mnet("predict", "--checkpoint", digits_run, "--top", 10, photos, "--json")
    assert (code, err) == (0, "")
    images = json.loads(out)["images"]
    assert len(images) == 360
    classes = [[row["class"] for row in image["predictions"]] for image in images]
    places = [row.index(pathlib.Path(image["image"]).name[0]) for row, image in zip(classes, images, strict=True)]
    probabilities = np.array([[row["probability"] for row in image["predictions"]] for image in images])
    assert (np.diff(probabilities) <= 0).all()
    loss = -np.mean(np.log(probabilities[np.arange(360), places]))
    assert loss == pytest.approx(measured["loss"], rel=1e-5)
    assert np.mean(np.array(places) < 1) == pytest.approx(measured["top1"], abs=1e-9)
    assert np.mean(np.array(places) < 5) == pytest.approx(measured["top5"], abs=1e-9)


def test_predict_all_classes_sums_to_one_whatever_the_batch(digits_run, photos, mnet):
    files = sorted(photos.glob("3_*.png"))[:5]
    answers = []
    for size in (2, 32):
        options = ["--top", "99", "--batch_size", size, "--json"]
        code, out, _ = mnet("predict", "--checkpoint", digits_run, *files, *options)
        assert code == 0
        answers.append([[row["probability"] for row in image["predictions"]] for image in json.loads(out)["images"]])
    np.testing.assert_allclose(np.sum(answers, -1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-4)


def test_predict_tells_bad_images_and_goes_on(digits_run, photos, tmp_path, mnet):
    good = sorted(photos.glob("7_*.png"))[0]
    broken, missing, text = tmp_path / "broken.png", tmp_path / "missing.jpg", tmp_path / "notes.jpg"
    broken.write_bytes(good.read_bytes()[:60])
    text.write_text("not an image")
    arguments = [broken, good, missing, text, tmp_path / "*.jpg", f"{photos}/7_*.png"]
    code, out, err = mnet("predict", "--checkpoint", digits_run, "--top", 3, *arguments)
    assert code == 1
    lines = err.splitlines()
    assert len(lines) == 4  # notes.jpg twice: by its name and by the pattern
    for line, path in zip(lines, [broken, missing, text, text], strict=True):
        assert line.startswith("mnet: ")
        assert str(path) in line
    assert out.splitlines()[0] == str(good)
    assert all(re.fullmatch(r" +[\d.]+ %  \d", line) for line in out.splitlines()[1:4])
    assert len(out.splitlines()) == 4 * 37
    code, out, _ = mnet("predict", "--checkpoint", digits_run, broken, good, "--json")
    first, second = json.loads(out)["images"]
    assert code == 1
    assert set(first) == {"image", "error"}
    assert len(second["predictions"]) == 5


def test_predict_draws_each_image_under_a_name_of_its_own(digits_run, photos, tmp_path, mnet):
    paths = sorted(photos.rglob("*.png"))[:2]
    twin = tmp_path / "other" / paths[0].name
    twin.parent.mkdir()
    twin.write_bytes(paths[0].read_bytes())
    for _ in range(2):  # a second time the pictures are replaced, not added to
        code, _, err = mnet("predict", "--checkpoint", digits_run, "--draw", tmp_path / "out", *paths, twin)
        assert code == 0, err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted([*(path.name for path in paths), f"{twin.stem}_2.png"])
    with Image.open(tmp_path / "out" / paths[0].name) as picture, Image.open(paths[0]) as photo:
        assert picture.height > photo.height  # the photo, and five lines below it


def test_commands_of_their_own_are_quiet(digits_run, photos):
    """In a fresh process: nothing of TensorFlow's, JAX's or Orbax's on stderr, exactly one JSON document on stdout."""
    files = sorted(photos.glob("0_*.png"))[:2]
    command = [MNET, "predict", "--checkpoint", digits_run, *files, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [image["image"] for image in json.loads(done.stdout)["images"]] == list(map(str, files))


def test_interrupted_evaluation_says_so_in_one_line(digits_run):
    command = [MNET, "evaluate", "--checkpoint", digits_run]
    # A suite that was started in the background ignores SIGINT, and so would its children.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, previous)
    assert process.stderr.readline().startswith("mnet: evaluating")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, "", "mnet: interrupted\n")


def test_export_and_verify(digits_run, tmp_path, mnet):
    target = tmp_path / "digits.onnx"
    code, out, _ = mnet("export", "--checkpoint", digits_run, "--format", "onnx", "--out", target, "--json")
    assert code == 0
    written = json.loads(out)
    assert written["num_classes"] == 10
    assert written["bytes"] == target.stat().st_size
    code, out, _ = mnet("verify-export", target, "--checkpoint", digits_run, "--num_images", "50", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["num_images"] == 50
    assert result["agreement"] == 1
    assert result["top1_file"] == result["top1_model"] > 0
    assert result["max_relative_error"] < 1e-4
    assert {row["runtime"] for row in result["latency_ms"]} == {"onnx", "jax"}


def test_the_check_that_export_prints_is_of_the_same_weights(digits_run, tmp_path, mnet):
    """Typed as it is printed; other weights of the run, the averaged ones, are far from these."""
    target = tmp_path / "digits.onnx"
    _, _, err = mnet(
        "export", "--checkpoint", digits_run, "--step", "best", "--raw", "--format", "onnx", "--out", target
    )
    typed = shlex.split(err.split("type mnet ")[1])
    assert typed[-5:] == ["--checkpoint", str(digits_run), "--step", "best", "--raw"]
    checks = [mnet(*line, "--num_images", "20", "--json")[1] for line in (typed, typed[:-1])]
    same, other = (json.loads(out)["max_relative_error"] for out in checks)
    assert same < 1e-4 < other


def test_export_errors_are_one_line_and_leave_nothing(digits_run, tmp_path, mnet):
    def export(*arguments):
        return mnet("export", "--checkpoint", digits_run, "--out", tmp_path / "m", *arguments)

    for arguments, message in (
        (("--format", "coreml"), "unknown format 'coreml'; choose one of: stablehlo"),
        (("--format", "onnx", "--quantize", "float16"), "unknown quantize of onnx"),
        (("--format", "onnx", "--image_size", "16"), "at least 32 pixels"),
        (("--format", "onnx", "--date", "today"), "date must be as 2026-01-31"),
        (("--format", "onnx", "--out", tmp_path / "none" / "m"), "there is no directory"),
    ):
        code, out, err = export(*arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
