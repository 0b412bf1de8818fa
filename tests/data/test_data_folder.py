"""Folders of images: both layouts, a split that stays, copies, and files that are no images."""

import pathlib

import numpy as np
import pytest
from sample_sets import config, encode, evaluate, joined, opened, picture, train

from mnet_jax.data import folder, manifest


def fill(root, counts, start=0):
    """Writes `counts[class]` photos a class; returns the number of the next one."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            (root / name / f"{start:04}.jpg").write_bytes(encode(picture(12, 14, seed=start), "JPEG"))
            start += 1
    return start


def files(listing, root, split):
    return {file.path.removeprefix(f"{root}/"): file.label for file in listing.splits[split]}


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test"])
def test_split_by_its_owner(tmp_path, held_out):
    start = fill(tmp_path / "train", {"dog": 3, "cat": 4})
    fill(tmp_path / held_out, {"cat": 2}, start)
    info = opened(config(name="folder", folder=str(tmp_path))).info
    assert (info.class_names, info.num_classes, info.num_train, info.num_eval) == (("cat", "dog"), 2, 7, 2)
    assert (info.train_split, info.eval_split) == ("train", held_out)
    listing = folder.scan(str(tmp_path))
    assert files(listing, tmp_path, held_out) == {f"{held_out}/cat/0007.jpg": 0, f"{held_out}/cat/0008.jpg": 0}


@pytest.mark.parametrize(
    ("names", "held_out"),
    [
        (("Train", "Test"), "test"),
        (("training", "testing"), "test"),
        (("TRAIN", "VAL"), "val"),
        (("seg_train/seg_train", "seg_test/seg_test"), "test"),
        (("Training Data", "Validation_Data"), "validation"),
        (("train", "Valid"), "valid"),
    ],
)
def test_splits_whatever_their_spelling(tmp_path, names, held_out):
    start = fill(tmp_path / names[0], {"dog": 3, "cat": 4})
    fill(tmp_path / names[1], {"cat": 2}, start)
    info = opened(config(name="folder", folder=str(tmp_path))).info
    assert (info.class_names, info.num_train, info.num_eval) == (("cat", "dog"), 7, 2)
    assert (info.train_split, info.eval_split) == ("train", held_out)


def test_classes_whose_names_sound_like_splits_are_classes(tmp_path):
    fill(tmp_path, {"train": 9, "test tube": 9, "bus/big": 9})  # no folders in "train"
    assert folder.scan(str(tmp_path)).class_names == ("bus", "test tube", "train")
    fill(tmp_path, {"train station/steam": 9}, start=27)
    assert folder.scan(str(tmp_path)).class_names == ("bus", "test tube", "train", "train station")


def test_two_folders_for_one_split_are_refused(tmp_path):
    fill(tmp_path, {"Train/a": 2, "TRAIN/b": 2, "val/a": 1})
    with pytest.raises(ValueError, match=r"has 'TRAIN' and 'Train', both for 'train': one of them expected"):
        folder.scan(str(tmp_path))


def test_chosen_split(tmp_path):
    start = fill(tmp_path / "train", {"dog": 2, "cat": 2})
    start = fill(tmp_path / "val", {"cat": 3}, start)
    fill(tmp_path / "test", {"cat": 1, "dog": 4}, start)
    data = config(name="folder", folder=str(tmp_path))
    assert opened(data).info.eval_split == "val"
    data.eval_split = "test"
    assert opened(data).info.num_eval == 5
    data.eval_split = "tset"
    with pytest.raises(
        ValueError, match=r"no split 'tset': there are train \(4\), val \(3\), test \(5\); did you mean 'test'"
    ):
        opened(data)


@pytest.mark.parametrize("inside", [".", "train"])
def test_our_split(tmp_path, inside):
    fill(tmp_path / inside, {"a": 300, "b": 200})
    listing = folder.scan(str(tmp_path))
    train_files, held_out = files(listing, tmp_path, "train"), files(listing, tmp_path, "validation")
    assert len(train_files) + len(held_out) == 500
    assert not set(train_files) & set(held_out)
    assert 70 <= len(held_out) <= 130  # a fifth, within 3 standard deviations
    assert set(held_out.values()) == {0, 1}


def test_our_split_stays_when_files_come_or_move(tmp_path):
    fill(tmp_path / "old", {"a": 40, "b": 40})
    fill(tmp_path / "new", {"a": 40, "b": 40})
    fill(tmp_path / "new", {"a": 30, "b": 10}, start=80)
    (tmp_path / "new" / "a" / "0000.jpg").rename(tmp_path / "new" / "a" / "renamed.jpg")
    held_out = [files(folder.scan(str(tmp_path / name)), tmp_path / name, "validation") for name in ("old", "new")]
    old, new = [{path.replace("renamed", "0000") for path in paths} for paths in held_out]
    assert old == {path for path in new if int(path[2:6]) < 80}
    assert len(new) > len(old)


def test_small_classes_keep_an_image_for_training(tmp_path):
    for i in range(30):
        fill(tmp_path, {f"class{i:02}": 1}, start=i)
    fill(tmp_path, {"large": 20}, start=30)
    listing = folder.scan(str(tmp_path))
    assert {file.label for file in listing.splits["train"]} == set(range(31))


def test_every_class_of_five_photos_or_more_has_some_held_out(tmp_path):
    counts = {f"class{i:02}": count for i, count in enumerate([2, 3, 4, *range(5, 25), 60])}
    fill(tmp_path, counts)
    listing = folder.scan(str(tmp_path))
    held_out = [sum(file.label == label for file in listing.splits["validation"]) for label in range(len(counts))]
    for count, out in zip(counts.values(), held_out, strict=True):
        assert (count >= 5) * max(1, round(0.1 * count)) <= out <= 0.4 * count
    total = sum(counts.values())
    assert 0.15 * total < sum(held_out) < 0.25 * total
    for file in listing.splits["validation"]:  # the lowest draws of a class
        others = [one for one in listing.splits["train"] if one.label == file.label]
        assert all(int(file.digest, 16) < int(one.digest, 16) for one in others)


def reasons(listing, root):
    return {file.path.removeprefix(f"{root}/"): file.why for file in listing.left_out}


def test_one_of_each_image_is_used_and_none_that_lies_in_two_classes(tmp_path):
    fill(tmp_path, {"a": 30, "b": 30})
    photo, other = encode(picture(12, 14, seed=100), "JPEG"), encode(picture(12, 14, seed=101), "PNG")
    for name, contents in {"a/x.jpg": photo, "a/y.jpg": photo, "a/z.png": other, "b/in/z.png": other}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(contents)
    listing = folder.scan(str(tmp_path))
    assert reasons(listing, tmp_path) == {
        "a/y.jpg": "copy of a/x.jpg",
        "a/z.png": "the same image is in another class: b/in/z.png",
        "b/in/z.png": "the same image is in another class: a/z.png",
    }
    assert sum(map(len, listing.splits.values())) == 61


def test_a_copy_in_train_and_val_stays_in_val(tmp_path):
    start = fill(tmp_path / "train", {"a": 3, "b": 3})
    fill(tmp_path / "val", {"a": 2, "b": 2}, start)
    (tmp_path / "train" / "a" / "leak.jpg").write_bytes((tmp_path / "val" / "a" / "0006.jpg").read_bytes())
    (tmp_path / "unsorted").mkdir()
    listing = folder.scan(str(tmp_path))
    assert reasons(listing, tmp_path) == {
        "train/a/leak.jpg": "copy of val/a/0006.jpg",
        "unsorted": "beside train, val",
    }
    assert {split: len(found) for split, found in listing.splits.items()} == {"train": 6, "val": 4}


@pytest.fixture
def noted(tmp_path):
    """A folder, its listing and the manifest of that listing."""
    fill(tmp_path / "photos", {"a": 20, "b": 20})
    listing = folder.scan(str(tmp_path / "photos"))
    manifest.write(str(tmp_path / "photos.csv"), listing.entries(str(tmp_path / "photos")))
    return tmp_path / "photos", listing, str(tmp_path / "photos.csv")


def test_manifest_keeps_the_images_and_their_splits(noted, monkeypatch):
    root, listing, path = noted
    fill(root, {"a": 9, "c": 3}, start=40)
    (root / "b" / "0030.jpg").rename(root / "b" / "renamed.jpg")
    (root / "c" / "copy.jpg").write_bytes((root / "a" / "0000.jpg").read_bytes())
    monkeypatch.setattr(folder, "EVAL_SHARE", 0.0)  # whatever the rule would say today
    again = folder.scan(str(root), path)
    digests = {split: {file.digest for file in found} for split, found in listing.splits.items()}
    assert {split: {file.digest for file in found} for split, found in again.splits.items()} == digests
    assert again.class_names == ("a", "b")
    assert len(again.newcomers) == 12
    assert reasons(again, root) == {"c/copy.jpg": "copy of a/0000.jpg"}

    (root / "c" / "copy.jpg").unlink()
    more = folder.scan(str(root), None, path)  # the newcomers too
    assert more.class_names == ("a", "b", "c")
    assert sum(map(len, more.splits.values())) == 52
    now = {split: {file.digest for file in found} for split, found in more.splits.items()}
    assert all(digests[split] <= now[split] for split in digests)


def test_lost_and_moved_images_are_named(noted):
    root, _, path = noted
    (root / "a" / "0003.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of the 40 images in .*photos.csv are gone: a/0003.jpg. Put them back"):
        folder.scan(str(root), path)
    fill(root, {"a": 1}, start=3)
    (root / "a" / "0004.jpg").rename(root / "b" / "0004.jpg")
    with pytest.raises(ValueError, match=r"are in another class now: a/0004.jpg \(b\)"):
        folder.scan(str(root), path)


@pytest.mark.parametrize("text", [None, "", "file,class\n", "file,class,split,digest\na,b,train\n"])
def test_what_is_no_manifest(noted, text):
    root, _, path = noted
    if text is not None:
        pathlib.Path(path).write_text(text)
    with pytest.raises(ValueError, match="no such manifest" if text is None else "is no manifest"):
        manifest.read(f"{path}.old" if text is None else path)


def test_what_is_no_image_is_left_out_and_told_in_one_line(tmp_path):
    photos = tmp_path / "photos"
    fill(photos, {"a": 10, "b": 10})
    (photos / ".cache").mkdir()
    (photos / "a" / ".hidden.jpg").write_bytes(b"nothing")
    (photos / "a" / ".thumbnails").mkdir()
    (photos / "a" / ".thumbnails" / "x.jpg").write_bytes(b"nothing")
    (photos / "README.txt").write_text("beside the classes")
    (photos / "nothing in it").mkdir()
    good = encode(picture(50, 50), "JPEG")
    bad = {
        "a/empty.jpg": b"",
        "a/notes.txt": b"these are notes",
        "a/truncated.jpg": good[: len(good) // 2],
        "b/broken.png": encode(picture(50, 50), "PNG")[:300],
        "b/broken.gif": encode(picture(50, 50), "GIF")[:300],
        "b/zero.jpg": b"\0" * 100,
        "b/iphone.heic": b"\0\0\0\x18ftypheic" + b"\0" * 100,
    }
    extra = {
        "b/in/a/sub_folder.jpg": good,
        "b/trailing.jpg": good + b"appended by a phone",
        "b/photo.JPG": encode(picture(9, 9), "PNG"),
        "b/picture.webp": encode(picture(9, 9, seed=1), "WEBP"),
        "b/no_extension": encode(picture(9, 9, seed=2), "GIF"),
    }
    for name, contents in (bad | extra).items():
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(contents)
    listing = folder.scan(str(photos))
    assert listing.complaint(str(photos)) == (
        f"{photos}: left out 8 files: README.txt (not in the folder of a class), a/empty.jpg (empty), "
        "a/notes.txt (not an image), a/truncated.jpg (damaged JPEG), b/broken.gif (damaged GIF), and 3 more"
    )
    assert reasons(listing, photos)["b/iphone.heic"] in ("HEIC, which needs pip install pi-heif", "damaged HEIC")
    found = files(listing, photos, "train") | files(listing, photos, "validation")
    assert len(found) == 25
    assert set(extra) < set(found)

    data = config(name="folder", folder=str(photos))
    batches = train(data, 5, 5) + evaluate(data, 5)
    assert joined(batches, "mask").sum() == 25 + opened(data).info.num_eval


def test_pixels_are_those_of_the_files(tmp_path):
    pixels = [np.full((4, 4, 3), value, np.uint8) for value in range(40)]
    for i, image in enumerate(pixels):
        path = tmp_path / f"parity{i % 2}" / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(image, "PNG"))
    data = config(name="folder", folder=str(tmp_path))
    info = opened(data).info
    listing = folder.scan(str(tmp_path))
    for split, batches in ((info.train_split, train(data, 4, 8)), (info.eval_split, evaluate(data, 4))):
        for batch in batches:
            for image, label, index in zip(batch["image"], batch["label"], batch["index"], strict=True):
                if index >= 0:
                    file = listing.splits[split][index]
                    assert (image == int(file.path[-6:-4])).all()
                    assert label == file.label == image[0, 0, 0] % 2


def make(tmp_path, layout):
    """A folder that is wrong in one way."""
    if layout == "flat":
        (tmp_path / "photo.jpg").write_bytes(encode(picture(5, 5), "JPEG"))
    elif layout == "one class":
        fill(tmp_path, {"cat": 3})
    elif layout == "only broken":
        for name in "ab":
            (tmp_path / name).mkdir()
            (tmp_path / name / "x.jpg").write_bytes(b"")
    elif layout == "unknown class":
        fill(tmp_path / "train", {"cat": 2, "dog": 2})
        fill(tmp_path / "val", {"cow": 1, "cat": 1}, start=4)
    elif layout == "one image a class":
        fill(tmp_path, {"a": 1, "b": 1})
    return tmp_path if layout != "missing" else tmp_path / "missing"


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("missing", r"no such folder: .*missing \(data.folder\)"),
        ("empty", r"has no images: put each class into a folder of its own, such as .*/cats and .*/dogs"),
        ("flat", "has no images: put each class"),
        ("only broken", "has no images: put each class"),
        ("one class", r"has one class only \('cat'\): put each class"),
        ("unknown class", "val has classes that .*train has not: cow"),
        ("one image a class", r"has too few images to hold some out for evaluation \(2\)"),
    ],
)
def test_wrong_folder_is_one_clear_line(tmp_path, layout, message):
    data = config(name="folder", folder=str(make(tmp_path, layout)))
    with pytest.raises(ValueError, match=message) as error:
        opened(data)
    assert "\n" not in str(error.value)


def test_folder_not_set():
    with pytest.raises(ValueError, match=r"data.folder is not set: type --config.data.folder="):
        opened(config(name="folder"))
