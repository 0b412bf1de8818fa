"""Folders with boxes: layouts of the three formats, the same batches from each, splits, and what is wrong by file."""

import json
import shutil

import numpy as np
import pytest
from box_folders import (
    NAMES,
    WRITERS,
    coco_content,
    pictures,
    put,
    voc_text,
    write_coco,
    write_voc,
    write_yolo,
    yolo_text,
)
from sample_sets import config, encode, picture

from mnet_jax.data import manifest, pipeline
from mnet_jax.data.annotations import Boxes, Label
from mnet_jax.data.boxes import folder
from mnet_jax.data.dataset import Dataset
from mnet_jax.data.folder import LeftOut
from mnet_jax.data.layout import split_of

SPLITS = {"train": pictures(9), "val": pictures(4, first=9)}


def wanted(images):
    """Class, and box in pixels, of every object by image."""
    return {name: [(NAMES.index(kind), *box) for kind, *box in objects] for name, (*_, objects) in images.items()}


def listed(listing, split):
    """The same of a listing."""
    found = {}
    for file in listing.splits[split]:
        name = file.path.rpartition("/")[2]
        *_, height, width, _ = (None, *{**SPLITS["train"], **SPLITS["val"]}[name])
        boxes = [(x1 * width, y1 * height, x2 * width, y2 * height) for y1, x1, y2, x2 in file.boxes]
        found[name] = [(number, *box) for number, box in zip(file.classes, boxes, strict=True)]
    return found


def assert_objects(found, right):
    assert found.keys() == right.keys()
    for name in right:
        np.testing.assert_allclose(np.reshape(found[name], (-1, 5)), np.reshape(right[name], (-1, 5)), atol=1e-4)


def flat(root, splits):
    """One COCO file for all images, in a folder beside theirs."""
    everything = {name: image for images in splits.values() for name, image in images.items()}
    put(root / "annotations" / "instances_default.json", json.dumps(coco_content(everything)))
    for name, (file, *_) in everything.items():
        put(root / "images" / name, file)


def official(root, splits):
    """As COCO itself: annotations/instances_train2017.json, captions beside it, and train2017/."""
    for split, images in splits.items():
        put(root / "annotations" / f"instances_{split}2017.json", json.dumps(coco_content(images)))
        put(root / "annotations" / f"captions_{split}2017.json", json.dumps(coco_content(images) | {"categories": 0}))
        for name, (file, *_) in images.items():
            put(root / f"{split}2017" / name, file)


def roboflow_voc(root, splits):
    """train/ and val/ with an .xml beside each image."""
    for split, images in splits.items():
        for name, (file, *rest) in images.items():
            put(root / split / name, file)
            put(root / split / f"{name[:-4]}.xml", voc_text("another.png", *rest))


def roboflow_yolo(root, splits):
    """train/images and train/labels, and a data.yaml whose paths lead elsewhere."""
    put(root / "data.yaml", "train: ../train/images\nval: ../val/images\nnames:\n  0: ant\n  1: bee\n  2: cat\n")
    for split, images in splits.items():
        for name, (file, height, width, objects) in images.items():
            put(root / split / "images" / name, file)
            put(root / split / "labels" / f"{name[:-4]}.txt", yolo_text(height, width, objects))


def labelimg_yolo(root, splits):
    """Everything in one folder, with classes.txt."""
    put(root / "classes.txt", "\n".join(NAMES))
    for images in splits.values():
        for name, (file, height, width, objects) in images.items():
            put(root / name, file)
            put(root / f"{name[:-4]}.txt", yolo_text(height, width, objects))


LAYOUTS = [write_coco, official, write_voc, roboflow_voc, write_yolo, roboflow_yolo]


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_layouts_with_splits(tmp_path, write):
    write(tmp_path, SPLITS)
    listing = folder.scan(str(tmp_path))
    assert listing.class_names == NAMES
    assert listing.left_out == ()
    for split, images in SPLITS.items():
        assert_objects(listed(listing, split), wanted(images))


@pytest.mark.parametrize("write", [flat, labelimg_yolo], ids=lambda write: write.__name__)
def test_layouts_that_are_split_by_content(tmp_path, write):
    write(tmp_path, SPLITS)
    listing = folder.scan(str(tmp_path))
    assert list(listing.splits) == ["train", "validation"]
    found = listed(listing, "train") | listed(listing, "validation")
    assert_objects(found, wanted(SPLITS["train"]) | wanted(SPLITS["val"]))
    assert {number for rows in listed(listing, "train").values() for number, *_ in rows} == {0, 1, 2}


def test_the_split_by_content_stays_when_images_come_and_is_kept_by_a_manifest(tmp_path):
    write_old = {"": pictures(30)}
    labelimg_yolo(tmp_path, write_old)
    first = folder.scan(str(tmp_path))
    manifest.write(str(tmp_path / "photos.csv"), first.entries(str(tmp_path)))
    rows = (tmp_path / "photos.csv").read_text().splitlines()
    assert any(',"ant 1, bee 1, cat 1",' in row for row in rows)
    labelimg_yolo(tmp_path, {"": pictures(20, first=30)})
    second = folder.scan(str(tmp_path), split_from=str(tmp_path / "photos.csv"))
    for split in ("train", "validation"):
        old = {file.path for file in first.splits[split]}
        assert old <= {file.path for file in second.splits[split]}
    again = folder.scan(str(tmp_path), str(tmp_path / "photos.csv"))
    assert again.splits == first.splits
    assert len(again.newcomers) == 20
    put(tmp_path / "001.txt", "0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.2 0.2\n")
    with pytest.raises(ValueError, match=r"1 of the 30 images in .*photos.csv have other objects now: 001.jpg"):
        folder.scan(str(tmp_path), str(tmp_path / "photos.csv"))


def test_the_same_batches_from_all_formats(tmp_path):
    """COCO and VOC bit for bit; YOLO's text, rounded to six digits, to 2e-6 of the sides."""
    batches = {}
    for kind, write in WRITERS.items():
        write(tmp_path / kind, SPLITS)
        data = config(name="folder", folder=str(tmp_path / kind), crop="center", eval_crop=1.0)
        dataset = Dataset.open(data, {"boxes": Boxes(most=4)})
        assert dataset.info.class_names == NAMES
        assert len(dataset.values("boxes_class", "train")) == sum(len(image[3]) for image in SPLITS["train"].values())
        train = pipeline.train_batches(dataset, batch_size=4, seed=0, start_step=0)
        batches[kind] = [next(train), next(train), *pipeline.eval_batches(dataset, batch_size=4)]
    for one, other, text in zip(*(batches[kind] for kind in ("coco", "voc", "yolo")), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
            if name in ("boxes", "boxes_area"):
                scale = 32 if name == "boxes" else 90 * 70
                np.testing.assert_allclose(one[name], text[name], atol=2e-6 * scale, rtol=1e-6)
            else:
                np.testing.assert_array_equal(one[name], text[name], err_msg=name)


def test_splits_can_be_joined(tmp_path):
    write_voc(tmp_path, SPLITS | {"test": pictures(3, first=20)})
    data = config(name="folder", folder=str(tmp_path), train_split="train+val", eval_split="test")
    info = Dataset.open(data, {"boxes": Boxes()}).info
    assert (info.num_train, info.num_eval) == (13, 3)
    for wrong in ("train+vla", "train+train"):
        with pytest.raises(ValueError, match=r"no split .*: there are train \(9\), val \(4\), test \(3\)"):
            Dataset.open(config(name="folder", folder=str(tmp_path), train_split=wrong), {"boxes": Boxes()})


def test_trainval_is_for_training_where_there_is_no_train(tmp_path):
    write_voc(tmp_path, {"trainval": SPLITS["train"], "test": SPLITS["val"]})
    assert {split: len(files) for split, files in folder.scan(str(tmp_path)).splits.items()} == {"train": 9, "test": 4}


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("annotations/instances_train2017.json", "train"),
        ("valid/_annotations.coco.json", "valid"),
        ("train/val.json", "val"),
        ("test-2.json", "test"),
        ("Train/images/a.jpg", "train"),
        ("trains/latest.json", ""),
        ("training.json", "train"),
        ("TESTING/a.jpg", "test"),
        ("seg_train/seg_train/a.jpg", "train"),
        ("trained.json", ""),
        ("constraint_values.json", ""),
    ],
)
def test_splits_in_names(path, split):
    assert split_of(path) == split


def test_crowds_difficult_ones_areas_and_polygons(tmp_path):
    content = coco_content(SPLITS["train"])
    content["annotations"][1] |= {"iscrowd": 1, "area": 12.5, "segmentation": {"counts": [1, 2], "size": [3, 4]}}
    del content["annotations"][2]["area"]
    write_coco(tmp_path / "coco", SPLITS)
    put(tmp_path / "coco" / "train" / "_annotations.coco.json", json.dumps(content))
    files = folder.scan(str(tmp_path / "coco")).splits["train"]
    assert [file.ignored for file in files[:3]] == [(), (False,), (True, False)]
    assert files[2].areas == (12.5, (37 - 4) * (41 - 6))
    write_voc(tmp_path / "voc", SPLITS)
    xml = tmp_path / "voc" / "Annotations" / "001.xml"
    xml.write_text(xml.read_text().replace("<difficult>0", "<difficult>1"))
    assert folder.scan(str(tmp_path / "voc")).splits["train"][1].ignored == (True,)
    write_yolo(tmp_path / "yolo", SPLITS)
    put(tmp_path / "yolo" / "labels" / "train" / "001.txt", "2 0.1 0.2 0.5 0.3 0.4 0.6\n")
    file = folder.scan(str(tmp_path / "yolo")).splits["train"][1]
    np.testing.assert_allclose(file.boxes, [(0.2, 0.1, 0.6, 0.5)])


def test_roboflows_category_of_categories_is_no_class(tmp_path):
    write_coco(tmp_path, SPLITS)
    for split, images in SPLITS.items():
        content = coco_content(images)
        content["categories"] = [{"id": 0, "name": "animals", "supercategory": "none"}] + [
            one | {"supercategory": "animals"} for one in content["categories"]
        ]
        put(tmp_path / split / "_annotations.coco.json", json.dumps(content))
    assert folder.scan(str(tmp_path)).class_names == NAMES


# --- What is wrong ---


def edited(root, write):
    """What changes one file of a folder that `write` has written: path, old text, new text."""
    write(root, SPLITS)

    def edit(file, old, new):
        text = (root / file).read_text()
        assert old in text, text
        (root / file).write_text(text.replace(old, new, 1))

    return edit


COCO, XML, TXT = "train/_annotations.coco.json", "Annotations/002.xml", "labels/train/002.txt"
FIRST = '"bbox": [3, 5, 27, 35]'  # of image 001.jpg, 60 x 80 and one more each
BAD_COCO = [  # old text, new text, file, why, whether the image is left out
    ('"file_name": "001.jpg"', '"file_name": "lost.jpg"', "lost.jpg", "missing, named in train/_annotations", True),
    ('"file_name": "001.jpg"', '"name": "001.jpg"', COCO, "images[1] has no id or no file_name", True),
    ('"category_id": 6', '"category_id": 77', "train/001.jpg", "annotation 0: no category has the id 77", True),
    (FIRST, '"bbox": [3, "x", 27, 36]', "train/001.jpg", "annotation 0: bbox [3, 'x', 27, 36] is not four num", True),
    (FIRST, '"bbox": [3, 5, 27]', "train/001.jpg", "annotation 0: bbox [3, 5, 27] is not four numbers", True),
    (FIRST, '"bbox": [3, 5, NaN, 36]', "train/001.jpg", "is not four numbers", True),
    (FIRST, '"bbox": [3, 5, -27, 36]', "train/001.jpg", "the sides of its box are negative: (3, 5, -24, 41)", True),
    (FIRST, '"bbox": [3, 5, 0, 36]', "train/001.jpg", "a box without height or width: (3, 5, 3, 41)", False),
    (FIRST, '"bbox": [300, 5, 27, 36]', "train/001.jpg", "annotation 0: a box outside the picture: (300, 5", False),
    ('"id": 101', '"id": 100', "train/001.jpg", "has several images with the id 100", True),
    ('"image_id": 101', '"image_id": 999', COCO, "annotation 0: no image has the id '999'", False),
    ('"height": 61', '"height": 122', "train/001.jpg", "is about 81 x 122 pixels, the picture has 81 x 61: was", True),
]


@pytest.mark.parametrize(("old", "new", "file", "why", "gone"), BAD_COCO, ids=[row[3][:30] for row in BAD_COCO])
def test_what_is_wrong_in_coco_is_told_by_file(tmp_path, old, new, file, why, gone):
    edited(tmp_path, write_coco)(COCO, old, new)
    check_told(tmp_path, file, why.replace("'999'", "999"), "001.jpg" if gone else None)


def check_told(root, file, why, gone):
    listing = folder.scan(str(root))
    told = [one for one in listing.left_out if one.path == str(root / file) and why in one.why]
    assert told, listing.left_out
    assert all("\n" not in one.why for one in listing.left_out)
    there = {one.path.rpartition("/")[2] for one in listing.splits["train"]}
    assert (gone not in there) if gone else len(there) == 9
    assert listing.complaint(str(root)).startswith(f"{root}: left out ")


BAD_VOC = [
    ("<name>cat</name>", "", "object 1 has no name", True),
    ("<xmin>3</xmin>", "<xmin>three</xmin>", "object 1: xmin='three', ymin='6', xmax='30', ymax='40': four num", True),
    ("<xmin>3</xmin>", "", "object 1: xmin=''", True),
    ("<bndbox>", "<robndbox>", "is no XML (mismatched tag", True),
    ("<xmax>30</xmax>", "<xmax>1</xmax>", "object 1: the sides of its box are negative", True),
    ("<xmax>30</xmax>", "<xmax>3</xmax>", "object 1: a box without height or width", False),
    ("</annotation>", "", "is no XML (no element found", True),
    ("<annotation>", '<!DOCTYPE a [<!ENTITY x "y">]><annotation>', "has a document type (<!DOCTYPE ...>)", True),
    ("<annotation>", "<annotation>" + "<a>" * 40, "has elements more than 32 deep", True),
    ("<width>82</width>", "<width>80</width>", "is about 80 x 62 pixels, the picture has 82 x 62", True),
]


@pytest.mark.parametrize(("old", "new", "why", "gone"), BAD_VOC, ids=[row[2][:30] for row in BAD_VOC])
def test_what_is_wrong_in_voc_is_told_by_file(tmp_path, old, new, why, gone):
    edited(tmp_path, write_voc)(XML, old, new)
    broken = why.startswith(("is no XML", "has a document", "has elements"))
    check_told(tmp_path, XML if broken else "JPEGImages/002.jpg", why, "002.jpg" if gone else None)


LINE = "2 0.201220 0.370968 0.329268 0.548387"
BAD_YOLO = [
    (LINE, "7 0.2 0.4 0.3 0.5", "line 1: class 7: 0 .. 2 expected", True),
    (LINE, "cat 0.2 0.4 0.3 0.5", "line 1: 'cat 0.2 0.4 0.3 0.5' is not all numbers", True),
    (LINE, "1.5 0.2 0.4 0.3 0.5", "line 1: class 1.5: 0 .. 2 expected", True),
    (LINE, "2 0.2 0.4 0.3", "line 1 has 4 numbers: 5 expected, or the corners of a polygon", True),
    (LINE, "2 0.2 0.4 inf 0.5", "is not all numbers", True),
    (LINE, "2 0.2 0.4 -0.3 0.5", "line 1: the sides of its box are negative", True),
    (LINE, "2 0.2 0.4 0.3 0", "line 1: a box without height or width", False),
    (LINE, "2 200 0.4 0.3 0.5", "line 1: a box outside the picture", False),
    (LINE, f"{LINE}\n{LINE}", "line 2: the same class and box again", False),
]


@pytest.mark.parametrize(("old", "new", "why", "gone"), BAD_YOLO, ids=[row[2][:30] for row in BAD_YOLO])
def test_what_is_wrong_in_yolo_is_told_by_file(tmp_path, old, new, why, gone):
    edited(tmp_path, write_yolo)(TXT, old, new)
    check_told(tmp_path, "images/train/002.jpg", why, "002.jpg" if gone else None)


def test_images_that_are_none_copies_and_images_without_labels(tmp_path):
    write_voc(tmp_path, SPLITS)
    put(tmp_path / "JPEGImages" / "new.png", encode(picture(9, 9), "PNG"))
    put(tmp_path / "SegmentationClass" / "000.png", encode(picture(9, 9, seed=2), "PNG"))  # no business of ours
    put(tmp_path / "JPEGImages" / "003.jpg", b"nothing")
    shutil.copy(tmp_path / "JPEGImages" / "009.jpg", tmp_path / "JPEGImages" / "004.jpg")  # of val
    put(tmp_path / "Annotations" / "other.xml", voc_text("lost.jpg", 9, 9, []))
    *_, height, width, _ = (None, *SPLITS["val"]["009.jpg"])
    put(tmp_path / "Annotations" / "004.xml", voc_text("x", height, width, SPLITS["val"]["009.jpg"][3]))
    listing = folder.scan(str(tmp_path))
    assert {one.path.removeprefix(f"{tmp_path}/"): one.why for one in listing.left_out} == {
        "Annotations/other.xml": "no such image: lost.jpg",
        "JPEGImages/003.jpg": "not an image",
        "JPEGImages/004.jpg": "copy of JPEGImages/009.jpg",
        "JPEGImages/new.png": "no XML file of this name; one without objects makes it a negative example",
    }
    assert listing.complaint(str(tmp_path)).startswith(f"{tmp_path}: left out 4 files: Annotations/other.xml (no such")
    write_yolo(tmp_path / "yolo", SPLITS)
    assert "4 images have no label file and count as" in folder.scan(str(tmp_path / "yolo")).complaint("")
    assert sum(not file.classes for file in folder.scan(str(tmp_path / "yolo")).splits["train"]) == 3
    put(tmp_path / "yolo" / "masks" / "000.png", encode(picture(9, 9, seed=2), "PNG"))
    [one] = folder.scan(str(tmp_path / "yolo")).left_out
    assert one == LeftOut(str(tmp_path / "yolo" / "masks" / "000.png"), "no image of its folder has a label file")


def test_a_box_that_reaches_beyond_is_cut_off(tmp_path):
    edited(tmp_path, write_coco)(COCO, FIRST, '"bbox": [-10, 5, 27, 356]')
    listing = folder.scan(str(tmp_path))
    assert listing.left_out == ()
    assert listing.complaint("x") == "x: 1 boxes reach beyond their pictures and are cut off there"
    np.testing.assert_allclose(listing.splits["train"][1].boxes, [(5 / 61, 0, 1, 17 / 81)])


def remove(*names):
    return lambda root: [(root / name).unlink() for name in names]


def write(name, text):
    return lambda root: put(root / name, text)


def rescaled(factor):
    def change(root):
        for split in SPLITS:
            content = json.loads((root / split / "_annotations.coco.json").read_text())
            for one in content["annotations"]:
                one["bbox"] = [v * factor for v in one["bbox"]]
            put(root / split / "_annotations.coco.json", json.dumps(content))

    return change


WRONG = [
    (write_coco, write(COCO, '{"images": [], "annotations": ['), r"_annotations.coco.json is no JSON \(Expecting"),
    (write_coco, write(COCO, '{"images": 3, "annotations": []}'), "has no list 'images': COCO has images, annot"),
    (write_coco, write(COCO, "[" * 200000 + '"images""annotations"'), "COCO file expected"),
    (write_coco, write("train/more.json", json.dumps(coco_content({}))), "are both for 'train': keep one"),
    (write_coco, rescaled(0.001), r"all are within one pixel, such as train/_annotations.coco.json, annotation 0. In"),
    (write_coco, rescaled(2), r"the boxes make no sense: \d+ of \d+ reach beyond their pictures, .* bbox must be \[x"),
    (write_coco, write("000.xml", voc_text("000.jpg", 60, 80, [])), "has labels as COCO JSON .* and Pascal VOC XML"),
    (write_coco, remove(COCO), "has images in val and none in 'train'"),
    (write_voc, write("ImageSets/Main/val.txt", "000\n"), "000 is in train.txt too: an image has one split"),
    (write_voc, write("classes.txt", "ant\nbee\n"), "classes.txt lacks classes that objects have: cat: add them"),
    (write_yolo, remove("data.yaml"), "has YOLO labels and no names of classes: write them into .*classes.txt"),
    (write_yolo, write("data.yaml", "names: [ant"), "data.yaml is no YAML"),
    (write_yolo, write("data.yaml", "names: &a [x]\nmore: *a\n"), "data.yaml has aliases"),
    (write_yolo, write("data.yaml", "nc: 4\nnames: [ant, bee, cat]"), "nc is 4 and there are 3 names"),
    (write_yolo, write("data.yaml", "names: {1: ant, 2: bee}"), "names must have the numbers 0 .. 1, each once"),
    (write_yolo, write("data.yaml", "names: [ant, ant, bee]"), "the class 'ant' is there twice"),
    (write_yolo, write("data.yaml", "names: !!python/object/apply:os.system [ls]"), "data.yaml is no YAML"),
]


@pytest.mark.parametrize(("start", "change", "message"), WRONG, ids=[row[2][:40] for row in WRONG])
def test_what_makes_no_set_is_one_line(tmp_path, start, change, message):
    start(tmp_path, SPLITS)
    change(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        folder.scan(str(tmp_path))
    assert "\n" not in str(error.value)


def test_what_has_no_boxes(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        folder.scan(str(tmp_path / "nothing"))
    put(tmp_path / "a" / "1.jpg", encode(picture(9, 9), "JPEG"))
    with pytest.raises(ValueError, match=r"has 1 images and no boxes that can be read: COCO JSON .*docs/detection.md"):
        folder.scan(str(tmp_path))
    put(tmp_path / "a" / "1.txt", "\n")
    put(tmp_path / "a" / "classes.txt", "ant\n")
    with pytest.raises(ValueError, match="no image has an object, of 1 in YOLO text"):
        folder.scan(str(tmp_path))
    with pytest.raises(ValueError, match="'folder' has boxes here, and not label"):
        Dataset.open(config(name="folder", folder=str(tmp_path)), {"boxes": Boxes(), "label": Label()})


def test_nothing_outside_the_folder_is_read(tmp_path):
    write_coco(tmp_path / "set", SPLITS)
    put(tmp_path / "secret.jpg", SPLITS["train"]["000.jpg"][0])
    content = coco_content(SPLITS["train"])
    content["images"][0]["file_name"] = "../../secret.jpg"
    content["images"][1]["file_name"] = str(tmp_path / "secret.jpg")
    put(tmp_path / "set" / COCO, json.dumps(content))
    listing = folder.scan(str(tmp_path / "set"))
    assert len(listing.splits["train"]) == 7
    assert [one.why[:13] for one in listing.left_out if "secret" in one.path] == ["missing, name"] * 2


def test_an_exif_rotation_is_part_of_the_size(tmp_path):
    from PIL import Image

    tags = Image.Exif()
    tags[0x0112] = 6
    images = {"turned.jpg": (encode(picture(50, 90), "JPEG", exif=tags), 90, 50, [("ant", 5, 60, 20, 80)])}
    write_voc(tmp_path, {"train": SPLITS["train"] | images, "val": SPLITS["val"]})
    assert folder.scan(str(tmp_path)).left_out == ()
    put(tmp_path / "Annotations" / "turned.xml", voc_text("turned.jpg", 50, 90, [("ant", 5, 10, 20, 40)]))
    [one] = folder.scan(str(tmp_path)).left_out
    assert one.why.endswith(
        "is about 90 x 50 pixels, the picture has 50 x 90: was it turned or resized after labelling?"
    )
