"""A sum of its own bytes in each exported file, by which damage is found before any runtime meets it.

It stands at the very end, where each format has room that its readers pass over: in the comment of a zip archive
(StableHLO, and TFLite with the archive behind it), as the last property of an ONNX model. A SavedModel has a file
with the sums of its others.
"""

import hashlib
import json
import pathlib

NAME = "mnet_jax sum"
_DIGITS = 32
EMPTY = "0" * _DIGITS  # to be put in its place first
COMMENT = f"{NAME}: {EMPTY}".encode()  # of a zip archive
FILE = "sums.json"  # of a directory


def seal(contents: bytes) -> bytes:
    """Returns a file that ends with `EMPTY` with the sum of all before it there."""
    return contents[:-_DIGITS] + _sum(contents[:-_DIGITS]).encode()


def seal_directory(directory: pathlib.Path, place: str) -> None:
    """Writes the sums of all files of a directory into a file of it, in the folder `place`."""
    (directory / place / FILE).write_text(json.dumps(_sums(directory), indent=1) + "\n", encoding="utf-8")


def check(path: pathlib.Path, place: str = "") -> None:
    """Raises ValueError, in one line, if a file or directory has a sum that is not its own; one without passes.

    Args:
      path: of the file, or of the directory.
      place: of a directory, the folder in it that has `FILE`.
    """
    if path.is_dir():
        changed = _changed(path, path / place / FILE)
    else:
        contents = path.read_bytes()
        tail = contents[-_DIGITS - 2 - len(NAME) : -_DIGITS]
        sealed = tail.startswith(NAME.encode())
        changed = path if sealed and contents[-_DIGITS:] != _sum(contents[:-_DIGITS]).encode() else None
    if changed is not None:
        raise ValueError(f"{changed} is damaged: it is not what mnet export wrote; export it again")


def _changed(directory: pathlib.Path, file: pathlib.Path) -> pathlib.Path | None:
    """Returns the first file that is not what it was; None if all are, or nothing is known of them."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:  # of an earlier version
        return None
    except ValueError:
        return file
    found = _sums(directory)
    return next((directory / name for name in sorted({*known, *found}) if known.get(name) != found.get(name)), None)


def _sums(directory: pathlib.Path) -> dict[str, str]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != FILE)
    return {path.relative_to(directory).as_posix(): _sum(path.read_bytes()) for path in files}


def _sum(contents: bytes) -> str:
    return hashlib.blake2b(contents, digest_size=_DIGITS // 2).hexdigest()
