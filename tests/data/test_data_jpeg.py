"""Headers of many JPEGs at once, and that what is planned from them changes no pixel."""

import io

import numpy as np
import pytest
from PIL import Image
from sample_sets import config, encode, picture

from mnet_jax.data import croppers, jpeg, order
from mnet_jax.data.decode import Decoder
from mnet_jax.data.tensorflow_setup import tf

SIZE = (24, 20)


def with_exif(pixels, orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return encode(pixels, "JPEG", exif=tags)


def files():
    """Name -> contents of images of many forms: some are enlarged, some shrunk, some decoded smaller."""
    return {
        "plain": encode(picture(45, 61), "JPEG"),
        "progressive": encode(picture(61, 45), "JPEG", progressive=True),
        "4:4:4": encode(picture(30, 33), "JPEG", subsampling=0),
        "grey": encode(picture(40, 40, channels=1), "JPEG"),
        "comment": encode(picture(33, 50), "JPEG", comment=b"x" * 3000, icc_profile=b"y" * 5000),
        "exif upright": with_exif(picture(35, 50), 1),
        "exif turned": with_exif(picture(35, 50), 6),
        "large": encode(picture(300, 260), "JPEG"),
        "small": encode(picture(9, 7), "JPEG"),
        "long": encode(picture(12, 200), "JPEG"),
        "png": encode(picture(45, 61), "PNG"),
    }


FILES = files()


def test_shapes_are_pillows():
    found = jpeg.read_headers(tf.constant(list(FILES.values())))
    for name, contents, known, shape, has_exif in zip(
        FILES, FILES.values(), found.known.numpy(), found.shape.numpy(), found.has_exif.numpy(), strict=True
    ):
        assert known == (name != "png"), name
        assert has_exif == name.startswith("exif"), name
        if known:
            assert tuple(shape) == Image.open(io.BytesIO(contents)).size[::-1], name


def test_what_is_no_whole_header_is_not_known():
    plain = FILES["plain"]
    cut = [plain[:n] for n in (0, 1, 2, 3, 4, 20, 21, 30, 170, plain.index(b"\xff\xda"))]
    endless = b"\xff\xd8" + b"\xff\xe2\x00\x02" * 500
    odd = [endless, plain[:2] + b"\xff\xff" + plain[2:], b"\xff\xd8\xff\x00\x00\x00\x00", b"GIF89a", b"BM"]
    found = jpeg.read_headers(tf.constant([*cut, *odd, plain]))
    assert found.known.numpy().tolist() == [False] * (len(cut) + len(odd)) + [True]


def test_draws_are_those_of_the_hash():
    keys, indices = np.array([-5, 7, 2**62, 7]), np.array([0, 1_281_166, 3, 4])
    found = croppers.uniform(tf.constant(keys), tf.constant(indices), 41).numpy()
    for row, key, index in zip(found, keys, indices, strict=True):
        wanted = (order.hash64(int(key) % 2**64, int(index), np.arange(41)) >> np.uint64(40)).astype(np.float64)
        np.testing.assert_array_equal(row, (wanted / 2**24).astype(np.float32))
    assert found.min() >= 0
    assert found.max() < 1


def test_draws_are_uniform_and_do_not_hang_together():
    found = croppers.uniform(tf.fill([20000], tf.constant(3, tf.int64)), tf.range(20000, dtype=tf.int64), 6).numpy()
    for column in found.T:
        np.testing.assert_allclose(np.histogram(column, 10, (0, 1))[0], 2000, atol=200)
    correlations = np.corrcoef(np.concatenate([found[1:], found[:-1]], 1).T)
    assert np.abs(correlations - np.eye(12)).max() < 0.03


def test_boxes_do_not_depend_on_their_neighbours():
    """To the last bit, or a resumed run would crop otherwise: it plans in other groups."""
    rng = np.random.default_rng(0)
    shapes = tf.constant(rng.integers(1, 900, (67, 2)), tf.int32)
    draws = tf.constant(rng.random((67, croppers.NUM_DRAWS), np.float32))
    together = croppers.inception_box(shapes, draws, (0.08, 1.0), (3 / 4, 4 / 3)).numpy()
    for n in (1, 3, 16):
        apart = [
            croppers.inception_box(shapes[i : i + n], draws[i : i + n], (0.08, 1.0), (3 / 4, 4 / 3)).numpy()
            for i in range(0, 67, n)
        ]
        np.testing.assert_array_equal(np.concatenate(apart), together)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_short_way_gives_the_same_pixels_and_crop(interpolation):
    data = config(interpolation=interpolation, eval_crop=0.9)

    def both_ways(decoder, examples):
        """What comes of each example on the planned way and on the general one."""

        @tf.function
        def run(example):
            pixels, crop = decoder.pixels(example)
            return pixels, crop.row()

        planned = decoder.plan(examples)
        for i in range(len(examples["contents"])):
            one = tf.nest.map_structure(lambda values, i=i: values[i], planned)
            general = {**one, "plan": one["plan"]._replace(way=tf.constant(0))}
            for short, long in zip(run(one), run(general), strict=True):
                np.testing.assert_array_equal(short.numpy(), long.numpy())
        return planned["plan"].way.numpy()

    contents = tf.constant([c for c in FILES.values() for _ in range(8)])
    index = tf.range(len(contents), dtype=tf.int64)
    trained = Decoder(croppers.train_cropper(data, SIZE), interpolation, flip=True)
    ways = both_ways(trained, {"contents": contents, "index": index, "key": tf.zeros_like(index)})
    assert 0.3 < np.mean(ways != 0) < 0.9
    evaluated = Decoder(croppers.eval_cropper(data, SIZE), interpolation)
    assert set(both_ways(evaluated, {"contents": contents[::8], "index": index[::8]})) == {0, 1, 2}
