"""Any number of classes an image: tables, folders and sets of TFDS say the same; who is held out; what is refused."""

import itertools
import json

import numpy as np
import pytest
from sample_sets import bbox, config, encode, joined, objects_feature, picture, write_features

from mnet_jax.data import manifest, pipeline
from mnet_jax.data.dataset import Dataset
from mnet_jax.data.folder import held_out_bounds
from mnet_jax.data.label_set import LabelSet
from mnet_jax.data.labels.holdout import held_out

NAMES = ("ant", "bee", "wasp")
SETS = [{"ant"}, {"ant", "bee"}, set(), {"wasp", "bee"}, {"wasp"}, {"ant", "bee", "wasp"}]


def photo(shade):
    return encode(np.full((8, 8, 3), shade, np.uint8), "PNG")


def fill(root, count, folder="photos"):
    """Photos 0.png, 1.png ... of one shade each."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (root / folder / f"{i}.png").write_bytes(photo(i))


def opened(root, judged_by=(), **fields):
    return Dataset.open(config(name="folder", folder=str(root), **fields), {"labels": LabelSet()}, judged_by)


def found(dataset):
    """{shade of a photo: its classes} over all splits, from what batches hold."""
    result = {}
    for split in dataset.source.sizes:
        batches = list(pipeline.eval_batches(dataset, batch_size=4, split=split))
        real = joined(batches, "mask") > 0
        shades, rows = joined(batches, "image")[real][:, 0, 0, 0], joined(batches, "labels")[real]
        assert rows.dtype == np.uint8
        for shade, row in zip(shades.tolist(), rows, strict=True):
            assert shade not in result
            result[shade] = {dataset.info.class_names[i] for i in np.flatnonzero(row)}
    return result


# --- One set in all its forms ---


def repeated(sign=","):
    rows = [(f"photos/{i}.png", name) for i in range(30) for name in sorted(SETS[i % 6]) or [""]]
    return f"file{sign}label\n" + "".join(f"{file}{sign}{name}\n" for file, name in rows)


def in_cells(sign):
    rows = [(f"{i}.png", sign.join(sorted(SETS[i % 6]))) for i in range(30)]
    return "filename,tags\n" + "".join(f'{file},"{names}"\n' for file, names in rows)


def in_columns(yes="1", no="0"):
    rows = [(i, [yes if name in SETS[i % 6] else no for name in NAMES]) for i in range(30)]
    return "image_id,ant,bee,wasp\n" + "".join(f"{i},{','.join(row)}\n" for i, row in rows)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", repeated()),
        ("labels.csv", repeated().split("\n", 1)[1]),  # without a header
        ("what.csv", in_cells(";")),
        ("what.csv", "\ufeff" + in_cells("|").replace("\n", "\r\n")),
        ("what.csv", in_cells(", ")),
        ("list.tsv", repeated("\t")),
        ("list.csv", repeated(";")),
        ("_classes.csv", in_columns()),
        ("_classes.csv", in_columns("True", "False").replace("image_id,ant,bee,wasp", "image,ant , bee,wasp")),
    ],
)
def test_tables_in_every_form_say_the_same(tmp_path, name, text):
    fill(tmp_path, 30)
    (tmp_path / name).write_text(text, newline="")
    (tmp_path / "notes.csv").write_text("date,weather\nmonday,fine\n")  # something else
    dataset = opened(tmp_path)
    assert dataset.info.class_names == NAMES
    assert found(dataset) == {i: SETS[i % 6] for i in range(30)}


def test_a_table_elsewhere_and_one_for_each_split(tmp_path):
    fill(tmp_path, 12, "train")
    fill(tmp_path, 30, "all")
    for i in range(12):
        (tmp_path / "all" / f"{i}.png").unlink()
    (tmp_path / "train.csv").write_text("file,label\n" + "".join(f"{i}.png,{NAMES[i % 3]}\n" for i in range(12)))
    (tmp_path / "valid.csv").write_text("file,label\n" + "".join(f"{i}.png,{NAMES[i % 3]}\n" for i in range(12, 30)))
    dataset = opened(tmp_path)
    assert (dataset.info.num_train, dataset.info.eval_split, dataset.info.num_eval) == (12, "valid", 18)
    other = tmp_path.parent / "other.csv"
    rows = [f"all/{i}.png,{'test' if i < 20 else 'train'},ant|bee\n" for i in range(12, 30)]
    other.write_text("path,split,classes\n" + "".join(rows))
    dataset = opened(tmp_path, labels=str(other))
    assert (dataset.info.class_names, dataset.source.sizes) == (("ant", "bee"), {"train": 10, "test": 8})
    assert "in no row of" in dataset.complaint()


def test_the_same_photo_in_folders_of_several_classes_is_one_example(tmp_path):
    for i in range(30):
        for name in SETS[i % 6] or {"none"}:
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{name}{i}.png").write_bytes(photo(i))
    (tmp_path / "ant" / "copy.png").write_bytes(photo(1))  # in its own class once more
    (tmp_path / "none" / "wrong.png").write_bytes(photo(0))
    dataset = opened(tmp_path)
    assert dataset.info.class_names == NAMES
    assert found(dataset) == {i: SETS[i % 6] for i in range(1, 30)}
    why = {one.path.rsplit("/", 1)[1]: one.why for one in dataset.listing.left_out}
    assert set(why) == {"copy.png", "ant0.png", "wrong.png"} or set(why) == {"ant1.png", "ant0.png", "wrong.png"}
    assert why["wrong.png"] == "is in 'none' and in 'ant'"
    assert "15 photos lie in several classes; images in train + validation: ant" in dataset.complaint()


def test_boxes_say_which_classes_are_there(tmp_path):
    fill(tmp_path, 10, "train")
    objects = [(i, number) for i in range(10) for number in range(3) if NAMES[number] in SETS[i % 6] for _ in range(2)]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(10)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES)],
        "annotations": [{"image_id": i, "category_id": number, "bbox": [1, 1, 4, 4]} for i, number in objects],
    }
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    assert found(opened(tmp_path)) == {i: SETS[i % 6] for i in range(10)}


def test_sets_of_tfds(tmp_path):
    import tensorflow_datasets as tfds

    image = tfds.features.Image(encoding_format="png")
    labels = tfds.features.Sequence(tfds.features.ClassLabel(names=NAMES))

    def examples(feature):
        for i in range(12):
            there = sorted(SETS[i % 6])
            values = [{"bbox": bbox(1, 1, 4, 4, 8, 8), "label": name} for name in [*there, *there]]
            yield {"image": np.full((8, 8, 3), i, np.uint8), feature: there if feature == "labels" else values}

    for name, feature, kind in (("plain", "labels", labels), ("boxed", "objects", objects_feature(NAMES))):
        splits = {"train": lambda feature=feature: examples(feature)}
        write_features(tmp_path, name, {"image": image, feature: kind}, splits)
        fields = {"data_dir": str(tmp_path), "train_split": "train[:6]", "eval_split": "train[6:]"}
        dataset = Dataset.open(config(name=name, **fields), {"labels": LabelSet()})
        assert dataset.info.class_names == NAMES
        assert found(dataset) == {i: SETS[i % 6] for i in range(12)}
        parts = [dataset.values("labels", split) for split in ("train[:6]", "train[6:]")]
        assert np.concatenate(parts).sum(0).tolist() == [6, 6, 6]
    with pytest.raises(ValueError, match=r"digits cannot be used: .* labels \(Sequence of ClassLabel\) expected"):
        Dataset.open(config(name="digits", data_dir=str(tmp_path)), {"labels": LabelSet()})


# --- Holding out ---


@pytest.mark.parametrize("seed", range(4))
def test_of_each_class_some_are_held_out_and_some_stay(seed):
    rng = np.random.default_rng(seed)
    has = rng.random((400, 12)) < np.geomspace(0.01, 0.5, 12)
    draws = rng.random(400)
    held = held_out(draws, has)
    counts, out = has.sum(0), has[held].sum(0)
    bounds = [held_out_bounds(int(count)) for count in counts]
    assert all(low <= number <= high for number, (low, high) in zip(out, bounds, strict=True)), (counts, out)
    assert (held == (draws < 0.2)).mean() > 0.95
    more = held_out(np.append(draws, rng.random(40)), np.concatenate([has, rng.random((40, 12)) < 0.2]))
    assert (more[:400] == held).mean() > 0.98  # what was held out stays so when others come


def test_where_it_can_be_is_found_by_trying_all(tmp_path):
    """Of a dozen images the draws alone hold out nothing of a class; brute force says that it is possible."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        has, draws = rng.random((10, 2)) < 0.6, rng.random(10)
        bounds = [held_out_bounds(int(count)) for count in has.sum(0)]

        def fits(held, has=has, bounds=bounds):
            return all(low <= n <= high for n, (low, high) in zip(has[list(held)].sum(0), bounds, strict=True))

        possible = any(fits(held) for k in range(5) for held in itertools.combinations(range(10), k) if held)
        assert possible
        assert fits(np.flatnonzero(held_out(draws, has)))


def test_a_second_start_has_the_same_photos_and_refuses_other_classes(tmp_path):
    fill(tmp_path, 30)
    (tmp_path / "labels.csv").write_text(in_cells(";"))
    first = opened(tmp_path)
    manifest.write(str(tmp_path / "photos.csv"), first.listing.entries(str(tmp_path)))
    assert "photos/1.png,ant;bee," in (tmp_path / "photos.csv").read_text()
    fill(tmp_path, 40)
    (tmp_path / "labels.csv").write_text(in_cells(";") + "".join(f"{i}.png,ant\n" for i in range(30, 40)))
    again = opened(tmp_path, manifest=str(tmp_path / "photos.csv"))
    assert again.source.sizes == first.source.sizes
    assert len(again.listing.newcomers) == 10
    (tmp_path / "labels.csv").write_text(in_cells(";").replace('1.png,"ant;bee"', '1.png,"ant"', 1))
    with pytest.raises(ValueError, match=r"1 of the 30 images in .* have other classes now: photos/1.png \(ant\)"):
        opened(tmp_path, manifest=str(tmp_path / "photos.csv"))


def test_a_folder_to_be_judged_has_the_models_classes(tmp_path):
    fill(tmp_path, 6)
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{'Bee' if i else ''}\n" for i in range(6)))
    dataset = opened(tmp_path, NAMES)
    assert (dataset.info.num_eval, dataset.info.eval_split, dataset.info.class_names) == (6, "all", NAMES)
    assert found(dataset) == {i: {"bee"} if i else set() for i in range(6)}
    said = dataset.complaint()
    assert "classes are compared by name: 'Bee' is 'bee'; no photos of 2 of the model's 3 classes: ant, wasp" in said
    (tmp_path / "labels.csv").write_text("file,label\n0.png,hornet\n")
    with pytest.raises(ValueError, match="has a class that the model does not know: hornet; it knows 3"):
        opened(tmp_path, NAMES)


# --- What is wrong ---


@pytest.mark.parametrize(
    ("rows", "file", "why"),
    [
        ("missing.png,ant", "missing.png", "line 32: no such image: missing.png"),
        ("../0.png/../../secret.png,ant", "secret.png", "line 32: no such image"),
        ("3.png,anr", "3.png", "line 32: unknown class 'anr'. Did you mean 'ant'? classes.txt has the classes"),
        ("0.png,ant", "0.png", "line 32: 'ant' again, as in labels.csv, line 2"),
        ("2.png,", "2.png", "line 32: no class again, as in labels.csv, line 4"),
        ("2.png,ant", "2.png", "line 4: no class, and 'ant' in labels.csv, line 32"),
        (",ant", "line 32", "line 32: no image named"),
        ("3.png,ant,bee", "3.png", "line 32: 3 cells, 2 expected: several classes are `ant;bee`"),
        ("3.png", "3.png", "line 32: 1 cells, 2 expected"),
    ],
)
def test_what_is_wrong_with_a_row_is_told_by_file_and_line(tmp_path, rows, file, why):
    fill(tmp_path, 30)
    (tmp_path / "labels.csv").write_text(in_cells(";") + rows + "\n")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    dataset = opened(tmp_path)
    (only,) = dataset.listing.left_out
    assert only.path.endswith(file)
    assert why in only.why
    assert only.why.startswith("labels.csv, line")
    assert why.split(":")[0] in dataset.complaint()
    used = "again" in why or file in ("missing.png", "secret.png", "line 32")
    assert sum(dataset.source.sizes.values()) == (30 if used else 29)


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"labels.csv": "photo name,x\n0.png,ant\n"}, "line 1: the first column is 'photo name'; it must be the image"),
        ({"labels.csv": "file\n0.png\n"}, "line 1: a column `label`, or a column of 0 and 1 for each class, expected"),
        ({"labels.csv": "file,ant,ant\n0.png,1,0\n"}, "line 1: two columns are called 'ant'"),
        ({"labels.csv": ""}, "has no rows; `file,label` and then a row for each image expected"),
        ({"labels.csv": b"\xff\xfe\x00f"}, "is no text in UTF-8"),
        ({"labels.csv": "file,ant,bee\n0.png,1,2\n1.png,1,x\n"}, "2 of 2 rows cannot be understood, such as line 2: "),
        ({"labels.csv": "file,label\n0.png,Ant\n1.png,ant\n"}, "has the classes 'Ant' and 'ant'|'ant' and 'Ant'"),
        ({"labels.csv": "file,label\n0.png,\n1.png,\n"}, "no image has a class, of 2 in labels.csv"),
        ({"a.csv": "file,label\n0.png,ant\n", "b.csv": "file,label\n1.png,ant\n"}, "has 2 tables of images, a.csv, b"),
        (
            {"train.csv": "file,ant,bee\n0.png,1,0\n", "val.csv": "file,ant,wasp\n1.png,1,0\n"},
            "train.csv and val.csv have other columns: the same classes expected",
        ),
        (
            {"labels.csv": "file,split,label\n0.png,dev,ant\n1.png,dev,a\n2.png,x,a\n"},
            "split 'dev': train, val or test",
        ),
        (
            {"labels.csv": "file,label\n" + "".join(f"{i}.png,ant\n" for i in range(9))},
            "all 9 images have the only class",
        ),
        ({"labels.csv": "file,label\n0.png,ant\n1.png,bee\n"}, "has too few images to hold some out for evaluation"),
        ({"classes.txt": "ant\nant\n", "labels.csv": "file,label\n0.png,ant\n"}, "has a class twice"),
        ({}, "expected"),
    ],
)
def test_what_is_no_such_folder_is_refused_in_one_line(tmp_path, files, line):
    fill(tmp_path, 9, "none")  # a folder of photos without classes
    for name, text in files.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=line) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)


def test_a_table_that_is_not_there_is_named(tmp_path):
    fill(tmp_path, 3)
    (tmp_path / "labels.csv").write_text(in_cells(";"))
    with pytest.raises(ValueError, match=r"data.labels='label.csv': no such file.* Did you mean 'labels.csv'\?"):
        opened(tmp_path, labels="label.csv")


def test_copies_with_other_classes_are_not_used(tmp_path):
    fill(tmp_path, 30)
    (tmp_path / "photos" / "same.png").write_bytes(photo(0))
    (tmp_path / "photos" / "other.png").write_bytes(photo(3))
    (tmp_path / "labels.csv").write_text(in_cells(";") + "same.png,ant\nother.png,ant\n")
    dataset = opened(tmp_path)
    why = {one.path.rsplit("/", 1)[1]: one.why for one in dataset.listing.left_out}
    assert why["3.png"] == "the same image has other classes: photos/other.png"
    assert set(why) >= {"3.png", "other.png"}
    assert "copy of" in (why.get("same.png") or why["0.png"])


def test_a_picture_that_is_none_is_left_out(tmp_path):
    fill(tmp_path, 30)
    (tmp_path / "photos" / "4.png").write_bytes(encode(picture(9, 9), "PNG")[:60])
    (tmp_path / "labels.csv").write_text(in_cells(";"))
    (only,) = opened(tmp_path).listing.left_out
    assert only.why == "damaged PNG"
