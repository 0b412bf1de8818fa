"""The crops of SSD: the same as NumPy makes of the same draws, distributed as torchvision's loops, and on real sets."""

import numpy as np
import pytest
from box_folders import pictures, write_voc
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_sets import config, encode, joined

from mnet_jax.data import crop_ssd, croppers, pipeline
from mnet_jax.data.annotations import Boxes, Label
from mnet_jax.data.dataset import Dataset
from mnet_jax.data.decode import Decoder
from mnet_jax.data.pixel_map import PixelMap
from mnet_jax.data.tensorflow_setup import graph_function, tf

OPTIONS = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]
NUM_DRAWS = crop_ssd.NUM_DRAWS


# --- Independent of the code under test: torchvision's two transforms, one trial at a time ---


def zoom_out(height, width, random, probability=0.5):
    """RandomZoomOut: the canvas's height and width, and where in it the picture begins."""
    chance, far, down, right = random(4)
    if chance >= probability:
        return height, width, 0, 0
    r = 1 + far * 3
    canvas_height, canvas_width = int(height * r), int(width * r)
    return canvas_height, canvas_width, int((canvas_height - height) * down), int((canvas_width - width) * right)


def iou_crop(height, width, boxes, random, rounds=None):
    """RandomIoUCrop, its option too: (y, x, height, width). `boxes` are y1, x1, y2, x2."""
    turn = 0
    while rounds is None or turn < rounds:
        turn += 1
        option = OPTIONS[int(random(1)[0] * 7)]
        if option >= 1.0:
            random(160)
            return (0, 0, height, width), option
        trials, found = random(160).reshape(40, 4), None
        for r in trials:
            new_h, new_w = int(height * (0.3 + 0.7 * r[0])), int(width * (0.3 + 0.7 * r[1]))
            if not new_h or not new_w or not 0.5 <= new_w / new_h <= 2:
                continue
            top, left = int((height - new_h) * r[2]), int((width - new_w) * r[3])
            best = -1.0
            for y1, x1, y2, x2 in boxes:
                if left < (x1 + x2) / 2 < left + new_w and top < (y1 + y2) / 2 < top + new_h:
                    h = max(0, min(y2, top + new_h) - max(y1, top))
                    w = max(0, min(x2, left + new_w) - max(x1, left))
                    best = max(best, h * w / ((y2 - y1) * (x2 - x1) + new_h * new_w - h * w))
            if best >= option and best >= 0:
                found = (top, left, new_h, new_w)
                break
        if found:
            return found, option
    return (0, 0, height, width), None


def sequence(values):
    """What gives these numbers, one after the other."""
    values = list(np.float64(values))
    return lambda count: np.array([values.pop(0) for _ in range(count)])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 6), height=st.integers(20, 900), width=st.integers(20, 900))
def test_the_part_is_what_numpy_makes_of_the_same_draws(seed, count, height, width):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2)), 1)
    boxes = np.float32(np.concatenate([corners[:, 0], corners[:, 1]], 1) * [height, width, height, width])
    draws = rng.random(NUM_DRAWS, np.float32)
    wanted, _ = iou_crop(height, width, boxes, sequence(draws[4:]), rounds=crop_ssd.ROUNDS)
    found = crop_ssd.overlapping(tf.constant([height, width]), tf.constant(boxes), tf.constant(draws[4:]))
    assert tuple(found.numpy()) == wanted
    canvas, origin = crop_ssd.zoomed_out(tf.constant([height, width]), tf.constant(draws[:4]), 0.5)
    assert (*canvas.numpy(), *origin.numpy()) == zoom_out(height, width, sequence(draws[:4]))


SETS = {  # height, width, boxes
    "one large": (300, 400, [[30, 40, 250, 350]]),
    "one small": (300, 400, [[30, 40, 60, 80]]),
    "many": (300, 400, [[20 * i, 30 * i, 20 * i + 50, 30 * i + 60] for i in range(10)]),
    "none": (300, 400, []),
}


@pytest.mark.parametrize("name", SETS)
def test_parts_are_distributed_as_torchvisions(name):
    height, width, boxes = SETS[name]
    boxes = np.float32(boxes).reshape(-1, 4)
    rng = np.random.default_rng(1)
    if len(boxes):
        theirs = np.array([iou_crop(height, width, boxes, rng.random)[0] for _ in range(500)])
    else:  # torchvision goes on until it draws the option 1
        theirs = np.array([(0, 0, height, width)] * 500)
    draws = tf.data.Dataset.from_tensor_slices(rng.random((1000, NUM_DRAWS - 4), np.float32))
    one = graph_function(lambda d: crop_ssd.overlapping(tf.constant([height, width]), tf.constant(boxes), d))
    ours = draws.map(one).batch(1000).get_single_element().numpy()
    assert (ours >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= [height, width]).all()
    shares = [np.mean((parts[:, 2:] == [height, width]).all(1)) for parts in (ours, theirs)]
    np.testing.assert_allclose(*shares, atol=0.07)  # of the whole; 500 draws give 0.022, ten rounds up to 0.017
    for column in range(4):
        quantiles = [np.quantile(parts[:, column], np.linspace(0.1, 0.9, 9)) for parts in (ours, theirs)]
        np.testing.assert_allclose(*quantiles, atol=0.1 * max(height, width))


# --- As a cropper ---


def parts_of(boxes, ignored=None):
    ignored = [0] * len(boxes) if ignored is None else ignored
    flat = np.float32(boxes).reshape(-1)
    return {"": tf.constant(flat), "class": tf.zeros(len(boxes), tf.int64), "ignore": tf.constant(ignored, tf.int64)}


def cuts(cropper, shape, parts, count, seed=0):
    draws = np.random.default_rng(seed).random((count, NUM_DRAWS), np.float32)
    one = graph_function(lambda d: cropper.cut(tf.constant(shape), d, {"objects": parts}))
    found = tf.data.Dataset.from_tensor_slices(draws).map(one).batch(count).get_single_element()
    return found.part.numpy(), found.place.numpy()


def test_the_cut_is_inside_the_picture_and_the_output():
    cropper = croppers.SSD((64, 96), zoom_out=0.5, fill=(1, 2, 3))
    for shape, box in (((300, 400), [0.4, 0.4, 0.6, 0.7]), ((3, 500), [0, 0.2, 1, 0.4]), ((1, 1), [0, 0, 1, 1])):
        part, place = cuts(cropper, shape, parts_of([box]), 200)
        assert (part[:, :2] >= 0).all()
        assert (part[:, 2:] >= 1).all()
        assert (part[:, :2] + part[:, 2:] <= shape).all()
        assert (place[:, :2] >= 0).all()
        assert (place[:, 2:] >= 1).all()
        assert (place[:, :2] + place[:, 2:] <= cropper.size).all()


def test_an_object_is_always_left():
    cropper = croppers.SSD((64, 64), zoom_out=0.5, fill=(0, 0, 0))
    parts = parts_of([[0.1, 0.1, 0.15, 0.15], [0.8, 0.7, 0.9, 0.95]])
    kind, kept = Boxes(most=2), 0
    for part, place in zip(*cuts(cropper, (200, 300), parts, 200), strict=True):
        from mnet_jax.data.crop import Crop

        crop = Crop(tf.constant(part), tf.constant(place), tf.constant(False), tf.constant([200, 300]), (64, 64))
        found = kind.transform(parts, crop)["mask"].numpy().sum()
        assert found >= 1
        kept += found == 2
    assert 0 < kept < 200


def test_what_does_not_count():
    """Crowds and boxes without extent, such as padding, lead no crop; without others all of the picture is used."""
    cropper = croppers.SSD((64, 64), zoom_out=0.0, fill=(0, 0, 0))
    none = parts_of([[0.1, 0.1, 0.4, 0.4], [0, 0, 0, 0]], ignored=[1, 0])
    part, place = cuts(cropper, (90, 80), none, 50)
    assert (part == [0, 0, 90, 80]).all()
    assert (place == [0, 0, 64, 64]).all()
    some = parts_of([[0.5, 0.5, 0.7, 0.7]])
    more = parts_of([[0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 0.7, 0.7], [0, 0, 0, 0]], ignored=[1, 0, 0])
    for one, other in zip(cuts(cropper, (90, 80), some, 50), cuts(cropper, (90, 80), more, 50), strict=True):
        np.testing.assert_array_equal(one, other)


def test_zoom_out_happens_as_often_as_it_should():
    parts = parts_of([[0.3, 0.3, 0.6, 0.6]])
    for probability in (0.0, 0.5, 1.0):
        draws = np.random.default_rng(3).random((2000, 4), np.float32)
        zoomed = [crop_ssd.zoomed_out(tf.constant([100, 100]), d, probability)[0][0] > 100 for d in draws[:300]]
        assert abs(np.mean(zoomed) - probability) < 0.08
    part, place = cuts(croppers.SSD((64, 64), zoom_out=0.0, fill=(0, 0, 0)), (90, 80), parts, 100)
    assert (place == [0, 0, 64, 64]).all()  # nothing is left over
    assert len(np.unique(part, axis=0)) > 50


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pixels_boxes_and_maps_go_the_same_way(kind):
    """A white box on black, its map beside it: box, map and pixels agree; what is left over has the mean's colour."""
    pixels = np.zeros((240, 320, 3), np.uint8)
    pixels[60:180, 120:280] = 255
    contents = encode(pixels, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    boxes, values = parts_of([[0.25, 0.375, 0.75, 0.875]]), encode(np.uint8(pixels[..., 0] > 0), "PNG")
    data = config(crop="ssd", mean=(40.0, 50.4, 60.6))
    left_over = 0
    for size in ((64, 96), (400, 300)):
        decoder = Decoder(croppers.train_cropper(data, size), "bilinear", flip=True)
        assert decoder.cropper.fill == (40, 50, 61)
        for key in range(15):
            chunk = {"index": tf.constant([5], tf.int64), "key": tf.constant([key], tf.int64)}
            example = tf.nest.map_structure(
                lambda v: v[0], decoder.plan({**chunk, "contents": tf.constant([contents])})
            )
            image, crop = decoder.pixels({**example, "annotations": {"boxes": boxes}})
            image, found = image.numpy(), Boxes(most=1).transform(boxes, crop)
            shown = PixelMap().transform({"": tf.constant(values)}, crop)[""].numpy()
            assert (image[shown == 255] == decoder.cropper.fill).all()
            left_over += (shown == 255).any()
            assert found["mask"][0]
            bright = (image[..., 0] > 127) & (shown < 255)
            rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
            bounds = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
            scale = np.max(crop.place[2:] / crop.part[2:])
            np.testing.assert_allclose(found[""][0], bounds, atol=1.01 + scale)
            assert np.mean(bright == (shown == 1)) > 0.96
    assert 3 < left_over < 27  # both kinds occur; how often is the business of the test above


def test_batches_are_a_function_of_key_and_index(tmp_path):
    write_voc(tmp_path, {"train": pictures(12), "val": pictures(4, first=12)})
    data = config(name="folder", folder=str(tmp_path), crop="ssd", crop_zoom_out=1.0)
    dataset = Dataset.open(data, {"objects": Boxes(most=3)})

    def batches(start, batch_size, steps):
        stream = pipeline.train_batches(dataset, batch_size=batch_size, seed=7, start_step=start)
        return [next(stream) for _ in range(steps)]

    first, again = batches(0, 4, 4), batches(2, 4, 2)
    wide = batches(0, 8, 2)
    for name in first[0]:
        np.testing.assert_array_equal(joined(first[2:], name), joined(again, name))
        np.testing.assert_array_equal(joined(first, name), joined(wide, name))
    other = pipeline.train_batches(dataset, batch_size=4, seed=8, start_step=0)
    assert (next(other)["image"] != first[0]["image"]).any()
    assert joined(first, "objects_mask")[:, 0].sum() == sum(i % 4 > 0 for i in joined(first, "index"))


def test_without_boxes_it_is_refused_in_one_line(tmp_path):
    from sample_sets import numbered, write_set

    write_set(tmp_path, "plain", {"train": numbered(4), "test": numbered(2)})
    dataset = Dataset.open(config(name="plain", data_dir=str(tmp_path), crop="ssd"), {"label": Label()})
    with pytest.raises(ValueError, match=r"data.crop='ssd' looks at the boxes .* type --config.data.crop=inception"):
        next(pipeline.train_batches(dataset, batch_size=2, seed=0, start_step=0))
