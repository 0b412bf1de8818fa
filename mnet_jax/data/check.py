"""Whether a file is an image that `decode` can read; the judgement of a few bytes where that is enough."""

from mnet_jax.data.host import tf

_NAMES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP"}
# What phones and scanners write beside those: said by name, so that its owner knows what to convert.
_FOREIGN = {
    b"ftyphei": "HEIC, convert it to JPEG",
    b"ftypmif1": "HEIF, convert it to JPEG",
    b"ftypavif": "AVIF, convert it to JPEG",
    b"ftyp": "a video",
    b"II*\0": "TIFF, convert it to PNG",
    b"MM\0*": "TIFF, convert it to PNG",
    b"%PDF": "PDF",
}
_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of the JPEG pictures that libjpeg reads: baseline, extended, progressive


def is_whole_jpeg(start: bytes, end: bytes) -> bool:
    """Whether a file with these first bytes (some 64 KiB) and last bytes (two) is surely a JPEG, and all of it."""
    if start[:3] != b"\xff\xd8\xff" or end != b"\xff\xd9":
        return False
    at = 2
    while at + 9 <= len(start) and start[at] == 0xFF:
        if start[at + 1] in _FRAMES:
            return start[at + 5 : at + 9].count(0) < 4 and start[at + 4] == 8  # height and width; bits a channel
        at += 2 + int.from_bytes(start[at + 2 : at + 4], "big")
    return False


def fault(contents: bytes) -> str | None:
    """Decodes an image; why that does not work, or None if it does."""
    name = next((name for mark, name in _NAMES.items() if contents.startswith(mark)), None)
    if name is None:
        foreign = next((kind for mark, kind in _FOREIGN.items() if contents[:12].find(mark) in (0, 4)), None)
        return "empty" if not contents else foreign or "not an image"
    if has_palette(contents):
        return "BMP with a palette"
    try:
        if name == "JPEG":
            tf.io.decode_jpeg(contents, channels=3)
        else:
            tf.io.decode_image(contents, channels=3, expand_animations=False)
    except tf.errors.OpError:
        return f"damaged {name}"
    return None


def has_palette(contents: bytes) -> bool:
    """Whether this is a BMP of at most 8 bits a pixel: tensorflow takes its colours' numbers for shades of grey."""
    return contents.startswith(b"BM") and int.from_bytes(contents[28:30], "little") <= 8
