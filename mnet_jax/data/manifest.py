"""Lists of image files as CSV: which image is in which split, and which files were left out and why.

A manifest has one row an image: `file` (relative to the folder), `class`, `split` and `digest` (`folder.File.digest`).
Images are found again by their digest, so a file may be renamed or moved.
"""

import csv
import dataclasses
import io
import os
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of a manifest."""

    file: str
    class_name: str
    split: str
    digest: str


_COLUMNS = ("file", "class", "split", "digest")


def read(path: str) -> dict[str, Entry]:
    """The entries by digest, in the order of the file (local or gs://).

    Raises:
      ValueError: if there is no such file, or it is no manifest.
    """
    from mnet_jax.data.host import tf

    try:
        with tf.io.gfile.GFile(path, "r") as file:
            rows = list(csv.reader(io.StringIO(file.read())))
    except tf.errors.NotFoundError as error:
        raise ValueError(f"no such manifest: {path}; a run on a folder writes photos.csv into its directory") from error
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__}") from error
    if not rows or tuple(rows[0]) != _COLUMNS or any(len(row) != len(_COLUMNS) for row in rows):
        raise ValueError(f"{path} is no manifest: a CSV file with the columns {','.join(_COLUMNS)} expected")
    return {row[3]: Entry(*row) for row in rows[1:]}


def write(path: str, entries: Iterable[Entry]) -> None:
    """Writes a manifest, moved into place as a whole."""
    write_table(path, _COLUMNS, [dataclasses.astuple(entry) for entry in entries])


def write_table(path: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file (local or gs://), moved into place as a whole."""
    from mnet_jax.data.host import tf

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *rows])
    tf.io.gfile.makedirs(os.path.dirname(path) or ".")
    beside = f"{path}.part"
    with tf.io.gfile.GFile(beside, "w") as file:
        file.write(text.getvalue())
    tf.io.gfile.rename(beside, path, overwrite=True)
