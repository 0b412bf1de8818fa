"""What the headers of many JPEGs say, in a few tensorflow operations for all of them together.

An operation costs microseconds whatever it does; per image they would add up to more than half the decoding of a
256 px JPEG.
"""

import dataclasses

from mnet_jax.data.host import graph_function, tf

_MARK, _SCAN, _APP1, _EXIF = 0xFF, 0xDA, 0xE1, b"Exif\0\0"
_FRAMES = (0xC0, 0xC1, 0xC2)  # the pictures that libjpeg reads: baseline, extended, progressive
_MOST_SEGMENTS = 64  # before the scan; large profiles come in several of 64 KiB
_READ = 10  # bytes of a segment: marker, length, and then "Exif" or bits a channel, height, width


@dataclasses.dataclass(frozen=True)
class Headers:
    """Of n files; where one is not a JPEG that could be followed up to its scan, `known` is False."""

    known: tf.Tensor  # bool [n]
    shape: tf.Tensor  # int32 [n, 2]: height and width as stored
    has_exif: tf.Tensor  # bool [n]: it may have to be turned upright


def read(contents: tf.Tensor) -> Headers:
    """Follows the segments of encoded images, string [n]."""
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

    is_jpeg = tf.strings.substr(contents, none, none + 3) == b"\xff\xd8\xff"
    false = tf.zeros_like(is_jpeg)
    start = (0, tf.where(is_jpeg, 2, 0), tf.stack([none, none], 1), false, false)
    _, _, shape, has_exif, done = tf.while_loop(graph_function(walks), graph_function(walk), start)
    return Headers(is_jpeg & done & tf.reduce_all(shape > 0, 1), shape, has_exif)
