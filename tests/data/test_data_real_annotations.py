"""Real boxes and masks through real TFDS sets: COCO, blood cells (degenerate boxes) and street scenes."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image
from sample_sets import bbox, config, objects_feature, write_features

from mnet_jax.data import pipeline
from mnet_jax.data.annotations import Boxes
from mnet_jax.data.crop import Crop
from mnet_jax.data.dataset import Dataset
from mnet_jax.data.pixel_map import PixelMap

CELLS = ("RBC", "WBC", "Platelets")


def in_the_picture(batches, image_size):
    """[(boxes in pixels of the picture, classes, areas, ignored, (height, width), index)] of all examples."""
    for batch in batches:
        back = Crop.from_rows(batch["crop"], image_size).boxes_to_picture(batch["boxes"])
        for row in np.flatnonzero(batch["mask"]):
            slots = batch["boxes_mask"][row]
            parts = (batch[f"boxes_{part}"][row][slots] for part in ("class", "area", "ignore"))
            yield back[row][slots], *parts, tuple(batch["crop"][row, 9:]), int(batch["index"][row])


def test_coco_comes_back_as_it_was_annotated(annotated_photos):
    """Boxes of COCO's JSON, through TFDS, the evaluation's resizing and back; none is lost."""
    known = json.loads(next((annotated_photos / "coco_tiny" / "annotations").glob("*val2017.json")).read_text())
    numbers = {one["id"]: i for i, one in enumerate(known["categories"])}
    wanted = {}
    for image in known["images"]:
        rows = [
            (np.array([y, x, y + h, x + w]), numbers[one["category_id"]], one["area"], bool(one["iscrowd"]))
            for one in known["annotations"]
            if one["image_id"] == image["id"]
            for x, y, w, h in [one["bbox"]]
            if w > 0 and h > 0
        ]
        wanted.setdefault((image["height"], image["width"], len(rows)), []).append(rows)
    data = config(name="coco/2017", data_dir=str(annotated_photos / "tfds"), image_size=(96, 128), eval_crop=1.0)
    dataset = Dataset.open(data, {"boxes": Boxes()})
    assert dataset.info.class_names[:3] == ("person", "bicycle", "car")
    assert len(dataset.info.class_names) == 80
    count = 0
    for boxes, classes, areas, ignored, size, _ in in_the_picture(
        pipeline.eval_batches(dataset, batch_size=16), (96, 128)
    ):
        for rows in wanted[(*size, len(boxes))]:
            if np.allclose(boxes, [row[0] for row in rows], atol=0.05):
                assert classes.tolist() == [row[1] for row in rows]
                assert areas.tolist() == [int(row[2]) for row in rows]
                assert ignored.tolist() == [row[3] for row in rows]
                count += 1
    assert count == len(known["images"]) == 80


def cells(folder, names):
    for name in names:
        tree = ElementTree.parse(folder / "Annotations" / f"{name}.xml")
        with Image.open(folder / "JPEGImages" / f"{name}.jpg") as image:
            width, height = image.size
        objects = []
        for one in tree.iter("object"):
            x1, y1, x2, y2 = (int(one.find(f"bndbox/{side}").text) for side in ("xmin", "ymin", "xmax", "ymax"))
            objects.append({"bbox": bbox(y1, x1, y2, x2, height, width), "label": CELLS.index(one.find("name").text)})
        yield {"image": folder / "JPEGImages" / f"{name}.jpg", "objects": objects}


def test_degenerate_boxes_go_and_all_others_stay(annotated_photos, tmp_path):
    import tensorflow_datasets as tfds

    folder = annotated_photos / "bccd"
    names = ["BloodImage_00338", "BloodImage_00343", "BloodImage_00000", "BloodImage_00001"]
    features = {"image": tfds.features.Image(encoding_format="jpeg"), "objects": objects_feature(CELLS)}
    write_features(tmp_path, "cells", features, {"test": lambda: cells(folder, names)})
    data = config(name="cells", data_dir=str(tmp_path), train_split="test", image_size=320, eval_crop=1.0)
    dataset = Dataset.open(data, {"boxes": Boxes()})
    assert dataset.info.class_names == CELLS
    total = sum(len(one["objects"]) for one in cells(folder, names))
    assert len(dataset.values("boxes_class", "test")) == total
    found = list(in_the_picture(pipeline.eval_batches(dataset, batch_size=4), (320, 320)))
    assert sum(len(boxes) for boxes, *_ in found) == total - 2
    for boxes, _, areas, ignored, size, _ in found:
        assert (boxes >= -1e-3).all()
        assert (boxes <= [*size, *size] + np.float32(1e-3)).all()
        np.testing.assert_allclose((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), areas, rtol=1e-3)
        assert not ignored.any()


@pytest.mark.parametrize("image_size", [(360, 480), (90, 120)])
def test_street_scenes_keep_their_masks(annotated_photos, tmp_path, image_size):
    """At the picture's size a mask is that of the file; smaller, the nearest pixels of it."""
    import tensorflow_datasets as tfds

    folder = annotated_photos / "camvid"
    names = sorted(path.stem for path in (folder / "masks").glob("*.png"))[:6]
    masks = {name: np.asarray(Image.open(folder / "masks" / f"{name}.png")) for name in names}
    classes = (folder / "classes.txt").read_text().split()
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "segmentation_mask": tfds.features.LabeledImage(labels=classes, shape=(None, None, 1)),
    }
    write_features(
        tmp_path,
        "streets",
        features,
        {
            "test": lambda: (
                {"image": folder / "images" / f"{name}.jpg", "segmentation_mask": masks[name][..., None]}
                for name in names
            )
        },
    )
    data = config(name="streets", data_dir=str(tmp_path), train_split="test", image_size=image_size, eval_crop=1.0)
    dataset = Dataset.open(data, {"map": PixelMap(ignore=11)})
    assert dataset.info.class_names[0] == "sky"
    [batch] = pipeline.eval_batches(dataset, batch_size=6)
    step = 360 // image_size[0]
    wanted = {mask[step // 2 :: step, step // 2 :: step].tobytes() for mask in masks.values()}
    assert {one.tobytes() for one in batch["map"]} == wanted
