"""Prepared sets: the same examples with small images, all of them or nothing."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from sample_sets import config, encode, evaluate, joined, opened, picture, write_set

from mnet_jax.data import prepare, tfds_set
from mnet_jax.data.shrink import Settings, shrinker

SETTINGS = Settings(short_side=32)


def run(data, out, settings=SETTINGS):
    told = []
    made = prepare.prepare(data, str(out), settings, announce=told.append, progress=lambda n: told.append(n))
    return made, told


def images(count):
    """Large and small JPEGs, one in four a PNG."""
    return [
        (encode(picture(40 + 9 * i, 50 + 5 * i, seed=i), "PNG" if i % 4 == 3 else "JPEG"), i % 10)
        if i % 5
        else (encode(picture(20, 30, seed=i), "JPEG"), i % 10)
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    broken = [*images(6), (b"no image", 1), (encode(picture(90, 90), "JPEG")[:40], 2)]
    write_set(root, "plain", {"train": lambda: images(14), "test": lambda: images(5)}, num_shards=3)
    write_set(
        root, "random_access", {"train": lambda: images(5), "test": lambda: images(3)}, file_format="array_record"
    )
    write_set(root, "broken", {"train": lambda: broken, "test": lambda: images(2)})
    return root


def contents(data, split):
    """[(encoded image, label)] of a TFDS split."""
    table = opened(data).table(split)
    found = table.gather(np.arange(table.num_examples))
    return list(zip(found["contents"].numpy(), found["annotations"]["label"][""].numpy().tolist(), strict=True))


@pytest.mark.parametrize("name", ["plain", "random_access"])
def test_prepared_set_is_the_same_set_with_small_images(sets, tmp_path, name):
    before, after = (config(name=name, data_dir=str(place)) for place in (sets, tmp_path))
    made, told = run(before, tmp_path)
    assert opened(after).info == opened(before).info
    assert tfds_set.open_builder(after).info.file_format.value == "tfrecord"
    tally, estimate, total = made.tally, told[0], sum(told[1:])
    assert tally.images == estimate.images == total
    assert 0 < tally.kept < tally.images
    assert tally.bytes_after < tally.bytes_before
    assert tally.left_out == {}
    for split in ("train", "test"):
        pairs = list(zip(contents(before, split), contents(after, split), strict=True))
        for (old, old_label), (new, new_label) in pairs:
            assert new_label == old_label
            size, small = Image.open(io.BytesIO(old)).size, Image.open(io.BytesIO(new))
            if min(size) <= 32:
                assert new == old
            else:
                assert small.format == "JPEG"
                assert min(small.size) == 32
                assert small.size == tuple(round(side * 32 / min(size)) for side in size)
    info = json.loads((tmp_path / name / "1.0.0" / "dataset_info.json").read_text())
    assert [sum(map(int, split["shardLengths"])) for split in info["splits"]] == [
        estimate.images - len(pairs),
        len(pairs),
    ]
    assert not list(tmp_path.rglob("*.part")) + list(tmp_path.rglob(".*")) + list(tmp_path.rglob("*.incomplete"))


def test_evaluation_sees_the_same(tmp_path):
    # Grey and smooth: a JPEG stores colour at half resolution, and boxes of whole pixels of the small image are up to
    # half a pixel away from the large one's.
    large = [Image.fromarray(picture(30, 24 + i, i, channels=1)).convert("RGB").resize((150, 190)) for i in range(4)]
    grey = [encode(image, "JPEG", quality=95) for image in large]
    splits = {split: lambda: ((image, 0) for image in grey) for split in ("train", "test")}
    write_set(tmp_path / "large", "grey", splits)
    places = (tmp_path / "large", tmp_path)
    before, after = (config(name="grey", data_dir=str(p), image_size=35, eval_crop=0.875) for p in places)
    run(before, tmp_path, Settings(short_side=40))
    old, new = (joined(evaluate(data, 8), "image").astype(float) for data in (before, after))
    assert np.abs(old - new).mean() < 4


def test_finished_set_is_not_made_again_and_others_are_refused(sets, tmp_path):
    data = config(name="plain", data_dir=str(sets))
    first, _ = run(data, tmp_path)
    again, told = run(data, tmp_path)
    assert again.was_there
    assert told == []
    assert again.tally == first.tally
    with pytest.raises(ValueError, match="short_side 32 instead of 48"):
        run(data, tmp_path, Settings(short_side=48))
    with pytest.raises(ValueError, match="where the set itself is"):
        run(data, sets)


def test_a_killed_start_leaves_no_set_and_the_next_goes_on(sets, tmp_path):
    data = config(name="plain", data_dir=str(sets))

    def stop(_, seen=[]):  # noqa: B006
        seen.append(1)
        if len(seen) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(data, str(tmp_path), SETTINGS, announce=lambda _: None, progress=stop)
    (part,) = (tmp_path / "plain").iterdir()
    assert part.name == "1.0.0.incomplete"
    with pytest.raises(ValueError, match="plain is not in|unknown data set"):
        opened(config(name="plain", data_dir=str(tmp_path)))
    whole = [path for path in part.glob("plain-*") if not path.name.endswith(".part")]
    assert whole
    stamps = {path.name: path.stat().st_mtime_ns for path in whole}
    made, _ = run(data, tmp_path)
    assert made.tally.images == 19
    target = tmp_path / "plain" / "1.0.0"
    assert {name: (target / name).stat().st_mtime_ns for name in stamps} == stamps
    run(data, tmp_path / "at once")
    for path in target.glob("plain-*"):
        assert path.read_bytes() == (tmp_path / "at once" / "plain" / "1.0.0" / path.name).read_bytes()


def test_bad_images_are_left_out_and_named(sets, tmp_path):
    made, _ = run(config(name="broken", data_dir=str(sets)), tmp_path)
    assert (made.tally.images, len(made.tally.left_out)) == (8, 2)
    assert "not an image" in made.tally.left_out.values()
    assert opened(config(name="broken", data_dir=str(tmp_path))).info.num_train == 6


def test_folder_keeps_its_splits(tmp_path):
    for i, (image, label) in enumerate(images(40)):
        place = tmp_path / "photos" / f"class {label % 2}" / "sub"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.jpg").write_bytes(image)
    (place / "bad.jpg").write_bytes(b"no image")
    before = config(name="folder", folder=str(tmp_path / "photos"))
    made, _ = run(before, tmp_path / "small")
    after = config(name="folder", folder=str(tmp_path / "small"))
    assert made.tally.images == 40
    old, new = opened(before).listing, opened(after).listing
    assert new.class_names == old.class_names
    for split, files in old.splits.items():
        names = [sorted((f.path.split("/")[-1], f.label) for f in part) for part in (files, new.splits[split])]
        assert names[0] == [(name.removeprefix("sub_"), label) for name, label in names[1]]
    with pytest.raises(ValueError, match="inside the folder itself"):
        run(before, tmp_path / "photos" / "small")


def test_shrinking_is_upright_and_as_pillow_resizes():
    pixels = np.repeat(picture(96, 150, channels=1)[..., None], 3, 2)
    tags = Image.Exif()
    tags[0x0112] = 6
    shrink = shrinker(Settings(short_side=48, quality=100))
    found = np.asarray(Image.open(io.BytesIO(shrink(encode(pixels, "JPEG", quality=98, exif=tags)))))
    wanted = np.asarray(Image.fromarray(np.rot90(pixels, -1)).resize((48, 75), Image.Resampling.BILINEAR))
    assert found.shape == wanted.shape == (75, 48, 3)
    assert np.abs(found.astype(int) - wanted).mean() < 3
    turned = encode(picture(20, 30), "JPEG", exif=tags)
    assert Image.open(io.BytesIO(shrink(turned))).size == (20, 30)  # small, but not upright: made so


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"short_side": 8}, "32 to 4096"), ({"quality": 0}, "1 to 100"), ({"interpolation": "x"}, "bicubic")],
)
def test_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        Settings(**fields)


def test_sets_with_nothing_to_gain_are_refused(tmp_path):
    with pytest.raises(ValueError, match="all images of digits are 8x8"):
        run(config(name="digits", data_dir=str(tmp_path)), tmp_path / "out")
