"""`mnet doctor` on data and on exported files: what they hold, what is damaged, and how it ends."""

import json
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "data"))
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "deploy"))
import box_folders
import record_faults
from networks import MEAN, STD, about, fold, random_variables

from mnet_jax.data import digits
from mnet_jax.deploy import formats
from mnet_jax.tasks.classification.network import create_model


def flip(path, share=0.5):
    contents = bytearray(path.read_bytes())
    contents[int(share * len(contents))] ^= 16
    path.write_bytes(contents)


# --- Data ---


def test_doctor_of_photos_and_of_what_is_not_there(tmp_path, mnet):
    for name in ("cats", "dogs"):
        for number in range(5):
            folder = tmp_path / "photos" / name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([number, len(name), ord(name[0])]).integers(0, 255, (9, 9, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    code, out, _ = mnet("doctor", tmp_path / "photos")
    assert code == 0
    assert " images in 2 classes" in out
    os.mkfifo(tmp_path / "photos" / "cats" / "pipe.jpg")
    huge = bytearray((tmp_path / "photos" / "cats" / "0.png").read_bytes())
    huge[16:24] = (65_500).to_bytes(4, "big") * 2
    (tmp_path / "photos" / "dogs" / "huge.png").write_bytes(huge)
    (tmp_path / "photos" / "dogs" / "ring\a.png").write_bytes(b"x")
    code, out, _ = mnet("doctor", tmp_path / "photos")
    assert code == 1
    assert "cats/pipe.jpg: not a regular file" in out
    assert "dogs/huge.png: claims 65,500 x 65,500 pixels, at most 268,435,456 are read" in out
    assert r"dogs/ring\x07.png: not an image" in out  # shown as text
    code, _, errors = mnet("doctor", tmp_path / "nothing")
    assert code == 2
    assert "there is no " in errors


def test_doctor_of_a_folder_that_nobody_can_train_on(tmp_path, mnet):
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    code, out, _ = mnet("doctor", tmp_path / "photos")
    assert code == 1
    assert out.startswith(f"BAD  {tmp_path}/photos has no images: put each class into a folder of its own")


def test_doctor_of_records(tmp_path, mnet):
    digits.prepare(str(tmp_path))
    code, out, _ = mnet("doctor", tmp_path)
    assert code == 0
    assert out == "ok   digits test: 360 records\nok   digits train: 1,437 records\n"
    path = record_faults.file_of(tmp_path, "train")
    flip(path)
    code, out, _ = mnet("doctor", tmp_path, "--json")
    found = json.loads(out)
    assert (code, found["kind"], found["good"]) == (1, "data", False)
    (bad,) = [finding for finding in found["findings"] if not finding["good"]]
    assert bad["what"].startswith(f"digits train: {path} is damaged after record ")
    assert bad["advice"] == "prepare the data set again"
    path.unlink()
    assert f"BAD  digits train: {path} is missing" in mnet("doctor", tmp_path)[1]


@pytest.mark.parametrize("format", box_folders.WRITERS)
def test_doctor_of_boxes(format, tmp_path, mnet):
    splits = {"train": box_folders.pictures(6), "val": box_folders.pictures(3, first=6)}
    box_folders.WRITERS[format](tmp_path / "boxes", splits)
    code, out, _ = mnet("doctor", tmp_path / "boxes")
    assert (code, out.splitlines()[0]) == (0, "ok   train: 6 images with boxes in 3 classes")
    image = next((tmp_path / "boxes").rglob("003.jpg"))
    image.write_bytes(image.read_bytes()[:100])
    code, out, _ = mnet("doctor", tmp_path / "boxes")
    assert code == 1
    assert f"BAD  {image}: " in out


def test_doctor_of_masks(tmp_path, mnet):
    draw = np.random.default_rng(0)
    for number in range(6):
        for folder, ending, shape in (("images", "jpg", (20, 30, 3)), ("masks", "png", (20, 30))):
            path = tmp_path / "set" / folder / f"{number}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            high = 256 if folder == "images" else 2
            Image.fromarray(draw.integers(0, high, shape, np.uint8)).save(path)
    (tmp_path / "set" / "classes.txt").write_text("ground\ncat\n")
    code, out, _ = mnet("doctor", tmp_path / "set")
    assert code == 0
    assert " images with masks in 2 classes" in out
    (tmp_path / "set" / "masks" / "2.png").write_bytes(b"none")
    (tmp_path / "set" / "masks" / "3.png").unlink()
    code, out, _ = mnet("doctor", tmp_path / "set")
    assert code == 1
    assert sum(line.startswith("BAD ") for line in out.splitlines()) == 2


# --- Exported files ---


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with the narrowest network in every format."""
    place = tmp_path_factory.mktemp("exported")
    plan = create_model("v1", num_classes=7, width=0.25).plan
    graph = fold(plan, random_variables(plan), image_size=32, input="uint8", mean=MEAN, std=STD)
    for format in formats.FORMATS:
        formats.write(graph, about(plan, 32), place / f"model.{format}", format)
    return place


def files_of(path):
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("format", list(formats.FORMATS))
def test_doctor_of_an_exported_file(format, exported, tmp_path, mnet):
    path = tmp_path / f"model.{format}"
    source = exported / path.name
    shutil.copytree(source, path) if source.is_dir() else shutil.copy(source, path)
    size = formats.file_size(path)
    code, out, _ = mnet("doctor", path)
    assert (code, out) == (0, f"ok   {path}: {format}, {size:,} bytes, runs on an image of 32x32\n")
    largest = max(files_of(path), key=lambda file: file.stat().st_size)
    whole = largest.read_bytes()
    for share in (0.1, 0.5, 0.9):  # whatever it is that it hits
        flip(largest, share)
        code, out, _ = mnet("doctor", path)
        assert (code, out.splitlines()[0]) == (
            1,
            f"BAD  {largest} is damaged: it is not what mnet export wrote; export it again",
        )
        largest.write_bytes(whole)
    for share in (0.2, 0.7, 0.99):
        largest.write_bytes(whole[: int(share * len(whole))])
        code, out, errors = mnet("doctor", path)
        assert code == 1
        assert out.startswith(f"BAD  {path}")
        assert "Traceback" not in out + errors
    largest.write_bytes(whole)
    assert mnet("doctor", path)[0] == 0


def test_a_file_of_an_earlier_version_has_no_sum_and_is_opened(exported, tmp_path, monkeypatch):
    from mnet_jax.deploy import sums

    images = np.zeros((1, 32, 32, 3), np.uint8)
    for format in ("tflite", "onnx", "stablehlo"):
        contents = (exported / f"model.{format}").read_bytes()
        name = sums.NAME.encode()
        assert contents.count(name) == 1
        path = tmp_path / f"model.{format}"
        path.write_bytes(contents.replace(name, b"other name  "))
        np.testing.assert_array_equal(formats.load(path)(images), formats.load(exported / f"model.{format}")(images))


def test_doctor_of_what_is_no_model(tmp_path, mnet):
    (tmp_path / "notes.txt").write_text("notes")
    code, _, errors = mnet("doctor", tmp_path / "notes.txt")
    assert code == 2
    assert "is none of stablehlo, tflite, onnx, savedmodel" in errors
