"""Files and directories that appear whole or not at all: written beside, moved into place."""

import contextlib
import csv
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence


def write_whole(path: str | os.PathLike, contents: bytes | str) -> None:
    """Writes a file, local or in a bucket (gs://...), so that a reader sees the old one or all of the new one."""
    from etils import epath

    target = epath.Path(path)
    part = target.parent / f"{target.name}.part"
    part.write_bytes(contents.encode() if isinstance(contents, str) else contents)
    part.replace(target)


def write_csv(path: str | os.PathLike, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table with a line of column names as `write_whole` does; its directory is made where it is missing."""
    from etils import epath

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    epath.Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue())


@contextlib.contextmanager
def placed(path: str | os.PathLike, *, inside: str = "") -> Iterator[pathlib.Path]:
    """Gives a path to write a file or directory to; what is there at the end moves to `path`, on an error it goes.

    Args:
      path: local; a file there is replaced, and so is a directory that holds a file named `inside`.
      inside: what a directory is recognised by: the name of a file in it; "" for a plain file.

    Raises:
      ValueError: at once, if nothing could be written to `path`.
    """
    target = check_writable(path, inside=inside)
    beside = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        part = beside / target.name
        yield part
        if target.is_dir():
            target.rename(beside / f"{target.name}.old")
        part.replace(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check_writable(path: str | os.PathLike, *, inside: str = "") -> pathlib.Path:
    """The path, if a file (or with `inside` a directory that has this file) can be put there; else ValueError."""
    if "://" in os.fspath(path):
        raise ValueError(f"cannot write {path}: give a local path, and copy the file from there")
    target = pathlib.Path(path).expanduser()
    if not target.name or target.name == "..":
        raise ValueError(f"cannot write {path}: give the name of a file")
    if not target.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no directory {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write {path}: no permission to write to {target.parent.absolute()}")
    if inside and target.exists() and not (target / inside).is_file():
        raise ValueError(f"cannot write {path}: it is there and is not the same kind of directory (no {inside} in it)")
    if not inside and target.is_dir():
        raise ValueError(f"cannot write {path}: it is a directory; give the name of a file in it")
    return target
