"""Folders of images with masks: every layout, what is wrong told by file, COCO's outlines, and maps through batches."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sample_sets import config, encode, picture, write_features

from mnet_jax.data import crop_scale, pipeline
from mnet_jax.data.boxes.found import Tree
from mnet_jax.data.crop import Crop
from mnet_jax.data.croppers import Scale
from mnet_jax.data.dataset import Dataset
from mnet_jax.data.decode import Decoder
from mnet_jax.data.masks import classes, folder, pairs, rle
from mnet_jax.data.pixel_map import VOID, PixelMap

NAMES = ("sky", "road", "car")
COLOURS = np.array([(255, 0, 0), (0, 128, 0), (7, 7, 200)], np.uint8)


def a_map(number):
    """The classes of a picture of its own size, with a void corner."""
    height, width = 40 + number % 5, 50 + number % 7
    values = np.random.default_rng(number).integers(0, 3, (5, 5)).astype(np.uint8)
    values = np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST)).copy()
    values[:3, :4] = VOID
    return values


def photo(number):
    return encode(picture(*a_map(number).shape, seed=number), "JPEG")


def put(root, file, contents):
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())


def with_palette(values):
    image = Image.fromarray(values)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    return image


def in_colours(values):
    table = np.zeros((256, 3), np.uint8)
    table[:3], table[VOID] = COLOURS, (1, 2, 3)
    return table[values]


WRITTEN = {
    "index": lambda values: encode(values, "PNG"),
    "palette": lambda values: encode(with_palette(values), "PNG"),
    "sixteen bits": lambda values: encode(Image.fromarray(values.astype(np.uint16)), "PNG"),
    "colours": lambda values: encode(in_colours(values), "PNG"),
    "colours with alpha": lambda values: encode(Image.fromarray(in_colours(values)).convert("RGBA"), "PNG"),
    "bmp": lambda values: encode(values, "BMP"),
}
COLOURED = "sky 255 0 0\nroad,#008000\n7 7 200\tcar\n1 2 3 void\n"


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_way_to_write_a_mask(kind, tmp_path):
    for number in range(12):
        put(tmp_path, f"images/{number:02}.jpg", photo(number))
        put(tmp_path, f"masks/{number:02}.{'bmp' if kind == 'bmp' else 'png'}", WRITTEN[kind](a_map(number)))
    put(tmp_path, "classes.txt", COLOURED if "colours" in kind else "sky\nroad\ncar\n")
    found = folder.scan(str(tmp_path))
    assert found.class_names == NAMES
    assert found.left_out == ()
    assert set(found.splits) == {"train", "validation"}
    for files in found.splits.values():
        for file in files:
            values = np.asarray(Image.open(io.BytesIO(file.contents)))
            np.testing.assert_array_equal(values, a_map(int(file.path[-6:-4])))
            assert file.size == values.shape


LAYOUTS = {
    "split folders": ("images/{split}/{n}.jpg", "masks/{split}/{n}.png"),
    "folders of splits": ("{split}/images/{n}.jpg", "{split}/masks/{n}.png"),
    "side by side": ("{split}/{n}.jpg", "{split}/{n}_mask.png"),
    "labels": ("images/{split}/{n}.jpg", "labels/{split}/{n}_label.png"),
    "voc": ("JPEGImages/{n}.jpg", "SegmentationClass/{n}.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, tmp_path):
    image, mask = LAYOUTS[layout]
    for split, first in (("train", 0), ("val", 5)):
        for number in range(first, first + 5):
            put(tmp_path, image.format(split=split, n=number), photo(number))
            put(tmp_path, mask.format(split=split, n=number), encode(with_palette(a_map(number)), "PNG"))
        if layout == "voc":
            names = "".join(f"{number}\n" for number in range(first, first + 5))
            put(tmp_path, f"ImageSets/Segmentation/{split}.txt", names)
            put(tmp_path, f"SegmentationObject/{first}.png", b"not ours")
    if layout != "voc":
        put(tmp_path, "classes.txt", "sky\nroad\ncar\n")
    found = folder.scan(str(tmp_path))
    assert found.class_names == (classes.VOC if layout == "voc" else NAMES)
    assert {split: len(files) for split, files in found.splits.items()} == {"train": 5, "val": 5}
    assert found.left_out == ()


def test_void_is_no_class_wherever_it_stands():
    listed = classes.of_lines(["void", "sky", "Unlabelled", "car"], "classes.txt")
    assert listed.names == ("sky", "car")
    assert listed.numbers == (VOID, 0, VOID, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sky 1 2 3\nroad\n", "'road' has none"),
        ("sky 1 2 3\nroad 1 2 3\n", "the colour of another line"),
        ("sky 1 2 300\nroad 1 2 3\n", "a value above 255"),
        ("sky\nsky\n", "the name of another line"),
        ("sky\nvoid\n", "1 classes"),
        (None, "no classes.txt"),
    ],
)
def test_lists_of_classes_that_make_no_sense(text, said, tmp_path):
    put(tmp_path, "images/1.jpg", photo(1))
    put(tmp_path, "masks/1.png", encode(a_map(1), "PNG"))
    if text:
        put(tmp_path, "classes.txt", text)
    with pytest.raises(ValueError, match=said) as error:
        folder.scan(str(tmp_path))
    assert "\n" not in str(error.value)


def test_what_is_wrong_is_told_by_file(tmp_path):
    for number in range(20):
        put(tmp_path, f"images/{number:02}.jpg", photo(number))
        put(tmp_path, f"masks/{number:02}.png", encode(a_map(number), "PNG"))
    put(tmp_path, "classes.txt", "sky\nroad\ncar\n")
    unknown = a_map(0).copy()
    unknown[11, 7] = 17
    masks = {
        "00": (encode(unknown, "PNG"), "the value 17 in row 11, column 7; classes.txt has 3 indices"),
        "01": (encode(a_map(1).T.copy(), "PNG"), "was it turned or resized afterwards"),
        "02": (encode(in_colours(a_map(2)), "PNG"), "has colours (RGB) where an index is due"),
        "03": (encode(in_colours(a_map(3)), "JPEG"), "is a JPEG, whose values are not exact"),
        "04": (encode(a_map(4), "PNG")[:-40], "is damaged"),
        "05": (b"text", "is no PNG"),
        "06": (np.full_like(a_map(6), VOID), "void everywhere"),
        "07": (None, "no mask of this name (07.png)"),
    }
    for name, (contents, _) in masks.items():
        file = tmp_path / "masks" / f"{name}.png"
        if contents is None:
            file.unlink()
        else:
            file.write_bytes(contents if isinstance(contents, bytes) else encode(contents, "PNG"))
    put(tmp_path, "masks/99.png", encode(a_map(9), "PNG"))
    put(tmp_path, "images/08.jpg", photo(8)[:300])
    put(tmp_path, "images/30.jpg", photo(10))  # copies, with another mask
    put(tmp_path, "masks/30.png", encode((a_map(10) + 1) % 3, "PNG"))
    put(tmp_path, "masks/11_mask.png", encode(a_map(11), "PNG"))
    found = folder.scan(str(tmp_path))
    said = {one.path.removeprefix(f"{tmp_path}/"): one.why for one in found.left_out}
    for name, (_, why) in masks.items():
        assert why in said[f"images/{name}.jpg"]
    assert said["masks/99.png"] == "a mask without an image of its name"
    assert "JPEG" in said["images/08.jpg"]
    assert "the same image has another mask: images/30.jpg" in said["images/10.jpg"]
    assert "its mask may be" in said["images/11.jpg"]
    assert sum(map(len, found.splits.values())) == 20 - len(masks) - 3
    complaint = found.complaint(str(tmp_path))
    assert "\n" not in complaint
    assert "left out" in complaint


def test_unknown_colours_and_no_usable_mask(tmp_path):
    for number in range(3):
        put(tmp_path, f"images/{number}.jpg", photo(number))
        put(tmp_path, f"masks/{number}.png", encode(in_colours(a_map(number)), "PNG"))
    put(tmp_path, "classes.txt", "sky 255 0 0\nroad 0 128 0\ncar 9 9 9\n")
    with pytest.raises(
        ValueError, match=r"none of 3 images has a mask.* the colour \(1, 2, 3\) in row 0, column 0 is none"
    ):
        folder.scan(str(tmp_path))
    with pytest.raises(ValueError, match="0 images and no masks that can be read"):
        folder.read(Tree(str(tmp_path / "empty")) if (tmp_path / "empty").mkdir() is None else None)


# --- COCO ---


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools's own
def test_outlines_and_runs_as_pycocotools_has_them():
    from pycocotools import mask as cocos

    rng = np.random.default_rng(0)
    for number in range(600):
        height, width = rng.integers(1, 60, 2).tolist()
        corners = rng.uniform(-15, 75, 2 * int(rng.integers(3, 9)))
        polygon = (np.round(corners), np.round(corners * 2) / 2, corners)[number % 3].tolist()
        wanted = cocos.decode(cocos.frPyObjects([polygon], height, width))[..., 0] > 0
        np.testing.assert_array_equal(rle.decode([polygon], height, width), wanted)
        mask = np.asfortranarray(rng.random((height, width)) < rng.random())
        text = cocos.encode(mask.astype(np.uint8, order="F"))["counts"].decode()
        np.testing.assert_array_equal(rle.decode({"size": [height, width], "counts": text}, height, width), mask)


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        (None, "no polygons and no runs"),
        ([], "no polygons and no runs"),
        ([[1, 2, 3, 4]], "three corners"),
        ([[1, 2, "x", 4, 5, 6]], "three corners"),
        ({"size": [9, 9], "counts": [1]}, "the picture is 5 high"),
        ({"size": [5, 4], "counts": [3, 4]}, "are of 7 pixels"),
        ({"size": [5, 4], "counts": [21, -1]}, "no whole numbers"),
        ({"size": [5, 4], "counts": "\x01"}, "no text of COCO's"),
        ({"size": [5, 4], "counts": "o" * 60 + "0"}, "longer than any picture|below 0"),
        ({"size": [5, 4], "counts": [10**30]}, "no whole numbers"),
        ({"size": 20, "counts": [20]}, "of size 20"),
        ([[0, 0, 1e12, 0, 5, 5]], "far outside"),
    ],
)
def test_segmentations_that_make_no_sense(segmentation, said):
    with pytest.raises(ValueError, match=said):
        rle.decode(segmentation, 5, 4)


def test_coco_becomes_maps(tmp_path):
    square = lambda y, x: [[x, y, x + 10, y, x + 10, y + 10, x, y + 10]]  # noqa: E731
    content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]}
    for number in range(10):
        height, width = a_map(number).shape
        put(tmp_path, f"{number}.jpg", photo(number))
        content["images"].append({"id": number, "file_name": f"{number}.jpg", "height": height, "width": width})
        for kind, corner in ((7, (2, 2)), (3, (8, 8)), (7, (25, 30))):
            one = {"id": len(content["annotations"]), "image_id": number, "category_id": kind, "bbox": [0, 0, 9, 9]}
            content["annotations"].append({**one, "segmentation": square(*corner)})
    content["annotations"][3]["segmentation"] = "x"
    put(tmp_path, "_annotations.coco.json", json.dumps(content))
    found = folder.scan(str(tmp_path))
    assert found.class_names == ("background", "cat", "dog")
    assert [one.why for one in found.left_out] == ["_annotations.coco.json, annotation 3: no polygons and no runs"]
    file = found.splits["train"][0]
    values = np.asarray(Image.open(io.BytesIO(file.contents)))
    wanted = np.zeros_like(values)
    wanted[2:12, 2:12], wanted[8:18, 8:18], wanted[8:12, 8:12], wanted[25:35, 30:40] = 1, 2, VOID, 1
    np.testing.assert_array_equal(values, wanted)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_real_masks_are_coco_s(annotated_photos):
    """Of 80 photos: the map says a class exactly where one object is, by pycocotools' masks."""
    from pycocotools.coco import COCO

    root = annotated_photos / "coco_tiny"
    file = next((root / "annotations").glob("*val2017.json"))
    coco = COCO(str(file))
    found = folder.scan(str(root))
    assert {split: len(files) for split, files in found.splits.items()} == {"train": 80, "val": 80}
    by_name = {one["file_name"]: one for one in coco.imgs.values()}
    for one in found.splits["val"]:
        image = by_name[one.path.rpartition("/")[2]]
        count = np.zeros((image["height"], image["width"]), int)
        wanted = np.zeros_like(count)
        for annotation in coco.imgToAnns[image["id"]]:
            mask = coco.annToMask(annotation) > 0
            name = coco.cats[annotation["category_id"]]["name"]
            count += mask
            wanted[mask] = found.class_names.index(name)
        wanted[count > 1] = VOID
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(one.contents))), wanted)


# --- What is remembered ---


def some_masks(root, count=12):
    for number in range(count):
        put(root, f"images/{number:02}.jpg", photo(number))
        put(root, f"masks/{number:02}.png", encode(a_map(number), "PNG"))
    put(root, "classes.txt", "sky\nroad\ncar\n")


def test_masks_are_read_once_until_they_change(tmp_path, monkeypatch):
    some_masks(tmp_path)
    put(tmp_path, "masks/03.png", encode(in_colours(a_map(3)), "PNG"))
    first, real, read = folder.scan(str(tmp_path)), pairs.read, []
    monkeypatch.setattr(pairs, "read", lambda tree, file, listed: read.append(file) or real(tree, file, listed))
    assert folder.scan(str(tmp_path)) == first
    assert read == []
    assert [one.why.split(" (")[0] for one in first.left_out] == ["masks/03.png has colours"]
    put(tmp_path, "masks/03.png", encode(a_map(3), "PNG"))
    put(tmp_path, "masks/05.png", encode((a_map(5) + 1) % 3, "PNG"))
    second = folder.scan(str(tmp_path))
    assert sorted(read) == ["masks/03.png", "masks/05.png"]
    assert second.left_out == ()
    by_path = {file.path[-6:-4]: file.said() for files in second.splits.values() for file in files}
    assert len(by_path) == 12
    unchanged = {file.path[-6:-4]: file.said() for files in first.splits.values() for file in files}
    assert {name for name in unchanged if unchanged[name] != by_path[name]} == {"05"}
    read.clear()
    put(tmp_path, "images/07.jpg", photo(8))  # a picture of another size
    assert "was it turned or resized" in " ".join(one.why for one in folder.scan(str(tmp_path)).left_out)
    assert read == ["masks/07.png"]
    read.clear()
    put(tmp_path, "classes.txt", "sky\nroad\nlorry\n")
    assert folder.scan(str(tmp_path)).class_names == ("sky", "road", "lorry")
    assert len(read) == 12
    put(tmp_path, ".mnet_masks.json", "[1, 2")
    assert len(folder.scan(str(tmp_path)).left_out) == 1


def test_outlines_are_not_drawn_before_they_are_needed(tmp_path, monkeypatch):
    content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]}
    for number in range(10):
        put(tmp_path, f"{number}.jpg", photo(number))
        content["images"].append({"id": number, "file_name": f"{number}.jpg"})
        one = {"id": number, "image_id": number, "category_id": 7, "bbox": [0, 0, 9, 9]}
        content["annotations"].append({**one, "segmentation": [[3, 4, 20, 4, 20, 30, 3, 30]]})
    content["annotations"][4]["segmentation"] = {"size": list(a_map(4).shape), "counts": [5, 7]}
    put(tmp_path, "_annotations.coco.json", json.dumps(content))
    with monkeypatch.context() as patch:
        patch.setattr(rle, "decode", None)
        found = folder.scan(str(tmp_path))
    assert [one.why for one in found.left_out] == [
        f"_annotations.coco.json, annotation 4: its runs are of 12 pixels, the picture has {a_map(4).size}"
    ]
    said = {file.path: file.said() for files in found.splits.values() for file in files}
    content["annotations"][6]["segmentation"][0][0] = 2
    put(tmp_path, "_annotations.coco.json", json.dumps(content))
    again = {file.path: file.said() for files in folder.scan(str(tmp_path)).splits.values() for file in files}
    assert [path[-5] for path in said if said[path] != again[path]] == ["6"]


def test_a_mask_that_changes_after_the_start_is_told_by_its_picture(tmp_path):
    some_masks(tmp_path)
    data = config(name="folder", folder=str(tmp_path), image_size=(32, 48), eval_crop=1.0)
    dataset = Dataset.open(data, {"map": PixelMap()})
    name = dataset.file_names(dataset.info.eval_split)[0]
    put(tmp_path, f"masks/{name[-6:-4]}.png", b"gone")
    with pytest.raises(ValueError, match=rf"\({name}\) cannot be decoded") as error:
        list(pipeline.eval_batches(dataset, batch_size=4))
    assert "\n" not in str(error.value)


def test_classes_without_a_pixel_to_learn_from_are_told(tmp_path):
    some_masks(tmp_path)
    put(tmp_path, "classes.txt", "sky\nroad\ncar\nlorry\n")
    put(tmp_path, "masks/03.png", b"none")
    data = config(name="folder", folder=str(tmp_path), image_size=(32, 48), eval_crop=1.0)
    complaint = Dataset.open(data, {"map": PixelMap()}).complaint()
    assert complaint.startswith(
        f"{tmp_path}: no pixel in 'train' to learn from: lorry; left out 1 files: images/03.jpg"
    )


# --- Through batches ---


def whole_maps(dataset):
    """Of each evaluation example: its index, its map at the picture's size and the batch's."""
    for batch in pipeline.eval_batches(dataset, batch_size=4):
        for row in np.flatnonzero(batch["mask"]):
            height, width = batch["crop"][row, 9:]
            whole = batch["map_whole"][row]
            assert (whole[height:] == VOID).all()
            assert (whole[:, width:] == VOID).all()
            yield batch["index"][row], whole[:height, :width], batch["map"][row]


def test_evaluation_has_the_whole_map(tmp_path):
    for number in range(14):
        put(tmp_path, f"{'val' if number < 9 else 'train'}/images/{number}.jpg", photo(number))
        put(tmp_path, f"{'val' if number < 9 else 'train'}/masks/{number}.png", encode(a_map(number), "PNG"))
    put(tmp_path, "classes.txt", "sky\nroad\ncar\n")
    data = config(name="folder", folder=str(tmp_path), image_size=(32, 48), eval_crop=1.0)
    count = 0
    dataset = Dataset.open(data, {"map": PixelMap()})
    for index, whole, small in whole_maps(dataset):
        np.testing.assert_array_equal(whole, a_map(index))
        assert small.shape == (32, 48)
        count += 1
    assert count == 9
    counts = dataset.values("map", "val")
    np.testing.assert_array_equal(counts[3], np.bincount(a_map(3).reshape(-1), minlength=256))
    assert "map_whole" not in dataset.batch_spec(train=True)


def pets(values):
    return np.where(values == VOID, 0, values + 1)


def cityscapes(values):
    return np.array([7, 8, 26, 0])[np.minimum(values, 3)]


SETS = {
    "oxford_iiit_pet": ("image", "segmentation_mask", (None, None, 1), pets, 3, (0, 1, 2)),
    "cityscapes": ("image_left", "segmentation_label", (44, 56, 1), cityscapes, 19, (0, 1, 13)),
    "scene_parse150": ("image", "annotation", (None, None, 1), pets, 150, (0, 1, 2)),
    "unheard_of": ("image", "what", (None, None, 1), lambda values: values, 3, (0, 1, 2)),
}


@pytest.mark.parametrize("name", SETS)
def test_tfds_sets_are_known(name, tmp_path):
    import tensorflow_datasets as tfds

    image, feature, shape, written, num_classes, numbers = SETS[name]
    labels = {"labels": list(NAMES)} if name == "unheard_of" else {}
    kind = tfds.features.LabeledImage if labels else tfds.features.Image
    features = {
        image: tfds.features.Image(encoding_format="jpeg"),
        feature: kind(shape=shape, encoding_format="png", **labels),
    }

    def fixed(number):
        values = a_map(number)
        if shape[0]:
            values = np.asarray(Image.fromarray(values).resize(shape[1::-1], Image.Resampling.NEAREST))
        return values

    def examples(first):
        for number in range(first, first + 6):
            values = fixed(number)
            pixels = encode(picture(*values.shape, seed=number), "JPEG")
            yield {image: io.BytesIO(pixels), feature: written(values).astype(np.uint8)[..., None]}

    write_features(tmp_path, name, features, {"train": lambda: examples(6), "test": lambda: examples(0)})
    if name == "cityscapes":  # the set has variants, of which this is the first
        (tmp_path / name / "1.0.0").rename(tmp_path / "1.0.0")
        (tmp_path / name / "semantic_segmentation").mkdir()
        (tmp_path / "1.0.0").rename(tmp_path / name / "semantic_segmentation" / "1.0.0")
    data = config(name=name, data_dir=str(tmp_path), image_size=32, eval_crop=1.0)
    table = np.full(256, VOID)
    table[:3] = numbers
    dataset = Dataset.open(data, {"map": PixelMap()})
    found = [(whole.shape, whole.tobytes()) for _, whole, _ in whole_maps(dataset)]
    wanted = [table[fixed(number)].astype(np.uint8) for number in range(6)]
    assert sorted(found) == sorted((values.shape, values.tobytes()) for values in wanted)  # TFDS has its own order
    assert dataset.info.num_classes == num_classes


# --- The crop ---


def test_crops_jitter_the_scale_and_the_map_follows():
    """A picture whose colour is its class: wherever the image shows it the map says so, and beside it void."""
    rng = np.random.default_rng(0)
    values = np.kron(rng.integers(0, 3, (4, 5)).astype(np.uint8), np.ones((24, 25), np.uint8))
    contents = tf.constant(encode(COLOURS[values], "PNG"))
    kind, mapped = PixelMap(), tf.constant(encode(values, "PNG"))
    decoder = Decoder(Scale((64, 80), scale=(0.5, 2.0), fill=(90, 91, 92)), "bilinear", flip=True)
    shown, sides = [], []
    for number in range(40):
        chunk = {"contents": contents[None], "index": [number], "key": tf.constant([7], tf.int64)}
        chunk["index"] = tf.constant([number], tf.int64)
        example = {name: part[0] for name, part in decoder.plan(chunk).items()}
        image, crop = decoder.pixels(example)
        found = kind.transform({"": mapped}, crop)[""].numpy()
        table = np.full((256, 3), (90, 91, 92), np.uint8)
        table[:3] = COLOURS
        same = (image.numpy() == table[found]).all(-1)
        shown.append(same.mean())  # all but the blended pixels at the edges of the squares
        sides.append(np.asarray(crop.place)[2:] / np.asarray(crop.part)[2:] * [96 / 64, 125 / 80])
        outside = np.asarray(crop.place)[2:].prod() / (64 * 80)
        assert (found == VOID).mean() == pytest.approx(1 - outside)
    assert min(shown) > 0.75
    sides = np.array(sides)
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], rtol=0.05)
    assert 0.5 <= sides.min() < 0.7
    assert 1.7 < sides.max() <= 2.05


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.tuples(*[st.floats(0, 1, exclude_max=True, width=32)] * 3),
    st.tuples(st.floats(0.1, 1), st.floats(1, 4)),
)
def test_windows_stay_inside(shape, draws, scale):
    part, place = crop_scale.windowed(tf.constant(shape), tf.constant(draws), (32, 48), scale)
    part, place = part.numpy(), place.numpy()
    assert (part[:2] >= 0).all()
    assert (part[2:] >= 1).all()
    assert (part[:2] + part[2:] <= shape).all()
    assert (place[:2] >= 0).all()
    assert (place[2:] >= 1).all()
    assert (place[:2] + place[2:] <= (32, 48)).all()
    assert Crop(part, place, np.array(False), np.array(shape), (32, 48)).size == (32, 48)
