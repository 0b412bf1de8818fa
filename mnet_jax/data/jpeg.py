"""All that is known of the bytes of a JPEG: whether it is whole, its height and width, and which way up it is.

A file is a row of segments: 0xFF, a marker, the segment's length. Headers are read in three ways. Of one file in Python
(`is_whole`, `parse_orientation`); of one in tensorflow (`orientation`); and of many at once in a few tensorflow
operations for all of them (`read_headers`): an operation costs microseconds whatever it does, and one image at a time
they would add up to more than half the decoding of a 256 px JPEG.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from mnet_jax.data.tensorflow_setup import graph_function, tf

MAGIC = b"\xff\xd8\xff"  # what every JPEG begins with
END = b"\xff\xd9"
MOST_PIXELS = 2**28  # of a picture: a header may claim 65,500 x 65,500. The largest cameras of phones have 200 million
_MARK, _SCAN, _APP1, _DRI, _EXIF = 0xFF, 0xDA, 0xE1, 0xDD, b"Exif\0\0"
# The first marker behind the data of a scan, in which 0xFF is followed by 0; where an interval of restarts is defined
# (DRI), their markers lie in the data too.
_END_OF_SCAN, _END_OF_RESTARTS = re.compile(rb"\xff[^\x00\xff]", re.S), re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.S)
_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of the pictures that libjpeg reads: baseline, extended, progressive

# --- One file, in Python ---


def is_whole(start: bytes, end: bytes) -> bool:
    """Returns whether a file with these first bytes (some 64 KiB) and last two is surely a JPEG, and all of it."""
    return start[:3] == MAGIC and end == END and parse_shape(start) is not None


def breaks_off(contents: bytes, decode: Callable[[bytes], np.ndarray]) -> bool:
    """Returns whether the data of a JPEG end before its last row of blocks, which is grey then; decoders say nothing.

    A picture may well be grey there. Where data lack, more of them at their end would show.

    Args:
      contents: of the file.
      decode: gives the picture, uint8 [h, w, 3], or an error.
    """
    picture = decode(contents)
    if (picture[-1] != 128).any():
        return False
    at, restarts = 2, False
    while at + 4 < len(contents) and contents[at + 1] != _SCAN:
        restarts |= contents[at + 1] == _DRI
        filling = contents[at + 1] == _MARK
        at += 1 if filling else 2 + int.from_bytes(contents[at + 2 : at + 4], "big")
    end = (_END_OF_RESTARTS if restarts else _END_OF_SCAN).search(contents, at + 2)
    if end is None:
        return True
    longer = contents[: end.start()] + bytes(range(1, 255)) * 4 + contents[end.start() :]
    return not np.array_equal(decode(longer), picture)


def parse_shape(start: bytes) -> tuple[int, int] | None:
    """Returns height and width as stored from the first bytes of a JPEG; None if they do not say it."""
    at = 2
    while at + 9 <= len(start) and start[at] == _MARK:
        if start[at + 1] in _FRAMES:
            sides, bits = start[at + 5 : at + 9], start[at + 4]
            whole = sides.count(0) < 4 and bits == 8
            return (int.from_bytes(sides[:2], "big"), int.from_bytes(sides[2:], "big")) if whole else None
        at += 2 + int.from_bytes(start[at + 2 : at + 4], "big")
    return None


def parse_upright_shape(start: bytes, shape: tuple[int, int]) -> tuple[int, int]:
    """Returns height and width of the upright picture, from the first bytes of an image file and the stored ones."""
    turned = start.startswith(MAGIC) and _TRANSPOSED[parse_orientation(start)]
    return shape[::-1] if turned else shape


def parse_orientation(header: bytes) -> int:
    """Returns the orientation 1 .. 8 in the first bytes of a JPEG; 1 if there is none, or none that makes sense."""
    at = 2
    while header[at : at + 1] == b"\xff" and len(header) > at + 4:
        length = int.from_bytes(header[at + 2 : at + 4], "big")
        if header[at + 1] == _APP1 and header[at + 4 : at + 10] == _EXIF:
            return _from_tiff(header[at + 10 : at + 2 + length])
        if header[at + 1] == _SCAN:
            break
        at += 2 + length
    return 1


def _from_tiff(tiff: bytes) -> int:
    order = {b"II": "little", b"MM": "big"}.get(tiff[:2])
    if order is None:
        return 1
    start = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[start : start + 2], order)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if int.from_bytes(tiff[entry : entry + 2], order) == 0x0112:
            # a 16-bit number, at the start of its 4-byte field
            value = int.from_bytes(tiff[entry + 8 : entry + 10], order)
            return value if 1 <= value <= 8 else 1
    return 1


# --- Many files at once ---

_MOST_SEGMENTS = 64  # before the scan; large profiles come in several of 64 KiB
_READ = 10  # bytes of a segment: marker, length, and then "Exif" or bits a channel, height, width


@dataclasses.dataclass(frozen=True)
class Headers:
    """Headers of n files; `known` is False where one is not a JPEG that could be followed up to its scan."""

    known: tf.Tensor  # bool [n]
    shape: tf.Tensor  # int32 [n, 2]: height and width as stored
    has_exif: tf.Tensor  # bool [n]: it may have to be turned upright


def read_headers(contents: tf.Tensor) -> Headers:
    """Returns what the headers of encoded images, string [n], say."""
    length = tf.strings.length(contents)
    none = tf.zeros_like(length)

    def walks(i: tf.Tensor, at: tf.Tensor, *unused: tf.Tensor) -> tf.Tensor:
        return tf.logical_and(i < _MOST_SEGMENTS, tf.reduce_any(at > 0))

    def walk(i: tf.Tensor, at: tf.Tensor, *found: tf.Tensor) -> tuple[tf.Tensor, ...]:
        shape, has_exif, done = found
        # a file that stops in the middle of a segment ends the walk: the bytes at its end are zeros here
        segment = tf.strings.substr(contents, tf.minimum(at, length), tf.fill(tf.shape(at), _READ))
        b = tf.cast(tf.io.decode_raw(segment, tf.uint8, fixed_length=_READ), tf.int32)
        marker = tf.where((at > 0) & (b[:, 0] == _MARK), b[:, 1], 0)
        is_frame = tf.reduce_any(marker[:, None] == _FRAMES, 1)
        sides = tf.stack([b[:, 5] * 256 + b[:, 6], b[:, 7] * 256 + b[:, 8]], 1)
        is_exif = (marker == _APP1) & tf.reduce_all(b[:, 4:] == tuple(_EXIF), 1)
        following = tf.where((marker == 0) | (marker == _SCAN), 0, at + 2 + b[:, 2] * 256 + b[:, 3])
        shape = tf.where((is_frame & (b[:, 4] == 8))[:, None], sides, shape)
        return i + 1, following, shape, has_exif | is_exif, done | (marker == _SCAN)

    is_jpeg = tf.strings.substr(contents, none, none + 3) == MAGIC
    false = tf.zeros_like(is_jpeg)
    start = (0, tf.where(is_jpeg, 2, 0), tf.stack([none, none], 1), false, false)
    _, _, shape, has_exif, done = tf.while_loop(graph_function(walks), graph_function(walk), start)
    sides = tf.cast(shape, tf.int64)
    known = is_jpeg & done & tf.reduce_all(shape > 0, 1) & (sides[:, 0] * sides[:, 1] <= MOST_PIXELS)
    return Headers(known, shape, has_exif)


# --- Which way up ---

# Orientation (index; EXIF 2.32, tag 0x0112) -> what makes the stored picture upright: flip rows, flip columns, then
# transpose. 1 is upright as stored, 6 and 8 are a phone held upright; 0 is not in use.
_FLIP_ROWS = (False, False, False, True, True, False, True, True, False)
_FLIP_COLUMNS = (False, False, True, True, False, False, False, True, True)
_TRANSPOSED = (False, False, False, False, False, True, True, True, True)

_HAS_EXIF = rb"\C*Exif\x00\x00\C*"  # in RE2's syntax; \C is any byte
_SEARCHED, _PARSED = 1 << 16, 1 << 17  # bytes; what may precede the Exif segment, a Photoshop one, has 64 KiB at most


def _parse_scalar(header: bytes | np.ndarray) -> np.int32:
    header = header if isinstance(header, bytes) else header.item()  # an array of objects when eager
    return np.int32(parse_orientation(header))


def orientation(contents: tf.Tensor) -> tf.Tensor:
    """Returns the orientation of a JPEG (scalar string), int32 [].

    Two searches come first, because Python threads would not keep up with the decoders: of 200 original ImageNet photos
    62 % have no metadata at all (4 microseconds each), and 5 % reach the parser.
    """

    def search() -> tf.Tensor:
        found = tf.strings.regex_full_match(tf.strings.substr(contents, 0, _SEARCHED), _HAS_EXIF)
        return tf.cond(found, parsed, lambda: 1)

    def parsed() -> tf.Tensor:
        header = tf.strings.substr(contents, 0, _PARSED)
        value = tf.numpy_function(_parse_scalar, [header], tf.int32, stateful=False)
        return tf.ensure_shape(value, [])

    # Without metadata the quantisation tables (FF DB) follow at once, or after the 18 bytes of a JFIF segment.
    head = tf.strings.substr(contents, 0, 22)
    start = tf.strings.substr([head] * 3, [2, 2, 20], [2, 4, 2]) == [b"\xff\xdb", b"\xff\xe0\x00\x10", b"\xff\xdb"]
    plain = start[0] | (start[1] & start[2])
    return tf.cond(plain, lambda: 1, search)


def stored_shape(contents: tf.Tensor) -> tf.Tensor:
    """Returns height and width of a JPEG (scalar string) as stored, int32 [2]; an error where it claims too many."""
    shape = tf.io.extract_jpeg_shape(contents)[:2]
    few = tf.reduce_prod(tf.cast(shape, tf.int64)) <= MOST_PIXELS
    with tf.control_dependencies([tf.debugging.Assert(few, ["a JPEG claims", shape])]):
        return tf.identity(shape)


def upright_shape(shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns (height, width) of the upright picture whose stored one has `shape`."""
    return tf.where(tf.gather(_TRANSPOSED, orientation), shape[::-1], shape)


def stored_box(box: tf.Tensor, shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns where a box (y, x, height, width) of the upright picture lies in the stored one of `shape`."""
    return _flipped_box(_transposed_box(box, orientation), shape, orientation)


def upright_box(box: tf.Tensor, shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns where a box of the stored picture of `shape` lies in the upright one: what undoes `stored_box`."""
    return _transposed_box(_flipped_box(box, shape, orientation), orientation)


def _transposed_box(box: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.gather(_TRANSPOSED, orientation), tf.gather(box, [1, 0, 3, 2]), box)


def _flipped_box(box: tf.Tensor, shape: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    flips = tf.stack([tf.gather(_FLIP_ROWS, orientation), tf.gather(_FLIP_COLUMNS, orientation)])
    return tf.concat([tf.where(flips, shape - box[:2] - box[2:], box[:2]), box[2:]], 0)


def make_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns a stored picture, or a part of one, [h, w, 3], turned upright."""
    flips = tf.stack([tf.gather(_FLIP_ROWS, orientation), tf.gather(_FLIP_COLUMNS, orientation)])
    image = tf.reverse(image, tf.boolean_mask([0, 1], flips))
    return tf.cond(tf.gather(_TRANSPOSED, orientation), lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
