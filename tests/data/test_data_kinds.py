"""Kinds of image files that people have, written by other programs, against Pillow's own reading over white.

All show one picture, and come out the same in training, evaluation, prediction and calibration.
"""

import io
import shutil
import subprocess
import types

import numpy as np
import pytest
from PIL import Image, ImageOps
from sample_sets import config, encode, opened, picture

from mnet_jax.data import decode, formats, pipeline
from mnet_jax.data.tensorflow_setup import tf
from mnet_jax.deploy.int8 import calibration

HEIGHT, WIDTH = 24, 36
PICTURE = picture(HEIGHT, WIDTH, seed=3)
GREY = PICTURE[..., 0]
ALPHA = np.linspace(0, 255, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, 0)
RGB, RGBA = Image.fromarray(PICTURE), Image.fromarray(np.dstack([PICTURE, ALPHA]))
LA = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(ALPHA)))
PALETTE, OTHER = RGB.quantize(16), Image.fromarray(PICTURE[::-1].copy())
DEEP = Image.fromarray((GREY.astype(np.uint16) << 8) | 99)


def turned(image, kind, number, **options):
    """A file whose picture is stored turned, with the EXIF orientation that makes it upright."""
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = number
    return encode(image.transpose(undo[number]), kind, exif=exif.tobytes(), **options)


def animated(image, kind, **options):
    return encode(image, kind, save_all=True, append_images=[OTHER.convert(image.mode)], duration=40, **options)


def sixteen_bits_a_pixel():
    """A BMP of 5 bits a colour, which Pillow does not write."""
    size, row = WIDTH * 2 * HEIGHT, (PICTURE >> 3).astype(np.uint16)
    values = (row[..., 0] << 10 | row[..., 1] << 5 | row[..., 2])[::-1]  # from the bottom; rows are whole 4 bytes
    header = b"BM" + (54 + size).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    header += (40).to_bytes(4, "little") + WIDTH.to_bytes(4, "little") + HEIGHT.to_bytes(4, "little")
    return header + (1).to_bytes(2, "little") + (16).to_bytes(2, "little") + bytes(24) + values.tobytes()


def heic(image, **options):
    """A HEIC file; the skip says what is missing."""
    pytest.importorskip("pillow_heif", reason="pillow-heif writes the tests' HEIC files").register_heif_opener()
    return encode(image, "HEIF", quality=90, **options)


def turned_heic(number):
    """A HEIC file that has its rotation as iPhones write it: both in the container and in EXIF."""
    pytest.importorskip("pillow_heif", reason="pillow-heif writes the tests' HEIC files").register_heif_opener()
    return turned(RGB, "HEIF", number, quality=90)


def by(program, arguments, source="PNG", image=RGBA, ending=".out"):
    """A file that a program of the machine makes of ours; the skip says which is missing."""

    def make(tmp_path):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on this machine")
        (tmp_path / "in.png").write_bytes(encode(image, source))
        out = tmp_path / f"out{ending}"
        command = [
            program,
            *(str(tmp_path / "in.png") if a == "IN" else str(out) if a == "OUT" else a for a in arguments),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return out.read_bytes()

    return make


KINDS = {
    "png": lambda: encode(RGB, "PNG"),
    "png grey": lambda: encode(GREY, "PNG"),
    "png grey 16 bit": lambda: encode(DEEP, "PNG"),
    "png 1 bit": lambda: encode(RGB.convert("1"), "PNG"),
    "png rgba": lambda: encode(RGBA, "PNG"),
    "png grey + alpha": lambda: encode(LA, "PNG"),
    "png palette": lambda: encode(PALETTE, "PNG"),
    "png palette, a transparent colour": lambda: encode(PALETTE, "PNG", transparency=2),
    "png palette, half transparent": lambda: encode(PALETTE, "PNG", transparency=bytes(range(0, 256, 16))),
    "png transparent colour": lambda: encode(RGB, "PNG", transparency=tuple(map(int, PICTURE[3, 4]))),
    "png transparent grey": lambda: encode(GREY, "PNG", transparency=int(GREY[3, 4])),
    "png turned": lambda: turned(RGB, "PNG", 6),
    "png rgba turned": lambda: turned(RGBA, "PNG", 8),
    "png animated": lambda: animated(RGB, "PNG"),
    "webp": lambda: encode(RGB, "WEBP", quality=90),
    "webp lossless": lambda: encode(RGB, "WEBP", lossless=True),
    "webp alpha": lambda: encode(RGBA, "WEBP", quality=90),
    "webp alpha lossless": lambda: encode(RGBA, "WEBP", lossless=True, exact=True),
    "webp animated": lambda: animated(RGB, "WEBP", lossless=True),
    "webp animated alpha": lambda: animated(RGBA, "WEBP", lossless=True),
    "webp turned": lambda: turned(RGB, "WEBP", 3, quality=90),
    "webp alpha turned": lambda: turned(RGBA, "WEBP", 6, lossless=True),
    "gif": lambda: encode(PALETTE, "GIF"),
    "gif transparent": lambda: encode(PALETTE, "GIF", transparency=2),
    "gif animated": lambda: animated(PALETTE, "GIF"),
    "bmp": lambda: encode(RGB, "BMP"),
    "bmp palette": lambda: encode(PALETTE, "BMP"),
    "bmp grey": lambda: encode(GREY, "BMP"),
    "bmp 1 bit": lambda: encode(RGB.convert("1"), "BMP"),
    "bmp 16 bit": sixteen_bits_a_pixel,
    "bmp 32 bit": lambda: encode(RGBA, "BMP"),
    "tiff": lambda: encode(RGB, "TIFF"),
    "tiff lzw": lambda: encode(RGB, "TIFF", compression="tiff_lzw"),
    "tiff grey 16 bit": lambda: encode(DEEP, "TIFF"),
    "tiff rgba": lambda: encode(RGBA, "TIFF"),
    "tiff cmyk": lambda: encode(RGB.convert("CMYK"), "TIFF"),
    "tiff pages": lambda: animated(RGB, "TIFF"),
    "tiff turned": lambda: turned(RGB, "TIFF", 6),
    "avif": lambda: encode(RGB, "AVIF", quality=90),
    "avif alpha": lambda: encode(RGBA, "AVIF", quality=90),
    "avif turned": lambda: turned(RGB, "AVIF", 6, quality=90),
    "avif animated": lambda: animated(RGB, "AVIF", quality=90),
    "heic": lambda: heic(RGB),
    "heic alpha": lambda: heic(RGBA),
    "heic grey": lambda: heic(Image.fromarray(GREY)),
    "heic turned": lambda: turned_heic(6),
    "heic turned back": lambda: turned_heic(8),
    "jpeg turned": lambda: turned(RGB, "JPEG", 6, quality=95),
    "jpeg grey": lambda: encode(GREY, "JPEG", quality=95),
}
PROGRAMS = {
    "cwebp": by("cwebp", ["-quiet", "-q", "90", "IN", "-o", "OUT"], ending=".webp"),
    "heif-enc": by("heif-enc", ["-q", "90", "IN", "-o", "OUT"], ending=".heic", image=RGB),
    "avifenc": by("avifenc", ["IN", "OUT"], ending=".avif"),
    "ImageMagick, PNG of 16 bits": by("magick", ["IN", "-depth", "16", "OUT"], ending=".png"),
    "ImageMagick, TIFF": by("magick", ["IN", "-compress", "zip", "OUT"], ending=".tiff"),
    "ImageMagick, BMP": by("magick", ["IN", "BMP3:OUT"], ending=".bmp"),
}


def reference(contents):
    """What Pillow shows of a file, the first picture upright, transparent pixels over white: uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(contents)) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits: the upper 8
            values = np.asarray(image).astype(np.int64)[..., None].repeat(3, 2) >> 8
            return values.astype(np.uint8)
        pixels = np.asarray(image.convert("RGBA")).astype(np.float64)
    alpha = pixels[..., 3:] / 255
    return np.round(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_read_as_pillow_shows_it(kind):
    contents = KINDS[kind]()
    assert formats.fault(contents) is None
    found, expected = decode.load_image(contents), reference(contents)
    assert found.shape == expected.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=1)  # of the rounding over white


@pytest.mark.parametrize("program", PROGRAMS)
def test_files_of_other_programs(program, tmp_path):
    contents = PROGRAMS[program](tmp_path)
    np.testing.assert_allclose(decode.load_image(contents).astype(int), reference(contents).astype(int), atol=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All kinds that this machine can write, in two classes; the folder and the contents by path."""
    root, there = tmp_path_factory.mktemp("photos"), {}
    for number, (name, make) in enumerate(KINDS.items()):
        try:
            contents = make()
        except pytest.skip.Exception:
            continue
        path = root / "ab"[number % 2] / name.replace(" ", "_")  # no ending: kinds are told by the content
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contents)
        there[str(path)] = contents
    return root, there


def test_a_folder_of_all_kinds_in_training_evaluation_prediction_and_calibration(folder):
    root, there = folder
    data = config(name="folder", folder=str(root), image_size=(32, 40), crop_area=(0.3, 1.0))
    dataset = opened(data)
    assert dataset.listing.left_out == ()
    trainer = decode.Decoder.for_training(data)
    evaluated = {}
    for split in ("train", "validation"):
        files = dataset.file_names(split)
        for batch in pipeline.eval_batches(dataset, batch_size=8, split=split):
            for image, index in zip(batch["image"], batch["index"], strict=True):
                if index >= 0:
                    evaluated[files[index]] = image
    assert evaluated.keys() == there.keys()
    for path, image in evaluated.items():
        pixels = decode.load_image(path)  # what `mnet predict` reads, and calibration
        np.testing.assert_array_equal(image, decode.eval_crop(pixels, (32, 40), data.eval_crop, data.interpolation)[0])
        if path.endswith(("png_rgba", "webp_alpha", "bmp_palette", "avif_turned", "heic_turned")):
            key, index = tf.constant(7, tf.int64), tf.constant(len(path), tf.int64)
            given = [trainer.one(tf.constant(one), key, index) for one in (there[path], encode(pixels, "PNG"))]
            np.testing.assert_array_equal(*given)
    files = dataset.file_names("train")
    batches = pipeline.train_batches(dataset, batch_size=8, seed=0, start_step=0)
    assert {files[i] for _ in range(-(-len(files) // 8)) for i in next(batches)["index"]} <= there.keys()

    trained = types.SimpleNamespace(config=types.SimpleNamespace(data=data), published=False)
    calibrated = np.concatenate(list(calibration.batches(trained, (32, 40), folder=root, num=len(there))))
    np.testing.assert_array_equal(calibrated, np.stack([evaluated[path] for path in sorted(there)]))


def test_what_training_leaves_out_the_others_do_not_read_either(folder, tmp_path):
    root, there = folder
    shutil.copytree(root, tmp_path / "photos")
    for path in there:
        broken = tmp_path / "photos" / "b" / f"broken_{path.rpartition('/')[2]}"
        broken.write_bytes(there[path][: len(there[path]) // 3])
    listing = opened(config(name="folder", folder=str(tmp_path / "photos"))).listing
    out = {one.path for one in listing.left_out if not one.why.startswith("copy")}
    used = {file.path for files in listing.splits.values() for file in files}
    for path in (tmp_path / "photos" / "b").iterdir():
        if str(path) in used:
            decode.load_image(path)
        else:
            assert str(path) in out
            with pytest.raises(ValueError, match="cannot read"):
                decode.load_image(path)
