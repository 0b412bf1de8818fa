"""ImageNet in every form that people hold it in: the same labels, pixels and names; kills, damage, speed of listing."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import imagenet_forms
import numpy as np
import pytest
from imagenet_forms import WRITERS
from sample_sets import config, evaluate, in_order, joined, opened, train

from mnet_jax.data import prepare
from mnet_jax.data.imagenet import archives, facts, forms
from mnet_jax.data.imagenet_names import NAMES
from mnet_jax.data.shrink import Settings

ORIGINAL = Settings(short_side=None)


@pytest.fixture(scope="module")
def made():
    return imagenet_forms.images()


@pytest.fixture(scope="module")
def roots(made, tmp_path_factory):
    root = tmp_path_factory.mktemp("forms")
    for name, write in WRITERS.items():
        write(root / name, made)
    return root


@pytest.fixture
def many_files(monkeypatch):
    """As many files for so few images as a split of this size has with all of them."""
    monkeypatch.setattr(facts, "SHARDS", {"train": 320_000, "validation": 16_000})


def store(root, out, settings=ORIGINAL):
    data = config(name="imagenet2012", folder=str(root), image_size=32)
    return prepare.prepare(data, str(out), settings, announce=lambda _: None, progress=lambda _: None)


def stored(out):
    """{split: {file name: (label, encoded)}} of a prepared set, as TFDS itself reads it."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(out / "imagenet2012" / facts.VERSION)
    raw = {"image": tfds.decode.SkipDecoding()}
    return {
        split: {row["file_name"].decode(): (int(row["label"]), row["image"]) for row in found.as_numpy_iterator()}
        for split, found in builder.as_dataset(decoders=raw).items()
    }


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_gives_the_same_set(made, roots, tmp_path, many_files, name):
    told = store(roots / name, tmp_path).tally
    assert (told.images, told.left_out) == (33, {})
    wanted = {
        split: {file: (facts.WNIDS.index(wnid), contents) for file, (wnid, contents) in found.items()}
        for split, found in made.items()
    }
    assert stored(tmp_path) == wanted
    names = sorted(path.name for path in (tmp_path / "imagenet2012" / facts.VERSION).iterdir())
    count = 6 if name not in ("archives", "webdataset") else sum("-train." in file for file in names)
    assert f"imagenet2012-train.tfrecord-00000-of-{count:05}" in names
    assert count > 3
    assert not [file for file in names if file.startswith(".") or file.endswith(".part")]
    info = opened(config(name="imagenet2012", data_dir=str(tmp_path))).info
    assert (info.num_train, info.num_eval, info.class_names) == (24, 9, tuple(NAMES.values()))
    assert (info.train_split, info.eval_split) == ("train", "validation")


def test_classes_of_an_archive_are_mixed_over_the_files(roots, tmp_path, many_files):
    store(roots / "archives", tmp_path)
    data = config(name="imagenet2012", data_dir=str(tmp_path))
    for place in range(0, 24, 8):
        assert len(set(opened(data).values("label", f"train[{place}:{place + 8}]").tolist())) > 2


@pytest.mark.parametrize("name", ["tree", "flat", "kaggle"])
def test_unpacked_forms_are_read_in_place(made, roots, name):
    dataset = opened(config(name="folder", folder=str(roots / name)))
    assert dataset.info.class_names == tuple(NAMES.values())
    assert (dataset.info.num_train, dataset.info.num_eval) == (24, 9)
    for split, wanted in made.items():
        table = dataset.open_split(split)
        paths = [path.decode() for path in table.contents.numpy()]
        assert paths == dataset.file_names(split)
        found = {}
        for path, label in zip(paths, table.annotations["label"][""].numpy(), strict=True):
            with open(path, "rb") as file:
                found[os.path.basename(path)] = (facts.WNIDS[label], file.read())
        assert found == wanted


def test_in_place_and_stored_train_alike_and_every_image_is_judged_once(roots, tmp_path):
    store(roots / "archives", tmp_path)
    places = [config(name="folder", folder=str(roots / "kaggle")), config(name="imagenet2012", data_dir=str(tmp_path))]
    judged = [in_order(evaluate(data, 4)) for data in places]
    assert [sorted(found["index"]) for found in judged] == [list(range(9))] * 2
    one, two = (sorted(zip(found["label"], map(bytes, found["image"]), strict=True)) for found in judged)
    assert one == two
    seen = [joined(train(data, 8, 3), "index") for data in places]
    assert [sorted(found) for found in seen] == [list(range(24))] * 2


@pytest.mark.long
@pytest.mark.parametrize("form", ["archives", "kaggle"])
def test_the_commands_of_the_readme_train_an_epoch_from_it(roots, tmp_path, form):
    """Real processes: `mnet prepare` (Kaggle's folder is read in place), `train.py` with the main config, narrow."""
    root, data = str(roots / form), {"name": "imagenet2012", "data_dir": str(tmp_path / "tfds")}
    if form == "kaggle":
        data = {"name": "folder", "folder": root}
    else:
        what = ("--data=imagenet2012", "--archives", root, "--any_size")
        run("-m", "mnet_jax.commands.cli", "prepare", *what, "--out", data["data_dir"])
    small = {
        "model.width": 0.25,
        "data.image_size": 64,
        "train.batch_size": 8,
        "eval.batch_size": 4,
        "schedule.warmup_epochs": 0.0,
    }
    fields = {**{f"data.{field}": value for field, value in data.items()}, **small, "train.num_epochs": 1.0}
    options = [f"--config.{field}={value}" for field, value in fields.items()]
    run("train.py", "--config=configs/v3_large.py", f"--workdir={tmp_path / 'run'}", *options)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    trained, judged = (next(row for row in rows if row["kind"] == kind) for kind in ("train", "eval"))
    assert (trained["step"], trained["epoch"], judged["num_images"]) == (3, 1.0, 9)  # 24 images by 8; all of nine
    assert 6.5 < judged["loss"] < 7.5  # of a thousand classes: ln 1000 is 6.9


def run(*arguments):
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tfds_decodes_the_pixels_that_we_do(made, roots, tmp_path):
    import tensorflow_datasets as tfds

    from mnet_jax.data import decode

    store(roots / "archives", tmp_path)
    found = tfds.load("imagenet2012", data_dir=tmp_path, split="train", download=False)
    for row in found.as_numpy_iterator():
        contents = made["train"][row["file_name"].decode()][1]
        assert np.abs(row["image"].astype(int) - decode.load_image(contents)).max() <= 4  # another inverse DCT
        assert np.abs(row["image"].astype(int) - imagenet_forms.pixels(contents)).mean() < 3


def test_small_images_of_every_form_are_the_same(roots, tmp_path):
    small = []
    for name in ("archives", "parquet"):
        store(roots / name, tmp_path / name, Settings(short_side=32))
        small.append(stored(tmp_path / name))
    assert small[0] == small[1]


_KILLED = """
import sys
from mnet_jax.commands import cli
from mnet_jax.data import stored
from mnet_jax.data.imagenet import facts, store
facts.SHARDS.update(train=320_000, validation=16_000)
moments, write = int(sys.argv[1]), stored.tf.io.gfile.rename
def count(function):
    def counted(*args, **options):
        global moments
        moments -= 1
        if moments == 0:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return counted
for name in ("write_json", "_record"):
    setattr(store, name, count(getattr(store, name)))
stored.tf.io.gfile.rename = count(write)
sys.exit(cli.main(sys.argv[2:]))
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(roots, tmp_path, many_files):
    store(roots / "archives", tmp_path / "at once")
    command = ["prepare", "--data", "imagenet2012", "--archives", roots / "archives", "--out", tmp_path / "killed"]
    for moment in (17,):  # ten kills at random: tests/scripts/prepare_kills.py
        argv = [sys.executable, "-c", _KILLED, str(moment), *map(str, command), "--original", "--any_size"]
        assert subprocess.run(argv, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "imagenet2012" / facts.VERSION).exists()
    store(roots / "archives", tmp_path / "killed")
    assert files(tmp_path / "killed") == files(tmp_path / "at once")


# --- What is damaged or missing ---


def test_archives_are_checked(roots, tmp_path, monkeypatch):
    def check(**options):
        return archives.check(str(tmp_path), start=lambda _: None, progress=lambda _: None, **{"md5": False} | options)

    check()  # there are none
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(b"12345")
    with pytest.raises(ValueError, match=r"ILSVRC2012_img_train.tar is missing: 147,897,477,120 bytes with MD5 1d675b"):
        check()
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(b"1234")
    with pytest.raises(ValueError, match=r"has 4 bytes, 147,897,477,120 bytes with MD5 1d675b.*download it again"):
        check()
    told = {
        "train": facts.Archive("ILSVRC2012_img_train.tar", 4, "81dc9bdb52d04dc20036dbd8313ed055"),
        "validation": facts.Archive("ILSVRC2012_img_val.tar", 5, "0" * 32),
    }
    monkeypatch.setattr(facts, "ARCHIVES", told)
    check()
    with pytest.raises(ValueError, match="val.tar has MD5 827ccb0eea8a706c4c34a16891f84e7b, 5 bytes with MD5 0000"):
        check(md5=True)


@pytest.mark.parametrize("damage", ["cut", "header"])
def test_a_damaged_archive_is_not_taken_for_a_shorter_one(roots, tmp_path, damage):
    for file in (roots / "archives").iterdir():
        contents = bytearray(file.read_bytes())
        if file.name == "ILSVRC2012_img_val.tar":
            place = next(
                at for at in range(0, len(contents), 512) if contents[at:].startswith(b"ILSVRC2012_val_00000401")
            )
            if damage == "cut":
                del contents[place + 700 :]
            else:
                contents[place + 3 : place + 9] = b"xxxxxx"
        (tmp_path / file.name).write_bytes(contents)
    with pytest.raises(ValueError, match="ILSVRC2012_img_val.tar (ends|is damaged) at byte"):
        store(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / "imagenet2012" / facts.VERSION).exists()


def test_what_is_not_imagenet_is_said(roots, tmp_path):
    with pytest.raises(ValueError, match="has no ImageNet: the archives"):
        store(tmp_path, tmp_path / "out")
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"none")
    with pytest.raises(ValueError, match="has train files.*and none of validation: download those too"):
        store(tmp_path, tmp_path / "out")
    (tmp_path / "validation-00000-of-00001.parquet").write_bytes(b"none")
    with pytest.raises(ValueError, match="cannot be read"):
        store(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="mnet prepare --data imagenet2012 --archives"):
        opened(config(name="folder", folder=str(roots / "parquet")))


def test_labels_in_another_order_are_refused(made, tmp_path):
    wrong = {split: dict(found) for split, found in made.items()}
    name, (_, contents) = next(iter(wrong["train"].items()))
    wrong["train"][name] = ("n15075141", contents)
    imagenet_forms.write_parquet(tmp_path, wrong)
    with pytest.raises(ValueError, match="not in ImageNet's order"):
        store(tmp_path, tmp_path / "out")


def test_a_listing_is_kept_and_goes_with_its_folders(roots, tmp_path, made):
    imagenet_forms.write_flat(tmp_path, made)
    data = config(name="folder", folder=str(tmp_path))
    assert opened(data).info.num_train == 24
    kept = tmp_path / ".mnet_listing.json"
    value = json.loads(kept.read_text())
    value["splits"]["train"][facts.WNIDS[0]].append("only_listed.JPEG")
    kept.write_text(json.dumps(value))
    assert opened(data).info.num_train == 25  # read from there
    (tmp_path / "train" / facts.WNIDS[0] / "new.JPEG").write_bytes(b"new")
    assert opened(data).info.num_train == 25  # read again
    assert "only_listed.JPEG" not in kept.read_text()


def test_folders_of_some_classes_stay_sets_of_their_own(made, tmp_path):
    imagenet_forms._write_files(tmp_path / "train", made["train"])
    imagenet_forms._write_files(tmp_path / "val", {name: ("n01440764", c) for name, (_, c) in made["train"].items()})
    assert forms.recognise(str(tmp_path)) is None
