"""Boxes and pixel maps follow the pixels: against NumPy on random crops, against the pixels themselves, and batches."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sample_sets import bbox, config, encode, joined, objects_feature, picture, write_features

from mnet_jax.data import croppers, pipeline
from mnet_jax.data.annotations import Boxes, Label
from mnet_jax.data.crop import Crop
from mnet_jax.data.croppers import Cropper, Cut
from mnet_jax.data.dataset import Dataset
from mnet_jax.data.decode import Decoder
from mnet_jax.data.pixel_map import PixelMap
from mnet_jax.data.tensorflow_setup import tf

SIZE = (40, 56)

# --- Independent of the code under test: one box and one pixel at a time ---


def numpy_boxes(boxes, classes, ignored, areas, crop, most):
    """[(y1, x1, y2, x2, class, ignored, area)] of `boxes` in shares of the picture, moved by hand."""
    (height, width), (out_height, out_width) = crop.picture_size, crop.size
    (py, px, ph, pw), (ly, lx, lh, lw) = crop.part, crop.place
    kept = []
    for number, (y1, x1, y2, x2) in enumerate(np.float64(boxes)):
        moved = [
            ly + (y1 * height - py) * lh / ph,
            lx + (x1 * width - px) * lw / pw,
            ly + (y2 * height - py) * lh / ph,
            lx + (x2 * width - px) * lw / pw,
        ]
        top, left, bottom, right = max(0, ly), max(0, lx), min(out_height, ly + lh), min(out_width, lx + lw)
        middle = (moved[0] + moved[2]) / 2, (moved[1] + moved[3]) / 2
        if not (top < middle[0] < bottom and left < middle[1] < right):
            continue
        a, b = max(moved[0], top), max(moved[1], left)
        c, d = min(moved[2], bottom), min(moved[3], right)
        if c - a <= 1e-9 or d - b <= 1e-9:
            continue
        if crop.flipped:
            b, d = out_width - d, out_width - b
        area = areas[number] if areas is not None else (y2 - y1) * height * (x2 - x1) * width
        size = 0 if ignored[number] else (c - a) * (d - b)
        kept.append((size, number, (a, b, c, d, classes[number], ignored[number], area)))
    largest = sorted(kept, key=lambda row: (-row[0], row[1]))[:most]
    return [row for _, _, row in sorted(largest, key=lambda row: row[1])]


def numpy_map(values, crop, void):
    """The map at each pixel of the output: the picture's pixel in which its centre lies."""
    found = np.full(crop.size, void, np.uint8)
    (py, px, ph, pw), (ly, lx, lh, lw) = crop.part, crop.place
    for y in range(crop.size[0]):
        for x in range(crop.size[1]):
            across = crop.size[1] - 1 - x if crop.flipped else x
            if ly <= y < ly + lh and lx <= across < lx + lw:
                found[y, x] = values[
                    py + int(np.floor((y + 0.5 - ly) * ph / lh)), px + int(np.floor((across + 0.5 - lx) * pw / lw))
                ]
    return found


def as_tensors(crop):
    return Crop(*(tf.constant(x) for x in (crop.part, crop.place, bool(crop.flipped), crop.picture_size)), crop.size)


def as_arrays(crop):
    return Crop(*(np.asarray(x) for x in (crop.part, crop.place, crop.flipped, crop.picture_size)), crop.size)


@st.composite
def crops(draw):
    """Any part of any picture in any place of the output, also beyond its edges."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    part = [y, x, draw(st.integers(1, height - y)), draw(st.integers(1, width - x))]
    if draw(st.booleans()):
        place = [0, 0, *SIZE]
    else:
        tall, wide = draw(st.integers(1, 80)), draw(st.integers(1, 80))
        place = [draw(st.integers(1 - tall, SIZE[0] - 1)), draw(st.integers(1 - wide, SIZE[1] - 1)), tall, wide]
    return Crop(np.int32(part), np.int32(place), draw(st.booleans()), np.int32([height, width]), SIZE)


def parts_of(boxes, classes, ignored, areas=None):
    parts = {
        "": tf.constant(np.float32(boxes).reshape(-1)),
        "class": tf.constant(np.int64(classes)),
        "ignore": tf.constant(np.int64(ignored)),
    }
    return parts if areas is None else {**parts, "area": tf.constant(np.float32(areas))}


@settings(max_examples=150, deadline=None)
@given(crop=crops(), seed=st.integers(0, 2**32 - 1), count=st.integers(0, 9), has_areas=st.booleans())
def test_boxes_as_numpy_moves_them(crop, seed, count, has_areas):
    rng = np.random.default_rng(seed)
    # eighths of the picture, so that edges and centres lie on edges of parts, too; some reach outside, some are empty
    corners = rng.integers(-1, 10, (count, 2, 2)) / 8
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    classes, ignored = rng.integers(0, 7, count), rng.random(count) < 0.2
    areas = rng.integers(1, 1000, count) if has_areas else None
    kind = Boxes(most=4)
    found = {
        name: x.numpy()
        for name, x in kind.transform(parts_of(boxes, classes, ignored, areas), as_tensors(crop)).items()
    }
    for name, field in kind.fields(SIZE).items():
        assert (found[name].shape, found[name].dtype) == (field.shape, field.dtype)
    wanted = numpy_boxes(boxes, classes, ignored, areas, crop, 4)
    # where a centre is within rounding of an edge, or two areas are the same, either answer is right
    number = int(found["mask"].sum())
    assert found["mask"].tolist() == [True] * number + [False] * (4 - number)
    assert not any(found[name][number:].any() for name in found)
    if number == len(wanted) and found["class"][:number].tolist() == [row[4] for row in wanted]:
        rows = np.array([row[:4] for row in wanted]).reshape(-1, 4)
        np.testing.assert_allclose(found[""][:number], rows, atol=2e-3, rtol=1e-4)
        assert found["ignore"][:number].tolist() == [row[5] for row in wanted]
        np.testing.assert_allclose(found["area"][:number], [row[6] for row in wanted], rtol=1e-4, atol=1e-3)
    else:
        assert near_an_edge(boxes, crop) or len(numpy_boxes(boxes, classes, ignored, areas, crop, 99)) > 4


def near_an_edge(boxes, crop):
    """Whether the centre of a box is as near to the edge of what is seen as float32 can tell."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2 * crop.picture_size
    moved = crop.place[:2] + (middles - crop.part[:2]) * crop.place[2:] / crop.part[2:]
    low, high = np.maximum(crop.place[:2], 0), np.minimum(crop.place[:2] + crop.place[2:], crop.size)
    return (np.minimum(abs(moved - low), abs(moved - high)) < 1e-3).any()


@settings(max_examples=60, deadline=None)
@given(crop=crops(), seed=st.integers(0, 2**32 - 1))
def test_map_as_numpy_moves_it(crop, seed):
    values = np.random.default_rng(seed).integers(0, 256, crop.picture_size).astype(np.uint8)
    kind = PixelMap(ignore=254)
    found = kind.transform({"": tf.constant(encode(values, "PNG"))}, as_tensors(crop))[""].numpy()
    np.testing.assert_array_equal(found, numpy_map(values, crop, 254))


def test_edge_cases_of_boxes():
    crop = as_tensors(Crop(np.int32([10, 10, 20, 20]), np.int32([0, 0, 40, 40]), False, np.int32([40, 40]), (40, 40)))
    boxes = np.float32(
        [
            [0, 0, 40, 40],  # larger than the crop: all of it
            [12, 12, 12, 20],  # no height
            [20, 20, 14, 14],  # turned around
            [0, 0, 9, 9],  # outside
            [2, 12, 17, 18],  # reaches in, its centre does not
            [4, 12, 17, 18],  # its centre does
            [11, 11, 13, 13],
        ]
    )
    parts = parts_of(boxes / 40, range(7), [0] * 7)
    found = Boxes(most=5).transform(parts, crop)
    assert found["class"].numpy().tolist() == [0, 5, 6, 0, 0]
    assert found["mask"].numpy().tolist() == [True] * 3 + [False] * 2
    np.testing.assert_allclose(found[""][:3], [[0, 0, 40, 40], [0, 4, 14, 16], [2, 2, 6, 6]], atol=1e-4)
    np.testing.assert_allclose(found["area"][:3], [1600, 78, 4], rtol=1e-5)
    assert Boxes(most=2).transform(parts, crop)["class"].numpy().tolist() == [0, 5]  # the smallest goes
    assert Boxes(least_side=4.0).transform(parts, crop)["class"].numpy()[:3].tolist() == [0, 5, 0]
    crowd = parts_of(boxes / 40, range(7), [1, 0, 0, 0, 0, 0, 0])
    assert Boxes(most=2).transform(crowd, crop)["class"].numpy().tolist() == [5, 6]  # before the largest, a crowd
    none = parts_of(np.zeros((0, 4)), [], [])
    assert not Boxes(most=3).transform(none, crop)["mask"].numpy().any()


def test_a_map_of_another_size_is_an_error():
    crop = as_tensors(Crop(np.int32([0, 0, 8, 8]), np.int32([0, 0, 8, 8]), False, np.int32([8, 8]), (8, 8)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="another height and width than its picture"):
        PixelMap().transform({"": tf.constant(encode(np.zeros((8, 9), np.uint8), "PNG"))}, crop)


def test_a_map_may_be_a_file(tmp_path):
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    (tmp_path / "map.png").write_bytes(encode(values, "PNG"))
    crop = as_tensors(Crop(np.int32([0, 0, 8, 8]), np.int32([0, 0, 8, 8]), True, np.int32([8, 8]), (8, 8)))
    found = PixelMap().transform({"path": tf.constant(str(tmp_path / "map.png"))}, crop)[""]
    np.testing.assert_array_equal(found, values[:, ::-1])


# --- Back to the picture ---


@settings(max_examples=60, deadline=None)
@given(crop=crops(), seed=st.integers(0, 2**32 - 1))
def test_boxes_come_back_to_the_picture(crop, seed):
    import jax.numpy as jnp

    corners = np.random.default_rng(seed).random((5, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    kind = Boxes(most=5)
    moved = kind.transform(parts_of(boxes, range(5), [0] * 5), as_tensors(crop))
    low, high = np.maximum(crop.place[:2], 0), np.minimum(crop.place[:2] + crop.place[2:], crop.size)
    inside = moved[""].numpy()
    if crop.flipped:
        low, high = [low[0], SIZE[1] - high[1]], [high[0], SIZE[1] - low[1]]
    whole = moved["mask"].numpy() & (inside[:, :2] > low).all(1) & (inside[:, 2:] < high).all(1)  # was not cut off
    rows = np.stack([np.concatenate([crop.part, crop.place, [crop.flipped], crop.picture_size])] * 2)
    wanted = (boxes * np.tile(crop.picture_size, 2))[moved["class"].numpy()][whole]
    for batch, numbers in ((np.stack([inside] * 2), rows), (jnp.stack([inside] * 2), jnp.asarray(rows))):
        found = np.asarray(Crop.from_rows(numbers, SIZE).boxes_to_picture(batch))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[1][whole], wanted, atol=0.02, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(crop=crops(), seed=st.integers(0, 2**32 - 1))
def test_a_map_comes_back_to_the_picture(crop, seed):
    output = np.random.default_rng(seed).integers(0, 200, SIZE).astype(np.uint8)
    found = as_arrays(crop).map_to_picture(output, 255)
    (py, px, ph, pw), (ly, lx, lh, lw) = crop.part, crop.place
    wanted = np.full(crop.picture_size, 255, np.uint8)
    for y in range(py, py + ph):
        for x in range(px, px + pw):
            row = ly + int(np.floor((y + 0.5 - py) * lh / ph))
            column = lx + int(np.floor((x + 0.5 - px) * lw / pw))
            if 0 <= row < SIZE[0] and 0 <= column < SIZE[1]:
                wanted[y, x] = output[row, SIZE[1] - 1 - column if crop.flipped else column]
    np.testing.assert_array_equal(found, wanted)


# --- Against the pixels themselves ---


class Zoomed(Cropper):
    """What issues to come need: a part of the picture, chosen by its boxes, in a part of the output."""

    num_draws = 2
    fill = (9, 8, 7)

    def cut(self, shape, draws, annotations):
        first = tf.reshape(annotations["boxes"][""], [-1, 4])[0]
        corner = tf.cast(first[:2] * tf.cast(shape, tf.float32) / 2, tf.int32)
        offset = tf.cast(draws * 9, tf.int32)
        return Cut(tf.concat([corner, shape - corner], 0), tf.concat([offset + 3, tf.constant([20, 30])], 0))


def decoders(size=SIZE):
    data = config(crop_pad=6)
    for crop in ("inception", "pad", "center"):
        data.crop = crop
        yield Decoder(croppers.train_cropper(data, size), "bilinear", flip=True)
    yield Decoder(Zoomed(size), "bilinear", flip=True)


def decoded(decoder, contents, annotations, key):
    chunk = {
        "contents": tf.constant([contents]),
        "index": tf.constant([3], tf.int64),
        "key": tf.constant([key], tf.int64),
    }
    example = tf.nest.map_structure(lambda values: values[0], decoder.plan(chunk))
    pixels, crop = decoder.pixels({**example, "annotations": annotations})
    return pixels.numpy(), crop


ONE_BOX = {"boxes": parts_of([[0.25, 0.5, 0.75, 0.875]], [0], [0])}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_boxes_stay_around_what_they_were_drawn_around(kind):
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[24:72, 64:112] = 255  # the box of ONE_BOX
    contents = encode(pixels, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    seen = 0
    for decoder in decoders():
        for key in range(16):
            image, crop = decoded(decoder, contents, ONE_BOX, key)
            found = Boxes(most=1).transform(ONE_BOX["boxes"], crop)
            bright = image[..., 0] > 127
            if found["mask"][0]:
                y1, x1, y2, x2 = found[""][0].numpy()
                rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
                bounds = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
                np.testing.assert_allclose([y1, x1, y2, x2], bounds, atol=1.01)
                seen += 1
    assert seen > 40


def oriented(pixels, number):
    """What a camera stores of an upright picture, with this EXIF orientation."""
    tags = Image.Exif()
    tags[0x0112] = number
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, 1),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels, -1),
    }[number]
    return encode(np.ascontiguousarray(stored), "JPEG", exif=tags, quality=95, subsampling=0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_maps_lie_on_the_grid_of_the_pixels(orientation):
    """Red tells the row of the picture, green its column: both must say what the map says, without a shift."""
    rows, columns = np.mgrid[0:230, 0:250].astype(np.uint8)
    contents = oriented(np.stack([rows, columns, rows], 2), orientation)
    maps = [tf.constant(encode(values, "PNG")) for values in (rows, columns)]
    for size in (SIZE, (300, 280)):  # shrunk, also decoded smaller; and enlarged
        differences = []
        for decoder in decoders(size):
            for key in range(3):
                image, crop = decoded(decoder, contents, ONE_BOX, key)
                step = (crop.part[2:] / crop.place[2:]).numpy()  # pixels of the picture an output's pixel
                for axis in (0, 1):
                    found = PixelMap().transform({"": maps[axis]}, crop)[""].numpy()
                    seen = found < 255
                    shift = (image[..., axis].astype(float) - found)[seen]
                    np.testing.assert_allclose(shift, 0, atol=1.5 * step[axis] + 5)  # of a JPEG
                    differences.append(shift.mean() / max(step[axis], 1))
                assert (image[~seen] == decoder.cropper.fill).all()
        # the nearest pixel is up to half a pixel off, to either side; a shift of the grid would show in the mean
        assert abs(np.mean(differences)) < 0.25


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_crop_says_what_a_jpeg_decoded_smaller_shows(orientation):
    """To a fraction of a picture's pixel, although parts are decoded in blocks of up to eight."""
    rows, columns = np.mgrid[0:230, 0:250].astype(np.uint8)
    contents = oriented(np.stack([rows, columns, rows], 2), orientation)
    decoder = Decoder(croppers.Inception((20, 24), (0.3, 1.0), (0.75, 1.33)), "bilinear")
    for key in range(12):
        image, crop = decoded(decoder, contents, {}, key)
        for axis in (0, 1):
            start, length, extent = (int(x) for x in (crop.part[axis], crop.part[axis + 2], crop.size[axis]))
            wanted = start + (np.arange(extent) + 0.5) * length / extent - 0.5
            shown = image[..., axis].mean(1 - axis)
            assert abs((shown - wanted)[1:-1].mean()) < 0.6, (crop.part, axis)


# --- Through a data set ---


def examples(count, first):
    for i in range(first, first + count):
        rng = np.random.default_rng(i)
        height, width = int(rng.integers(40, 90)), int(rng.integers(40, 90))
        corners = np.sort(rng.random((i % 4, 2, 2)), 1) * [height, width]
        boxes = [bbox(*corners[n, 0], *corners[n, 1], height, width) for n in range(i % 4)]
        yield {
            "image": io.BytesIO(encode(picture(height, width, seed=i), "JPEG")),
            "label": i % 3,
            "objects": [
                {"bbox": box, "label": n, "area": 10 * i + n, "is_crowd": n == 2} for n, box in enumerate(boxes)
            ],
            "mask": np.full((height, width, 1), i % 5, np.uint8),
        }


@pytest.fixture(scope="module", params=["memory", "streamed", "array_record"])
def everything(request, tmp_path_factory):
    """A set with a label, objects and a map, and what a task would take from it."""
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("everything")
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=["x", "y", "z"]),
        "objects": objects_feature(["a", "b", "c"], "area", "is_crowd"),
        "mask": tfds.features.LabeledImage(labels=[*"vwxyz"], shape=(None, None, 1)),
    }
    splits = {"train": lambda: examples(20, 0), "test": lambda: examples(7, 100)}
    file_format = "array_record" if request.param == "array_record" else "tfrecord"
    write_features(root, "everything", features, splits, file_format=file_format)
    return config(name="everything", data_dir=str(root), cache_mb=0 if request.param == "streamed" else 1024)


KINDS = {"label": Label(), "boxes": Boxes(most=3), "map": PixelMap(feature="mask")}


def test_batches_of_everything(everything):
    dataset = Dataset.open(everything, KINDS)
    train = pipeline.train_batches(dataset, batch_size=4, seed=0, start_step=0)
    batches = [next(train) for _ in range(5)]
    train.close()
    assert sorted(joined(batches, "index")) == list(range(20))
    evaluated = list(pipeline.eval_batches(dataset, batch_size=4))
    for name, one in (("train", batches[0]), ("eval", evaluated[0]), ("eval", evaluated[-1])):
        fields = dataset.fields(train=name == "train")
        assert {key: (value.shape, value.dtype) for key, value in one.items()} == {
            key: ((4, *field.shape), np.dtype(field.dtype)) for key, field in fields.items()
        }
        assert ("crop" in one) == (name == "eval")
    last = evaluated[-1]
    assert last["mask"].tolist() == [1, 1, 1, 0]
    assert (last["map"][3] == 255).all()
    assert not any(last[name][3].any() for name in ("boxes", "boxes_mask", "boxes_class", "label"))
    assert np.isfinite(Crop.from_rows(last["crop"], (32, 32)).boxes_to_picture(last["boxes"])).all()


def test_examples_keep_what_belongs_to_them(everything):
    everything = everything.copy_and_resolve_references()
    everything.eval_crop, everything.crop = 1.0, "center"
    dataset = Dataset.open(everything, KINDS)
    for batch in pipeline.eval_batches(dataset, batch_size=8, split="train"):
        back = Crop.from_rows(batch["crop"], (32, 32)).boxes_to_picture(batch["boxes"])
        for row in np.flatnonzero(batch["mask"]):
            height, width = batch["crop"][row, 9:]
            [wanted] = [
                found
                for i, found in enumerate(examples(20, 0))
                if found["mask"].shape[:2] == (height, width) and i % 5 == batch["map"][row, 0, 0]
            ]
            assert batch["label"][row] == wanted["label"]
            assert (batch["map"][row] == wanted["mask"][0, 0, 0]).all()
            objects = wanted["objects"]
            assert batch["boxes_mask"][row].sum() == len(objects)
            for slot, one in enumerate(objects):
                corners = np.array([one["bbox"].ymin, one["bbox"].xmin, one["bbox"].ymax, one["bbox"].xmax])
                np.testing.assert_allclose(back[row, slot], corners * [height, width, height, width], atol=1e-2)
                assert batch["boxes_class"][row, slot] == one["label"]
                assert batch["boxes_area"][row, slot] == one["area"]
                assert batch["boxes_ignore"][row, slot] == one["is_crowd"]


def test_class_names_and_values_come_from_the_annotation(everything):
    names = {name: Dataset.open(everything, {name: kind}).info.class_names for name, kind in KINDS.items()}
    assert names == {"label": ("x", "y", "z"), "boxes": ("a", "b", "c"), "map": tuple("vwxyz")}
    everything = everything.copy_and_resolve_references()
    everything.cache_mb = 1024
    dataset = Dataset.open(everything, KINDS)
    assert np.bincount(dataset.values("boxes_class", "train")).tolist() == [15, 10, 5]
    assert np.bincount(dataset.values("label", "train")).tolist() == [7, 7, 6]
    assert dataset.values("boxes_class", "train").dtype == np.int32
    assert Dataset.open(everything, {}).info.class_names == ()


def test_images_alone_need_no_annotation(everything):
    dataset = Dataset.open(everything, {})
    [batch] = pipeline.eval_batches(dataset, batch_size=8)
    assert sorted(batch) == ["image", "index", "mask"]


def test_the_same_whichever_process_reads_it(everything):
    dataset = Dataset.open(everything, KINDS)
    alone = {int(i): n for n, i in enumerate(joined(list(pipeline.eval_batches(dataset, batch_size=7)), "index"))}
    whole = list(pipeline.eval_batches(dataset, batch_size=7))
    for process in range(2):
        for batch in pipeline.eval_batches(dataset, batch_size=2, process_index=process, process_count=2):
            for row in np.flatnonzero(batch["mask"]):
                for name, value in batch.items():
                    np.testing.assert_array_equal(value[row], joined(whole, name)[alone[int(batch["index"][row])]])


def test_drawings_show_what_is_there():
    image = np.zeros((20, 30, 3), np.uint8)
    parts = {"": np.float32([[2, 3, 10, 20], [0, 0, 0, 0]]), "class": [4, 0], "ignore": [False, False]}
    drawn = Boxes(most=2).draw(image, parts, ())
    assert drawn[2, 3:20].any(1).all()
    assert drawn[2:10, 19].any(1).all()
    assert not drawn[3:9, 4:19].any()
    assert not image.any()
    values = np.full((20, 30), 255, np.uint8)
    values[:10] = 2
    drawn = PixelMap().draw(image, {"": values}, ())
    assert (drawn[10:] == 127).all()
    assert (drawn[0] == drawn[9]).all()
