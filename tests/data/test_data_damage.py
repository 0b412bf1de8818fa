"""JPEGs that are damaged behind their first bytes: one rule in a folder's check, in prediction and in calibration.

What libjpeg says of the same bytes through Pillow is the reference for what it refuses; for data that end too early it
says nothing, and the grey rows are looked for here.
"""

import io
import pathlib
import shutil
import types

import numpy as np
import pytest
from PIL import Image
from sample_sets import config, encode, opened, picture, train

from mnet_jax.commands.cli import main
from mnet_jax.data import decode, fixed_views, folder, formats, manifest, pipeline
from mnet_jax.deploy.int8 import calibration

SIDE = 160


def photo(seed=0, **options):
    return encode(picture(SIDE, SIDE, seed=seed), "JPEG", **{"quality": 95} | options)


def segments(contents):
    """(marker, place) of each segment up to the scan, and where the scan's data begin."""
    at, found = 2, []
    while True:
        found.append((contents[at + 1], at))
        at += 2 + int.from_bytes(contents[at + 2 : at + 4], "big")
        if found[-1][0] == 0xDA:
            return found, at


def changed(contents, at, new):
    return contents[:at] + new + contents[at + len(new) :]


def damaged():
    """Damaged files by what is wrong with them; both ends are as they were."""
    whole = photo()
    found, scan = segments(whole)
    table = next(at for marker, at in found if marker == 0xC4)
    quantization = next(at for marker, at in found if marker == 0xDB)
    middle = (scan + len(whole)) // 2
    progressive = photo(progressive=True)
    return {
        "Huffman table of too many codes": changed(whole, table + 5, b"\xff" * 16),
        "Huffman table without a prefix code": changed(whole, table + 5, b"\x03"),
        "number of a Huffman table": changed(whole, table + 4, b"\x33"),
        "number of a quantization table": changed(whole, quantization + 4, b"\x07"),
        "marker of a frame": changed(whole, middle, b"\xff\xc0"),
        "unknown marker": changed(whole, middle, b"\xff\x50"),
        "marker of a comment": changed(whole, middle, b"\xff\xfe"),
        "row of 0xFF": changed(whole, middle, b"\xff" * 500),
        "end in the middle": changed(whole, middle, b"\xff\xd9"),
        "restart in the middle": changed(whole, middle, b"\xff\xd3"),
        "cut, with an end put there": whole[:middle] + b"\xff\xd9",
        "half of the data gone": whole[:middle] + whole[-200:],
        "cut": whole[:middle],
        "progressive, a Huffman table": changed(
            progressive, next(at for marker, at in segments(progressive)[0] if marker == 0xC4) + 5, b"\xff" * 16
        ),
        "progressive, cut in its first scan": progressive[: segments(progressive)[1] + 300] + b"\xff\xd9",
        "progressive, a table between its scans": changed(
            progressive, progressive.rindex(b"\xff\xc4") + 5, b"\xff" * 16
        ),
    }


DAMAGED = damaged()


def restarts(contents_of):
    """A JPEG with an interval of restarts, in whose data markers lie."""
    file = io.BytesIO()
    Image.fromarray(contents_of).save(file, "JPEG", quality=95, restart_marker_blocks=4)
    return file.getvalue()


def grey_below(**options):
    """A whole picture of which the lower half is grey, as of one that breaks off."""
    pixels = picture(SIDE, SIDE, seed=5).copy()
    pixels[SIDE // 2 :] = 128
    return encode(pixels, "JPEG", quality=95, **options)


WHOLE = {
    "a photo": photo(),
    "progressive": photo(progressive=True),
    "with restarts": restarts(picture(SIDE, SIDE, seed=6)),
    "grey below": grey_below(),
    "grey below, progressive": grey_below(progressive=True),
    "grey": encode(np.full((SIDE, SIDE, 3), 128, np.uint8), "JPEG"),
    "without colour": encode(picture(SIDE, SIDE)[..., 0], "JPEG"),
    "behind its end something of a phone's": photo() + b"depth map" * 50,
    "CMYK": encode(Image.fromarray(picture(SIDE, SIDE)).convert("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damage_behind_the_first_bytes_is_found(what, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(DAMAGED[what])
    [verdict] = formats.judge([str(path)])
    assert verdict.fault is not None
    assert verdict.fault.startswith("damaged JPEG")
    with pytest.raises(ValueError, match=f"cannot read .*photo.jpg: {verdict.fault}"):
        decode.load_image(path)


@pytest.mark.parametrize("what", WHOLE)
def test_what_is_whole_is_used(what, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(WHOLE[what])
    [verdict] = formats.judge([str(path)])
    assert (verdict.fault, verdict.size) == (None, (SIDE, SIDE))
    decode.load_image(path)


def test_all_that_libjpeg_refuses_is_refused_wherever_the_damage_is():
    """Single bytes of a photo changed anywhere: what libjpeg in Pillow breaks off at is never used."""
    whole, rng, refused = photo(), np.random.default_rng(0), 0
    for place in (*range(4, segments(whole)[1], 7), *rng.integers(segments(whole)[1], len(whole) - 2, 60)):
        contents = changed(whole, int(place), bytes([whole[place] ^ int(rng.integers(1, 256))]))
        try:
            with Image.open(io.BytesIO(contents)) as image:
                image.load()
        except (OSError, SyntaxError) as error:
            if "broken data stream" in str(error):  # all else Pillow says before it asks libjpeg
                refused += 1
                assert formats.fault(contents) is not None, place
    assert refused > 5


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes with a damaged photo of each kind in one of them."""
    root, seed = tmp_path / "photos", 100
    for name in "ab":
        (root / name).mkdir(parents=True)
        for number in range(12):
            seed += 1
            (root / name / f"{number:02}.jpg").write_bytes(photo(seed))
    for number, contents in enumerate(DAMAGED.values()):
        (root / "b" / f"bad_{number:02}.jpg").write_bytes(contents)
    return root


def test_a_folder_with_damaged_photos_trains_and_is_judged_on_the_others(photos):
    data = config(name="folder", folder=str(photos))
    dataset = opened(data)
    assert len(dataset.listing.left_out) == len(DAMAGED)
    assert all("bad_" in one.path and one.why.startswith("damaged JPEG") for one in dataset.listing.left_out)
    assert sum(dataset.source.sizes.values()) == 24
    train(data, 6, 8)
    assert sum(int(b["mask"].sum()) for b in pipeline.eval_batches(dataset, batch_size=4)) == dataset.info.num_eval


def test_calibration_takes_what_training_takes(photos, capfd):
    trained = types.SimpleNamespace(config=types.SimpleNamespace(data=config()), published=False)
    found = np.concatenate(list(calibration.batches(trained, (32, 32), folder=photos, num=100)))
    assert len(found) == 24
    assert f"left out {len(DAMAGED)} files" in capfd.readouterr().err
    for path in photos.rglob("0*.jpg"):
        path.unlink()
    with pytest.raises(
        ValueError, match=r"has 4 images that can be read, without .*bad_00.jpg \(damaged JPEG.* more: "
    ):
        calibration.batches(trained, (32, 32), folder=photos, num=100)


def test_a_known_photo_is_not_decoded_again(photos, tmp_path, monkeypatch):
    listing = folder.scan(str(photos))
    manifest.write(str(tmp_path / "photos.csv"), listing.entries(str(photos)))
    tried = []
    monkeypatch.setattr(formats, "_try", lambda contents: tried.append(contents) or "damaged JPEG")
    (photos / "a" / "new.jpg").write_bytes(photo(1))
    again = folder.scan(str(photos), str(tmp_path / "photos.csv"))
    assert again.splits == listing.splits
    assert len(tried) == len(DAMAGED) + 1  # what was found to be good is known by its content, and nothing else


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_photo_that_fails_while_training_is_named_and_replaced(photos, capfd, how):
    """Somebody writes to the folder after it was looked through."""
    data = config(name="folder", folder=str(photos), max_unreadable=1)
    dataset = opened(data)
    batches = pipeline.train_batches(dataset, batch_size=6, seed=0, start_step=0)
    path = pathlib.Path(dataset.file_names("train")[2])
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(DAMAGED["Huffman table of too many codes"])
    for _ in range(12):
        assert (next(batches)["image"].std((1, 2, 3)) > 0).all()
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("mnet: ")]
    gone = ", which is gone" if how == "gone" else ""
    assert said == [
        f"mnet: warning: example 2 of folder 'train' ({path}{gone}) cannot be decoded: another one takes its place (1 "
        "so far, data.max_unreadable=1)"
    ]
    path = pathlib.Path(dataset.file_names("validation")[0])
    path.write_bytes(DAMAGED["Huffman table of too many codes"])
    with pytest.raises(
        ValueError, match=rf"^example 0 of folder 'validation' \({path}\) cannot be decoded, and an eval"
    ):
        list(pipeline.eval_batches(dataset, batch_size=4))
    views = fixed_views.view_batches(dataset, split="validation", indices=[1, 0], num_views=2, seed=0, batch_size=2)
    with pytest.raises(
        ValueError, match=rf"^example 0 of folder 'validation' \({path}\) cannot be decoded, and its emb"
    ):
        list(views)


def test_prediction_names_what_it_cannot_read_and_goes_on(photos, tmp_path, real_data, capfd):
    for path in [*photos.rglob("0[2-9].jpg"), *photos.rglob("1?.jpg"), *photos.rglob("bad_0[2-9].jpg")]:
        path.unlink()
    shutil.rmtree(photos / "a")
    weights = real_data / "weights" / "keras_v1_0.25_224.h5"
    code = main(["predict", "--weights", str(weights), "--top", "1", str(photos)])
    out, err = capfd.readouterr()
    assert code == 1, err
    assert out.count(" %  ") == 2
    assert err.count("damaged JPEG") == len(list(photos.rglob("bad*")))
