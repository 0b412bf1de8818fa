"""Kinds of image files, told apart by their first bytes: which `decode` reads, and what is wrong with a file.

JPEG (also greyscale, CMYK and progressive), PNG (also 16 bits, palettes), GIF and WebP (the first frame), BMP, TIFF,
AVIF and HEIC.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os
import threading
import time
from collections.abc import Container, Sequence

import numpy as np

from mnet_jax import files, runtime
from mnet_jax.data import jpeg, layout, pictures
from mnet_jax.data.tensorflow_setup import tf

_END = 1 << 16  # bytes at each end of a file that are read to judge it
_HEAD = 64  # bytes that tell the kind
READABLE = "JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC"
_NAMES = {jpeg.MAGIC: "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP"}
# What lies beside photos: said by name.
_FOREIGN = {
    b"ftyp": "a video",
    b"%PDF": "PDF",
}


def fault(contents: bytes) -> str | None:
    """Returns why an image cannot be used, or None if it can: it is decoded. Everything that reads images asks here."""
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
        if name != "JPEG":
            return tuple(_decode_other(tf.constant(contents)).shape[:2])
        if jpeg.breaks_off(contents, _decode_small):
            return f"damaged {name}: it breaks off"
        return tuple(tf.io.extract_jpeg_shape(contents).numpy().tolist()[:2])
    except tf.errors.OpError:
        return f"damaged {name}"


def _decode_small(contents: bytes) -> np.ndarray:
    """Returns a JPEG at an eighth of its size: as strict as at its own, for less than half of the time."""
    return tf.io.decode_jpeg(contents, channels=3, ratio=8).numpy()


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


def read(path: str) -> bytes:
    """Returns what is in a file, local or gs://. Raises ValueError that names it where that cannot be had."""
    check_regular(path)
    try:
        with layout.opened(path) as file:
            return file.read()
    except (FileNotFoundError, tf.errors.NotFoundError) as error:
        raise ValueError(f"no such image: {path}") from error
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"cannot read {path}: {type(error).__name__}") from error


# --- Many files ---


def images_below(folder: str) -> tuple[list[str], list[str]]:
    """Returns the files below a folder that begin as images do, and the others; what is hidden is neither."""
    images, others = [], []
    for path in layout.files_below(folder, folder):
        try:
            check_regular(path)
            with layout.opened(path) as file:
                is_image = kind(file.read(_HEAD)) is not None
        except (OSError, ValueError, tf.errors.OpError):
            is_image = True  # whoever reads it says what is wrong
        (images if is_image else others).append(path)
    return images, others


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a file can be used."""

    fault: str | None  # why the file cannot be used
    digest: str  # of its content
    size: tuple[int, int] = (0, 0)  # height and width of the upright picture; (0, 0) where it was not looked at


_decoding = threading.BoundedSemaphore(runtime.num_cores())  # pictures at a time: each may take a gigabyte


def judge(paths: Sequence[str], known: Container[str] = (), *, sizes: bool = True) -> list[Verdict]:
    """Returns whether files, local or gs://, are images that can be used, many at a time.

    Args:
      paths: of the files.
      known: digests of images that were found to be good before: these are not decoded again.
      sizes: whether the pictures' sizes are wanted; of a known one that is no JPEG that takes decoding.
    """
    verdicts: list[Verdict] = []
    told = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for verdict in pool.map(lambda path: _judge(path, known, sizes), paths):
            verdicts.append(verdict)
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                files.tell(f"looked at {len(verdicts):,} of {len(paths):,} files")
    return verdicts


_TELL_EVERY = 10.0  # seconds


def _judge(path: str, known: Container[str], sizes: bool) -> Verdict:
    """Returns whether a file can be used: reads both its ends if it is known by them, else decodes it."""
    try:
        check_regular(path)
        with layout.opened(path) as file:
            size = file.size() if "://" in path else os.fstat(file.fileno()).st_size
            start = file.read(_END)
            file.seek(max(size - _END, 0))
            end = file.read(_END)
            by_ends = jpeg.is_whole(start, end[-2:])
            digest = _digest(start, end, size.to_bytes(8, "big")) if by_ends else ""
            if digest in known:
                return Verdict(None, digest, jpeg.parse_upright_shape(start, jpeg.parse_shape(start)))
            file.seek(0)
            contents = file.read()
        digest = digest or _digest(contents)
        if digest in known and not sizes:
            return Verdict(None, digest)
        with _decoding:
            found = _try(contents)
        if isinstance(found, str):
            return Verdict(found, digest)
        return Verdict(None, digest, jpeg.parse_upright_shape(contents, found))
    except ValueError:
        return Verdict("not a regular file", "")
    except (OSError, tf.errors.OpError) as error:
        return Verdict(f"cannot be read: {type(error).__name__}", "")


def _digest(*parts: bytes) -> str:
    return hashlib.blake2b(b"".join(parts), digest_size=16).hexdigest()
