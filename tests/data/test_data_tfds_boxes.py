"""Boxes of TFDS's own sets: the features that voc and coco declare, and the real ones against their COCO JSON."""

import io
import json
import pathlib
import tarfile

import numpy as np
import pytest
from sample_sets import bbox, config, encode, picture, write_features

from mnet_jax.data import pipeline
from mnet_jax.data.annotations import Boxes
from mnet_jax.data.boxes import folder
from mnet_jax.data.dataset import Dataset


def declared(name):
    """The features that TFDS declares for a set, without the set."""
    import tensorflow_datasets as tfds

    return dict(tfds.builder(name, data_dir="/nowhere").info.features.items())


@pytest.mark.parametrize(
    ("name", "classes", "read"),
    [
        ("voc/2007", 20, {"bbox", "label", "is_difficult"}),
        ("voc/2012", 20, {"bbox", "label", "is_difficult"}),
        ("coco/2017", 80, {"bbox", "label", "is_crowd", "area"}),
    ],
)
def test_what_tfds_declares_is_read(name, classes, read):
    feature, kind = declared(name)["objects"], Boxes()
    assert kind.fits(feature)
    assert len(kind.class_names(feature)) == classes
    assert set(kind.record_features(feature)) == {f"objects/{part}" for part in read}


def test_difficult_objects_of_voc_are_ignored(tmp_path):
    features = declared("voc/2007")

    def examples():
        for i in range(4):
            one = {"bbox": bbox(2, 4, 20, 30, 40, 50), "label": 3 + i, "pose": "left", "is_truncated": True}
            objects = [one | {"is_difficult": n == 1} for n in range(i)]
            image = io.BytesIO(encode(picture(40, 50, seed=i), "JPEG"))
            yield {"image": image, "image/filename": "x", "objects": objects, "labels": [], "labels_no_difficult": []}

    write_features(tmp_path, "voc_like", features, {"train": examples, "validation": examples, "test": examples})
    data = config(name="voc_like", data_dir=str(tmp_path), eval_crop=1.0)
    dataset = Dataset.open(data, {"boxes": Boxes(most=3)})
    assert dataset.info.eval_split == "validation"
    [batch] = pipeline.eval_batches(dataset, batch_size=4)
    order = np.argsort(batch["boxes_mask"].sum(1))
    np.testing.assert_array_equal(batch["boxes_mask"][order], np.tri(4, 3, -1, bool))
    np.testing.assert_array_equal(batch["boxes_ignore"][order].sum(1), [0, 0, 1, 1])
    assert batch["boxes_class"][order].max(1).tolist() == [0, 4, 5, 6]
    np.testing.assert_allclose(batch["boxes"][order][3, 0], [2 * 0.8, 4 * 0.64, 20 * 0.8, 30 * 0.64], rtol=1e-5)
    np.testing.assert_allclose(batch["boxes_area"][order][3], [18 * 26] * 3, rtol=1e-5)


def test_cocos_json_is_read_as_tfds_has_it(real_data, tmp_path):
    """80 + 80 real images, against the JSON as prepare.py makes TFDS's coco/2017 of it: equal but for one rounding."""
    with tarfile.open(real_data / "coco_tiny.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    listing = folder.scan(str(tmp_path))
    assert listing.left_out == ()
    crowds = 0
    for split, name in (("train", "train2017"), ("val", "val2017")):
        content = json.loads(next(tmp_path.rglob(f"instances_{name}.json")).read_text())
        place = {category["id"]: at for at, category in enumerate(content["categories"])}
        assert listing.class_names == tuple(category["name"] for category in content["categories"])
        files = {pathlib.Path(file.path).name: file for file in listing.splits[split]}
        assert len(files) == 80
        for image in content["images"]:
            file, height, width = files[image["file_name"]], image["height"], image["width"]
            objects = [one for one in content["annotations"] if one["image_id"] == image["id"]]
            boxes = [
                (y / height, x / width, min((y + h) / height, 1.0), min((x + w) / width, 1.0))
                for x, y, w, h in (one["bbox"] for one in objects)
            ]
            np.testing.assert_allclose(np.reshape(file.boxes, (-1, 4)), np.reshape(boxes, (-1, 4)), rtol=0, atol=1e-15)
            assert list(file.classes) == [place[one["category_id"]] for one in objects]
            assert list(file.areas) == [one["area"] for one in objects]
            assert list(file.ignored) == [bool(one["iscrowd"]) for one in objects]
            crowds += sum(file.ignored)
    assert crowds == 17
