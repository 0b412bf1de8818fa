"""Files and directories that appear whole or not at all: written beside, moved into place."""

import contextlib
import csv
import errno
import fcntl
import io
import os
import pathlib
import shutil
import socket
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence


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
    csv.writer(text, lineterminator="\n").writerows([columns, *([_cell(value) for value in row] for row in rows)])
    epath.Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue())


def printable(text: str) -> str:
    """Returns a text in which control characters (ESC, BEL, a new line) are written out, such as \\x1b.

    So are bytes of a file name that are not UTF-8, which Python has as lone surrogates (PEP 383).
    """
    return "".join(_shown(letter) for letter in text) if _HIDDEN & {unicodedata.category(x) for x in text} else text


_HIDDEN = {"Cc", "Cs"}


def _shown(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return ascii(letter)[1:-1] if unicodedata.category(letter) in _HIDDEN else letter


def check_bucket(path: str, option: str, exists: Callable[[str], bool]) -> None:
    """Raises a ValueError of one line if `path` is in a bucket (gs://...) that `exists` cannot ask about it.

    Args:
      path: local paths are not looked at.
      option: where the user has named it, such as --workdir.
      exists: how the library that is to read it asks whether it is there.
    """
    if "://" not in path:
        return
    try:
        exists(path)
    except Exception as error:  # each library has errors of its own
        scheme = path.partition("://")[0]
        if "not implemented" in str(error):
            what = f"cannot be reached: there is no library here for {scheme}://. Mount the bucket, and give its"
        else:
            line = " ".join(str(error).split())
            what = (
                f"cannot be reached ({line if len(line) <= 120 else f'{line[:120]}...'}): check its name, the network "
            )
            what += "and your access to it, or give a local"
        raise ValueError(f"{path} {what} directory as {option}") from error


def tell(line: str) -> None:
    """Prints one line to stderr for a person; names in it may hold what a terminal would obey."""
    print(f"mnet: {printable(line)}", file=sys.stderr)


def _cell(value: object) -> object:
    """Returns a value as it goes into a table: a name that begins like a formula is text for a spreadsheet too."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    with contextlib.suppress(ValueError):
        float(text)
        return text  # a number
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def from_cell(text: str) -> str:
    """Returns the name that `write_csv` wrote into a cell."""
    return text[1:] if text[:1] == "'" and text.lstrip("'").startswith(_FORMULA) else text


_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the start of one


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


class Lock:
    """A directory that one process uses at a time: a file `.lock` in it, locked, that says who has it.

    The system gives the lock back when the process ends, however it ends. A bucket has none, nor has a file system
    that cannot lock: nothing is guarded there.
    """

    def __init__(self, directory: str | os.PathLike):
        """Takes nothing yet."""
        self._path = None if "://" in os.fspath(directory) else pathlib.Path(directory, ".lock")
        self._file: int | None = None

    def take(self) -> None:
        """Takes the directory, unless this lock has it already.

        Raises:
          ValueError: if another process has it, says which; or if nothing can be written there.
        """
        while self._path is not None and self._file is None:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                what = "is a file" if self._path.parent.is_file() else f"cannot be written to: {error.strerror}"
                raise ValueError(f"{self._path.parent} {what}: give another --workdir") from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner = os.pread(file, 200, 0).decode(errors="replace")
                os.close(file)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise ValueError(
                        f"{self._path.parent} is in use by another run ({owner or 'which has just begun'}): "
                        "wait for it to end, or give another --workdir"
                    ) from error
                return  # no locks here
            try:
                current = os.stat(self._path).st_ino == os.fstat(file).st_ino
            except FileNotFoundError:
                current = False
            if not current:  # the owner before has just removed it
                os.close(file)
                continue
            os.ftruncate(file, 0)
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            with contextlib.suppress(OSError):  # a full disk: locked all the same
                os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()} since {started}".encode(), 0)
            self._file = file

    def close(self) -> None:
        """Gives the directory back."""
        file, self._file = self._file, None
        if file is not None:
            self._path.unlink(missing_ok=True)
            os.close(file)


def lock_owner(directory: str | os.PathLike) -> str | None:
    """Returns who uses a directory, such as "process 12 on host since ...", or None; takes nothing."""
    try:
        with open(pathlib.Path(directory, ".lock"), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return file.read(200).decode(errors="replace") or "another process"
    except OSError:
        pass
    return None


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
