"""Image files that tensorflow's decoder does not show as people see them, read by Pillow: upright, over white.

Transparent pixels are shown over white, as paper, most web pages and most viewers do. What lies under them is whatever
the program that wrote the file left there. These come here: PNG with transparency or an orientation, WebP that is more
than one plain picture, GIF, BMP of other than 24 bits, TIFF, AVIF, and HEIC, which pi-heif adds to Pillow (or
pillow-heif, which brings encoders too). All others (JPEG, other PNG, 24-bit BMP, plain WebP) never leave tensorflow.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps

from mnet_jax.data import jpeg
from mnet_jax.data.tensorflow_setup import tf

# What it says of damaged tables and of large pictures is two lines an image; what is too large is refused here.
warnings.filterwarnings("ignore", module=r"PIL\.")

_SEARCHED = 1 << 16  # bytes at each end of a PNG that are searched for its small chunks
_MARKS = b"tRNS", b"eXIf", b"Raw "
_HEIF = b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"


def kind(start: bytes) -> str | None:
    """Returns "TIFF", "AVIF" or "HEIC" of a file with these first bytes, None if it is something else."""
    if start[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if start[4:8] != b"ftyp":
        return None
    brands = start[8:12], *(start[at : at + 4] for at in range(16, int.from_bytes(start[:4], "big"), 4))
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    return "HEIC" if start[8:12] in _HEIF else None


def lacking(kind: str) -> str | None:
    """Returns what to install for a kind of file, None if it can be read."""
    if kind == "HEIC" and _heif_reader() is None:
        return "pip install pi-heif"
    if kind == "AVIF" and not _reads_avif():
        return "pip install 'pillow>=11.3'"
    return None


def _heif_reader() -> str | None:
    """Returns the name of the module that reads HEIC, None if there is none."""
    return next((name for name in ("pi_heif", "pillow_heif") if importlib.util.find_spec(name)), None)


def _reads_avif() -> bool:
    Image.init()
    return "AVIF" in Image.OPEN


def read(contents: bytes) -> np.ndarray:
    """Returns the picture in a file, the first if there are several, upright and over white, uint8 [H, W, 3].

    Raises:
      ValueError: that says why it cannot be read.
    """
    if kind(contents) == "HEIC" and (reader := _heif_reader()):
        importlib.import_module(reader).register_heif_opener()
    try:
        with Image.open(io.BytesIO(contents)) as image:
            if image.width * image.height > jpeg.MOST_PIXELS:
                raise ValueError(f"claims {image.width:,} x {image.height:,} pixels")
            image.load()
            return np.asarray(_over_white(_turned(image)))
    except Image.DecompressionBombError as error:
        raise ValueError("claims too many pixels") from error
    except (OSError, SyntaxError, EOFError, struct.error, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"damaged ({type(error).__name__})") from error


def _turned(image: Image.Image) -> Image.Image:
    """Returns the picture upright; one whose orientation makes no sense as it is."""
    try:
        return ImageOps.exif_transpose(image)
    except (ValueError, SyntaxError, OSError, struct.error, KeyError, TypeError):
        return image


def _over_white(image: Image.Image) -> Image.Image:
    """Returns the picture in RGB, transparent pixels over white."""
    if image.mode.startswith("I"):  # 16 bits, of which the upper 8 count, as tensorflow has it in PNG
        values = np.asarray(image)
        clear = image.info.get("transparency")
        grey = np.clip(values.astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        if isinstance(clear, int):
            grey = np.where(values == clear, np.uint8(255), grey)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise ValueError("numbers with a fraction for pixels")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


# --- In tensorflow ---


def decode(contents: tf.Tensor) -> tf.Tensor:
    """Returns the picture of a file that is no JPEG, upright and over white, uint8 [h, w, 3]."""
    image = tf.cond(
        is_plain(contents),
        lambda: tf.io.decode_image(contents, channels=3, expand_animations=False),
        lambda: tf.numpy_function(_read, [contents], tf.uint8, stateful=False),
    )
    image.set_shape([None, None, 3])
    return image


def _read(contents: bytes | np.ndarray) -> np.ndarray:
    """Returns `read` of what tensorflow hands over: bytes, or outside a graph an array of them."""
    return read(np.asarray(contents, object).item())


def is_plain(contents: tf.Tensor) -> tf.Tensor:
    """Returns whether tensorflow shows a file, which is no JPEG, as people see it, bool []."""

    def begins(mark: bytes, at: int = 0) -> tf.Tensor:
        return tf.strings.substr(start, at, len(mark)) == mark

    start = tf.strings.substr(tf.strings.join([contents, tf.constant(b"\0" * 32)]), 0, 32)

    def plain_png() -> tf.Tensor:
        coloured = begins(b"\0", 25) | begins(b"\2", 25) | begins(b"\3", 25)  # without a channel for transparency
        return coloured & ~_marked(contents)

    return tf.case(
        [
            (begins(b"\x89PNG"), plain_png),
            (begins(b"BM"), lambda: begins(b"\x18\0", 28)),
            (begins(b"RIFF"), lambda: begins(b"VP8 ", 12)),
        ],
        default=lambda: tf.constant(False),
    )


def _marked(contents: tf.Tensor) -> tf.Tensor:
    """Returns whether a PNG seems to have transparent colours or an orientation, bool []; Pillow then says."""
    size = tf.strings.length(contents)
    end = tf.strings.substr(contents, tf.maximum(size - _SEARCHED, 0), _SEARCHED)
    searched = tf.strings.join([tf.strings.substr(contents, 0, _SEARCHED), end])
    values = tf.io.decode_raw(searched, tf.uint8)
    shifted = [values[place : tf.size(values) - 3 + place] for place in range(4)]
    # the last is of "Raw profile type exif", in which ImageMagick keeps it
    words = [tf.reduce_all([s == letter for s, letter in zip(shifted, word, strict=True)], 0) for word in _MARKS]
    return tf.reduce_any(words)
