"""Kinds of image files, told apart by their first bytes: which `decode` reads, and what is wrong with a file.

JPEG (also greyscale, CMYK and progressive), PNG (also 16 bits, palettes), GIF and WebP (the first frame), BMP, TIFF,
AVIF, and HEIC with the package pillow-heif.
"""

import concurrent.futures
import dataclasses
import hashlib
import os

from mnet_jax.data import jpeg, pictures
from mnet_jax.data.tensorflow_setup import tf

_END = 1 << 16  # bytes at each end of a file that are read to judge it
READABLE = "JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC"
_NAMES = {jpeg.MAGIC: "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP"}
# What lies beside photos: said by name.
_FOREIGN = {
    b"ftyp": "a video",
    b"%PDF": "PDF",
}


def fault(contents: bytes) -> str | None:
    """Returns why an image cannot be decoded, or None if it can: it is tried."""
    found = _try(contents)
    return found if isinstance(found, str) else None


def _try(contents: bytes) -> str | tuple[int, int]:
    """Returns why an image cannot be decoded, or its height and width as stored."""
    name = kind(contents)
    if name is None:
        foreign = next((kind for mark, kind in _FOREIGN.items() if contents[:12].find(mark) in (0, 4)), None)
        return "empty" if not contents else foreign or "not an image"
    if needed := pictures.lacking(name):
        return f"{name}, which needs {needed}"
    if claimed := too_large(contents):
        return claimed
    try:
        decode = _decode_jpeg if name == "JPEG" else _decode_other
        image = decode(tf.constant(contents))
    except tf.errors.OpError:
        return f"damaged {name}"
    return tuple(image.shape[:2])


def _decode_jpeg(contents: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(contents, channels=3)


_decode_other = tf.function(pictures.decode, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def kind(start: bytes) -> str | None:
    """Returns the name of an image's kind from the first bytes of a file, None if it is no image."""
    return next((name for mark, name in _NAMES.items() if start.startswith(mark)), None) or pictures.kind(start)


def too_large(start: bytes) -> str | None:
    """Returns what is wrong where the first bytes of an image claim more than `jpeg.MOST_PIXELS`; else None."""
    shape = None
    if start.startswith(jpeg.MAGIC):
        shape = jpeg.parse_shape(start)
    elif start.startswith(b"\x89PNG") and len(start) >= 24:
        shape = int.from_bytes(start[20:24], "big"), int.from_bytes(start[16:20], "big")
    elif start.startswith(b"GIF8") and len(start) >= 10:
        shape = int.from_bytes(start[8:10], "little"), int.from_bytes(start[6:8], "little")
    elif start.startswith(b"BM") and len(start) >= 26:
        sides = (int.from_bytes(start[place : place + 4], "little", signed=True) for place in (22, 18))
        shape = tuple(abs(side) for side in sides)  # a height below 0: from the top
    if shape is None or shape[0] * shape[1] <= jpeg.MOST_PIXELS:
        return None
    return f"claims {shape[1]:,} x {shape[0]:,} pixels, at most {jpeg.MOST_PIXELS:,} are read"


def check_regular(path: str) -> None:
    """Raises ValueError for what is there and is no file, such as a named pipe, which would be waited for."""
    if "://" not in path and os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"cannot read {path}: not a regular file")


# --- Many files ---


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a file can be used."""

    fault: str | None  # why the file cannot be used
    digest: str  # of its content
    size: tuple[int, int] = (0, 0)  # height and width of the upright picture; (0, 0) where it cannot be used


def judge(paths: list[str]) -> list[Verdict]:
    """Returns whether files, local or gs://, are images that can be used, many at a time."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(_judge, paths))


def _judge(path: str) -> Verdict:
    """Returns whether a file can be used; reads both its ends, and all of it only where that leaves a doubt."""
    try:
        check_regular(path)
        with tf.io.gfile.GFile(path, "rb") as file:
            size = file.size()
            start = file.read(_END)
            file.seek(max(size - _END, 0))
            end = file.read(_END)
            if jpeg.is_whole(start, end[-2:]):
                if claimed := too_large(start):
                    return Verdict(claimed, _digest(start, end, size.to_bytes(8, "big")))
                shape = jpeg.parse_upright_shape(start, jpeg.parse_shape(start))
                return Verdict(None, _digest(start, end, size.to_bytes(8, "big")), shape)
            file.seek(0)
            contents = file.read()
            found, digest = _try(contents), _digest(contents)
            if isinstance(found, str):
                return Verdict(found, digest)
            return Verdict(None, digest, jpeg.parse_upright_shape(contents, found))
    except ValueError:
        return Verdict("not a regular file", "")
    except tf.errors.OpError as error:
        return Verdict(f"cannot be read: {type(error).__name__}", "")


def _digest(*parts: bytes) -> str:
    return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()
