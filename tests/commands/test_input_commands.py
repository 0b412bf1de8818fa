"""`mnet prepare` and `mnet benchmark input` as they are typed."""

import io
import json

import pytest
from PIL import Image

from mnet_jax.commands import cli


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for i in range(12):
        place = root / ("cat" if i % 2 else "dog")
        place.mkdir(exist_ok=True)
        Image.radial_gradient("L").convert("RGB").rotate(i).resize((120 + i, 100)).save(place / f"{i}.jpg")
    return root


def answer(capsys, *argv, code=0):
    assert cli.main([*map(str, argv), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_prepare_and_benchmark_a_folder(photos, tmp_path, capsys):
    made = answer(capsys, "prepare", "--folder", photos, "--out", tmp_path / "small", "--short_side", 40)
    assert (made["images"], made["kept"], made["left_out"], made["was_there"]) == (12, 0, {}, False)
    assert made["use"] == f"--config.data.folder={tmp_path / 'small'}"
    assert {min(Image.open(io.BytesIO(path.read_bytes())).size) for path in (tmp_path / "small").rglob("*.jpg")} == {40}
    assert cli.main(["prepare", "--folder", str(photos), "--out", str(tmp_path / "small"), "--short_side", "40"]) == 0
    assert capsys.readouterr().out.startswith(f"already there  {tmp_path / 'small'}\n")

    found = answer(
        capsys, "benchmark", "input", "--folder", tmp_path / "small", "--image_size", 32, "--batch_size", 4,
        "--seconds", 0.1, "--rounds", 1,
    )  # fmt: skip
    assert list(found["stages"]) == ["read", "decode", "resize", "device"]
    speeds = [row["images_per_second"] for row in found["stages"].values()]
    assert min(speeds) > 0
    assert found["images_per_second"] == speeds[-1]
    assert sum(row["share"] for row in found["stages"].values()) == pytest.approx(1)
    assert found["binds"] in found["stages"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["prepare", "--folder", "{photos}", "--out", "x", "--quality", "101"], "quality 101: give 1 to 100"),
        (["prepare", "--folder", "{photos}", "--out", "{photos}/in"], "inside the folder itself"),
        (["prepare", "--data", "imagenet2021", "--out", "x", "--data_dir", "y"], "did you mean imagenet2012"),
        (["benchmark", "input", "--data", "digits", "--batch_size", "0"], "must be above 0"),
        (["benchmark", "input", "--config", "configs/nosuch.py"], "no config file"),
    ],
)
def test_errors_are_one_line(photos, tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main([arg.format(photos=photos) for arg in argv]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
