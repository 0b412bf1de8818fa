"""Pixels: every kind of image decodes as in Pillow, upright; fused crops are exact; evaluation as Pillow resizes."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from sample_sets import config, encode, picture

from mnet_jax.data import croppers, decode, formats, jpeg
from mnet_jax.data.decode import Decoder
from mnet_jax.data.tensorflow_setup import tf

HEIGHT, WIDTH = 45, 61
PICTURE = picture(HEIGHT, WIDTH)
GREY = picture(HEIGHT, WIDTH, channels=1)


def pillow(contents):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(contents))).convert("RGB"))


def with_orientation(number, pixels=PICTURE, **options):
    tags = Image.Exif()
    tags[0x0112] = number
    return encode(pixels, "JPEG", exif=tags, quality=90, **options)


def oriented(number):
    """The stored picture that shows `PICTURE` when it is turned upright; apart from the code that turns."""
    return {
        1: PICTURE,
        2: PICTURE[:, ::-1],
        3: PICTURE[::-1, ::-1],
        4: PICTURE[::-1],
        5: PICTURE.transpose(1, 0, 2),
        6: np.rot90(PICTURE, 1),
        7: np.rot90(PICTURE, 2).transpose(1, 0, 2),
        8: np.rot90(PICTURE, -1),
    }[number]


def palette(**options):
    return encode(Image.fromarray(PICTURE).quantize(32), **options)


KINDS = {
    "jpeg": encode(PICTURE, "JPEG"),
    "jpeg 4:4:4": encode(PICTURE, "JPEG", subsampling=0),
    "jpeg progressive": encode(PICTURE, "JPEG", progressive=True),
    "jpeg grey": encode(GREY, "JPEG"),
    "png": encode(PICTURE, "PNG"),
    "png grey": encode(GREY, "PNG"),
    "png palette": palette(kind="PNG"),
    "png one bit": encode(Image.fromarray(GREY).convert("1"), "PNG"),
    "gif": palette(kind="GIF"),
    "bmp": encode(PICTURE, "BMP"),
    "webp": encode(PICTURE, "WEBP", lossless=True),
    "jpeg 1x1": encode(PICTURE[:1, :1], "JPEG"),
    "png 1x1": encode(PICTURE[:1, :1], "PNG"),
    "jpeg 1x61": encode(PICTURE[:1], "JPEG"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_decodes_as_pillow(kind):
    np.testing.assert_array_equal(decode.load_image(KINDS[kind]), pillow(KINDS[kind]))


def test_cmyk_jpeg():
    contents = encode(Image.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(contents)).mode == "CMYK"
    difference = np.abs(decode.load_image(contents).astype(int) - PICTURE)
    assert difference.mean() < 3


def test_16_bit_png():
    values = (GREY.astype(np.uint16) << 8) | 77
    np.testing.assert_array_equal(decode.load_image(encode(values, "PNG")), np.repeat(GREY[..., None], 3, 2))


def over_white(pixels, alpha):
    """By the formula, apart from Pillow."""
    alpha = alpha[..., None] / 255
    return pixels * alpha + 255 * (1 - alpha)


ALPHA = picture(HEIGHT, WIDTH, seed=9, channels=1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_transparent_pixels_are_shown_over_white(kind):
    options = {"WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100}}.get(kind, {})
    contents = encode(np.concatenate([PICTURE, ALPHA[..., None]], 2), kind, **options)
    stored = np.asarray(Image.open(io.BytesIO(contents)).convert("RGBA"))
    expected = over_white(stored[..., :3], stored[..., 3])
    np.testing.assert_allclose(decode.load_image(contents), expected, atol=1)
    assert formats.fault(contents) is None
    if kind in ("PNG", "TIFF"):
        contents = encode(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), kind)
        expected = over_white(np.repeat(GREY[..., None], 3, 2), ALPHA)
        np.testing.assert_allclose(decode.load_image(contents), expected, atol=1)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_is_white(kind):
    coloured = Image.fromarray(PICTURE).quantize(32)
    numbers, colours = np.asarray(coloured), np.asarray(coloured.convert("RGB"))
    expected = np.where((numbers == 7)[..., None], 255, colours)
    assert (numbers == 7).any()
    np.testing.assert_array_equal(decode.load_image(encode(coloured, kind, transparency=7)), expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("number", range(1, 9))
def test_orientation_of_others_than_jpeg(kind, number):
    tags = Image.Exif()
    tags[0x0112] = number
    options = {"lossless": True} if kind == "WEBP" else {}
    contents = encode(np.ascontiguousarray(oriented(number)), kind, exif=tags, **options)
    np.testing.assert_array_equal(decode.load_image(contents), PICTURE)


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.fromarray(GREY), "BMP", GREY),
        (Image.fromarray(PICTURE).quantize(32), "BMP", Image.fromarray(PICTURE).quantize(32).convert("RGB")),
        (Image.fromarray(GREY).convert("1"), "BMP", Image.fromarray(GREY).convert("1").convert("RGB")),
        (Image.fromarray(PICTURE), "TIFF", PICTURE),
        (Image.fromarray(GREY), "TIFF", GREY),
        (Image.fromarray((GREY.astype(np.uint16) << 8) | 77), "TIFF", GREY),
    ],
)
def test_odd_files_by_pillow(image, kind, expected):
    expected = np.asarray(expected)
    expected = np.repeat(expected[..., None], 3, 2) if expected.ndim == 2 else expected
    np.testing.assert_array_equal(decode.load_image(encode(image, kind)), expected)


def test_16_bit_bmp():
    """5 bits a colour, of 1 x 2 pixels: red, and blue of half strength; rows are filled up to 4 bytes."""
    header = b"BM" + (58).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    sizes = (40).to_bytes(4, "little") + (2).to_bytes(4, "little") + (1).to_bytes(4, "little")
    rest = (1).to_bytes(2, "little") + (16).to_bytes(2, "little") + bytes(24)
    pixels = (0x1F << 10).to_bytes(2, "little") + (0x10).to_bytes(2, "little")
    found = decode.load_image(header + sizes + rest + pixels)
    np.testing.assert_allclose(found, [[[255, 0, 0], [0, 0, 255 * 16 / 31]]], atol=1)


def test_what_cannot_be_read_here_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert formats.fault(b"\0\0\0\x18ftypheic" + b"\0" * 100) == "HEIC, which needs pip install pi-heif"


def test_animation_shows_its_first_picture():
    frames = [Image.fromarray(PICTURE).quantize(32), Image.fromarray(PICTURE[::-1]).quantize(32)]
    contents = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode.load_image(contents), pillow(contents))


def test_the_name_of_a_file_does_not_matter(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(KINDS["png"])
    np.testing.assert_array_equal(decode.load_image(tmp_path / "photo.jpg"), PICTURE)
    np.testing.assert_array_equal(decode.load_image(str(tmp_path / "photo.jpg")), PICTURE)


@pytest.mark.parametrize("number", range(1, 9))
def test_orientation(number):
    contents = with_orientation(number, np.ascontiguousarray(oriented(number)), subsampling=0)
    image = decode.load_image(contents)
    np.testing.assert_array_equal(image, pillow(contents))
    assert np.abs(image.astype(int) - PICTURE).mean() < 3  # upright, but for the JPEG's losses
    # Crops are chosen in the upright picture; each is the same part of it.
    rng = np.random.default_rng(number)
    for _ in range(5):
        y, x = rng.integers(0, HEIGHT), rng.integers(0, WIDTH)
        h, w = rng.integers(1, HEIGHT - y + 1), rng.integers(1, WIDTH - x + 1)
        part = decode.decode(tf.constant(contents), lambda shape, b=(y, x, h, w): tf.constant(b, tf.int32)).numpy()
        np.testing.assert_array_equal(part, image[y : y + h, x : x + w])


@pytest.mark.parametrize("order", ["big", "little"])
def test_orientation_is_found_behind_other_segments(order):
    number = (6).to_bytes(2, order) + b"\0\0"
    entry = (0x0112).to_bytes(2, order) + (3).to_bytes(2, order) + (1).to_bytes(4, order) + number
    other = (0x0100).to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order) + b"\0\0\0\0"
    mark = b"MM\0*\0\0\0\x08" if order == "big" else b"II*\0\x08\0\0\0"
    tiff = mark + (2).to_bytes(2, order) + other + entry + b"\0\0\0\0"
    segment = b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff
    photoshop = b"\xff\xed" + (30002).to_bytes(2, "big") + b"\xff\xe1" * 15000
    plain = encode(PICTURE, "JPEG")
    for before in (b"", plain[2:20], plain[2:20] + photoshop):
        contents = plain[:2] + before + segment + plain[20:]
        assert jpeg.parse_orientation(contents) == 6
        assert int(jpeg.orientation(tf.constant(contents))) == 6
        np.testing.assert_array_equal(decode.load_image(contents), pillow(contents))


@pytest.mark.parametrize(
    "contents",
    [
        encode(PICTURE, "JPEG"),
        with_orientation(0),
        with_orientation(9),
        b"\xff\xd8\xff\xe1\x00\x10Exif\0\0",
        b"\xff\xd8\xff\xe1\x00\x10Exif\0\0MM\0*\xff\xff\xff\xff",
        b"\xff\xd8\xff\xe1\x00\x00Exif\0\0II",
        b"\xff\xd8\xff\xda" + b"\0" * 30,
        b"\xff\xd8",
        b"",
    ],
)
def test_no_sensible_orientation_is_upright(contents):
    assert jpeg.parse_orientation(contents) == 1


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_fused_crop_is_exact(subsampling, options):
    contents = tf.constant(encode(PICTURE, "JPEG", subsampling=subsampling, quality=90, **options))
    whole = decode.decode(contents, croppers.whole).numpy()
    rng = np.random.default_rng(subsampling)
    for _ in range(40):
        y, x = rng.integers(0, HEIGHT), rng.integers(0, WIDTH)
        h, w = rng.integers(1, HEIGHT - y + 1), rng.integers(1, WIDTH - x + 1)
        part = decode.decode(contents, lambda shape, b=(y, x, h, w): tf.constant(b, tf.int32)).numpy()
        np.testing.assert_array_equal(part, whole[y : y + h, x : x + w])


@pytest.mark.parametrize(
    ("target", "ratio"), [((100, 100), 1), ((76, 76), 2), ((75, 120), 2), ((30, 30), 4), ((9, 9), 8)]
)
def test_reduced_decoding(target, ratio):
    """A training crop of a large photo is decoded smaller: as the mean over blocks, within a few shades."""
    pixels = picture(176, 272)
    contents = tf.constant(encode(pixels, "JPEG", quality=95, subsampling=0))
    box = (8, 16, 152, 240)
    part = decode.decode(contents, lambda shape: tf.constant(box), reduce_to=target).numpy()
    assert part.shape == (152 // ratio, 240 // ratio, 3)
    assert part.shape[0] >= target[0]
    assert part.shape[1] >= target[1]
    cut = pixels[8:160, 16:256].astype(np.float64)
    means = cut.reshape(152 // ratio, ratio, 240 // ratio, ratio, 3).mean((1, 3))
    assert np.abs(part - means).mean() < 3


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("share", [0.875, 1.0])
@pytest.mark.parametrize("size", [(24, 24), (20, 40), (80, 80)])
def test_evaluation_as_pillow(interpolation, share, size):
    """Decode, cut, resize with Pillow, whose filters are antialiased: the same within a rounding."""
    contents = encode(PICTURE, "JPEG", quality=90)
    data = config(interpolation=interpolation, eval_crop=share)
    image = Decoder(croppers.eval_cropper(data, size), interpolation).one(tf.constant(contents)).numpy()
    y, x, h, w = croppers.center_box(tf.constant([HEIGHT, WIDTH]), size, share).numpy()
    part = Image.open(io.BytesIO(contents)).crop((x, y, x + w, y + h))
    reference = np.asarray(part.resize(size[::-1], Image.Resampling[interpolation.upper()]))
    np.testing.assert_allclose(image.astype(int), reference.astype(int), atol=2)
    # and what `mnet predict` does with a loaded image is the same to the last bit
    picture = decode.load_image(contents)
    pixels, crop = decode.eval_crop(picture, size, share, interpolation)
    np.testing.assert_array_equal(pixels, image)
    corners = np.array([[0, 0, *size]], np.float32)  # the output's own frame is the part that was cut out
    y, x, height, width = crop.part
    np.testing.assert_allclose(crop.boxes_to_picture(corners)[0], [y, x, y + height, x + width])


def train_image(contents, index, size=(HEIGHT, WIDTH), **fields):
    data = config(**fields)
    decoder = Decoder(croppers.train_cropper(data, size), data.interpolation, data.flip)
    return decoder.one(tf.constant(contents), tf.constant(5, tf.int64), tf.constant(index, tf.int64)).numpy()


def test_pad_crop_moves_the_image_over_black():
    found = set()
    for index in range(60):
        image = train_image(KINDS["png"], index, crop="pad", crop_pad=2, flip=False)
        padded = np.pad(PICTURE, [(2, 2), (2, 2), (0, 0)])
        places = [
            (y, x) for y in range(5) for x in range(5) if np.array_equal(image, padded[y : y + HEIGHT, x : x + WIDTH])
        ]
        assert len(places) == 1
        found.add(places[0])
    assert {y for y, _ in found} == {x for _, x in found} == set(range(5))


def test_flip_is_on_for_half():
    images = [train_image(KINDS["png"], index, crop="center", eval_crop=1.0) for index in range(60)]
    flipped = [np.array_equal(image, PICTURE[:, ::-1]) for image in images]
    assert all(f or np.array_equal(image, PICTURE) for f, image in zip(flipped, images, strict=True))
    assert 15 < sum(flipped) < 45
    assert np.array_equal(train_image(KINDS["png"], 0, crop="center", eval_crop=1.0, flip=False), PICTURE)


def test_training_crop_is_a_function_of_key_and_index():
    images = [train_image(KINDS["jpeg"], index, size=(16, 16)) for index in (1, 1, 2)]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_trained_on(kind):
    assert train_image(KINDS[kind], 0, size=(16, 20)).shape == (16, 20, 3)


def test_truncated_jpeg_keeps_what_there_is():
    """In sets of records, which nobody looked through; a folder leaves it out, and prediction refuses it."""
    contents = encode(picture(160, 160), "JPEG", quality=95)
    half = contents[: len(contents) // 2]
    image = decode.decode(tf.constant(half), croppers.whole).numpy()
    np.testing.assert_array_equal(image[:48], decode.load_image(contents)[:48])
    assert (image[-16:] == 128).all()
    with pytest.raises(ValueError, match="damaged JPEG"):
        decode.load_image(half)


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"hello", "not an image"),
        (b"", "empty"),
        (KINDS["png"][:200], "damaged PNG"),
        (KINDS["jpeg"][:100], "damaged JPEG"),
        (palette(kind="GIF")[:300], "damaged GIF"),
        (b"II*\0" + b"\0" * 20, "damaged TIFF"),
    ],
)
def test_unreadable_image_is_one_clear_line(contents, reason):
    with pytest.raises(ValueError, match=f"cannot read these bytes: {reason}; JPEG, PNG"):
        decode.load_image(contents)
    assert formats.fault(contents) == reason


def test_missing_image_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no such image: .*gone\.jpg"):
        decode.load_image(tmp_path / "gone.jpg")
    with pytest.raises(ValueError, match="not a regular file"):
        decode.load_image(tmp_path)


@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "jpeg grey", "jpeg 1x1"])
def test_whole_jpeg_is_known_by_its_ends(kind):
    contents = KINDS[kind]
    assert jpeg.is_whole(contents[: 1 << 16], contents[-2:])
    assert not jpeg.is_whole(contents[:50], contents[-2:])
    assert not jpeg.is_whole(contents[:-40], contents[-42:-40])
    assert formats.fault(contents) is None
