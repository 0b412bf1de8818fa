"""What each data set is, and what is said when it, or a split of it, is missing."""

import dataclasses
import json
import subprocess
import sys

import pytest
from sample_sets import config, numbered, opened, write_set

from mnet_jax.data import catalog, tfds_set
from mnet_jax.data.annotations import Boxes
from mnet_jax.data.dataset import Dataset
from mnet_jax.data.imagenet_names import NAMES
from mnet_jax.data.pixel_map import PixelMap


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    write_set(root, "only_train", {"train": numbered(30)})
    write_set(root, "three_splits", {"train": numbered(5), "validation": numbered(4), "test": numbered(3)})
    write_set(root, "cifar100", {"train": numbered(5), "test": numbered(3)})
    return root


def describe(root, name, **fields):
    return opened(config(name=name, data_dir=str(root), **fields)).info


def test_default_splits(sets):
    def chosen(info):
        return info.train_split, info.num_train, info.eval_split, info.num_eval

    assert chosen(describe(sets, "three_splits")) == ("train", 5, "validation", 4)
    assert chosen(describe(sets, "cifar100")) == ("train", 5, "test", 3)
    assert chosen(describe(sets, "only_train")) == ("train[:90%]", 27, "train[90%:]", 3)
    slices = {"train_split": "train[:10]", "eval_split": "train[10:15]"}
    assert chosen(describe(sets, "only_train", **slices)) == ("train[:10]", 10, "train[10:15]", 5)


def test_half_chosen_splits_could_overlap(sets):
    for fields in ({"train_split": "train"}, {"eval_split": "train[:10%]"}):
        with pytest.raises(ValueError, match=r"set both data.train_split and data.eval_split, such as 'train\[:90%\]'"):
            describe(sets, "only_train", **fields)


def test_statistics_and_names(sets):
    info = describe(sets, "cifar100:1.0.0")
    assert info.mean == pytest.approx((129.3, 124.1, 112.4), abs=0.1)
    assert info.std == pytest.approx((68.2, 65.4, 70.4), abs=0.1)
    other = describe(sets, "three_splits")
    assert other.mean == pytest.approx((0.485 * 255, 0.456 * 255, 0.406 * 255))
    assert other.std == pytest.approx((0.229 * 255, 0.224 * 255, 0.225 * 255))
    assert other.class_names == tuple("0123456789")


def test_description_can_be_saved(sets):
    info = describe(sets, "three_splits")
    saved = json.loads(json.dumps(dataclasses.asdict(info)))
    assert catalog.DatasetInfo(**{k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}) == info


def test_imagenet_names_are_complete():
    assert len(NAMES) == len(set(NAMES.values())) == 1000
    assert list(NAMES) == sorted(NAMES)
    first, last = "n01440764", "n15075141"  # classes 0 and 999 of every published model
    assert (NAMES[first], NAMES[last]) == ("tench", "toilet tissue")
    assert (list(NAMES)[0], list(NAMES)[999]) == (first, last)
    assert list(NAMES.values())[281:286] == ["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagenet2012", "Register at https://image-net.org/download-images, put ILSVRC2012_img_train.tar and"),
        ("imagenet2012", "ILSVRC2012_img_val.tar into a directory .*, and type: mnet prepare --data imagenet2012"),
        ("imagenet2012", "--archives .* --out DIR$"),
        ("cifar10", "is not in DIR. To download and prepare it, type: mnet prepare --data cifar10 --data_dir DIR$"),
        ("imagenet_v2/matched-frequency", "imagenet_v2/matched-frequency is not in DIR. To download"),
        ("imagnet2012", "unknown data set 'imagnet2012': did you mean imagenet2012"),
        ("digit", "unknown data set 'digit': did you mean digits"),
        ("xyzzy", "unknown data set 'xyzzy': There are digits"),
    ],
)
def test_missing_set_says_what_to_type(tmp_path, name, message):
    with pytest.raises(ValueError, match=message.replace("DIR", str(tmp_path))) as error:
        describe(tmp_path, name)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())  # nothing was begun


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            "trian",
            r"no split 'trian': there are train \(5\), validation \(4\), test \(3\), and.*; did you mean 'train'",
        ),
        ("train[:x%]", "no split"),
        ("train[3:10]", "no split"),
        ("train+tests", "no split"),
        ("train[:0]", "nothing in split"),
    ],
)
def test_wrong_split_says_which_there_are(sets, split, message):
    for field in ("train_split", "eval_split"):
        with pytest.raises(ValueError, match=message) as error:
            describe(sets, "three_splits", **{field: split})
        assert "\n" not in str(error.value)


def test_set_without_image_and_label(tmp_path):
    import tensorflow_datasets as tfds

    write_set(tmp_path, "plain", {"train": numbered(3)})
    path = tmp_path / "plain" / "1.0.0" / "features.json"
    features = json.loads(path.read_text())
    features["featuresDict"]["features"]["class"] = features["featuresDict"]["features"].pop("label")
    path.write_text(json.dumps(features))
    assert "class" in tfds.builder_from_directory(path.parent).info.features
    with pytest.raises(
        ValueError, match=r"image \(Image\) and label \(ClassLabel\) expected, it has .*class \(ClassLabel\)"
    ):
        describe(tmp_path, "plain")


@pytest.mark.parametrize(
    ("annotation", "message", "folder"),
    [
        (
            Boxes(),
            r"and objects \(Sequence of bbox \(BBoxFeature\) and label \(ClassLabel\)\) expected, it has",
            "no boxes",
        ),
        (
            PixelMap(),
            r"image \(Image\) and segmentation_mask \(Image of one channel\) expected, it has",
            "no masks that can be read",
        ),
    ],
)
def test_set_without_the_annotation(sets, tmp_path, annotation, message, folder):
    with pytest.raises(ValueError, match=message):
        Dataset.open(config(name="three_splits", data_dir=str(sets)), {"it": annotation})
    with pytest.raises(ValueError, match=folder):
        Dataset.open(config(name="folder", folder=str(tmp_path)), {"it": annotation})


def test_what_the_config_says_later_changes_nothing(sets):
    data = config(name="three_splits", data_dir=str(sets))
    dataset = opened(data)
    data.image_size = 64
    assert dataset.fields(train=True)["image"].shape == (32, 32, 3)


def test_made_up_and_published():
    made = catalog.DatasetInfo.made_up(7)
    assert (made.num_classes, made.class_names, made.num_train, made.mean) == (
        7,
        tuple("0123456"),
        1281167,
        catalog.IMAGENET[0],
    )
    known = catalog.published(config(name="cifar100"))
    assert (known.num_classes, known.num_train, known.num_eval, known.eval_split) == (100, 50_000, 10_000, "test")
    assert known.std != catalog.IMAGENET[1]
    assert catalog.published(config(name="cifar100", eval_split="train")) is None
    assert catalog.published(config(name="digits")) is None


def test_data_dir(monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert tfds_set.data_dir(config()) == "/home/me/tensorflow_datasets"
    assert tfds_set.data_dir(config(data_dir="~/sets")) == "/home/me/sets"
    monkeypatch.setenv("TFDS_DATA_DIR", "gs://bucket/sets")
    assert tfds_set.data_dir(config()) == "gs://bucket/sets"
    assert tfds_set.data_dir(config(data_dir="gs://other/sets")) == "gs://other/sets"


def test_tensorflow_is_not_imported_early():
    code = (
        "import sys; from mnet_jax.data import annotations, batch, catalog, crop, dataset, manifest, order, pipeline, "
        "fixed_views; sys.exit('tensorflow' in sys.modules or 'tensorflow_datasets' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
