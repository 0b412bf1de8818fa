"""Lists of image files as CSV: which image is in which split, and which files were left out and why.

A manifest has one row an image: `file` (relative to the folder), `class`, `split` and `digest` (`folder.File.digest`).
Images are found again by their digest, so a file may be renamed or moved. A run on a folder writes two lists:

    <workdir>/photos.csv     every image with its class, split and digest: the manifest of this run
    <workdir>/left_out.csv   every file that is not used, and why

Its next start uses the images of the manifest, in its splits, whatever has come to the folder since.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import ml_collections
from etils import epath

from mnet_jax import files

if TYPE_CHECKING:
    from mnet_jax.data.source import Source

MANIFEST, LEFT_OUT = "photos.csv", "left_out.csv"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of a manifest."""

    file: str
    class_name: str
    split: str
    digest: str


COLUMNS = ("file", "class", "split", "digest")


def read(path: str) -> dict[str, Entry]:
    """Returns the entries of a manifest (local or gs://) by digest, in the order of the file.

    Raises:
      ValueError: if there is no such file, or it is no manifest.
    """
    from mnet_jax.data.tensorflow_setup import tf

    try:
        with tf.io.gfile.GFile(path, "r") as file:
            rows = list(csv.reader(io.StringIO(file.read())))
    except tf.errors.NotFoundError as error:
        raise ValueError(f"no such manifest: {path}; a run on a folder writes photos.csv into its directory") from error
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__}") from error
    if not rows or tuple(rows[0]) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise ValueError(f"{path} is no manifest: a CSV file with the columns {','.join(COLUMNS)} expected")
    return {row[3]: Entry(*map(files.from_cell, row)) for row in rows[1:]}


def known(manifest_path: str | None, split_from: str | None) -> dict[str, Entry]:
    """Returns the entries by digest of the manifest that a run works with, if there is one: these were looked at."""
    path = manifest_path or split_from
    return {} if path is None else read(path)


def write(path: str, entries: Iterable[Entry]) -> None:
    """Writes a manifest, moved into place as a whole."""
    files.write_csv(path, COLUMNS, [dataclasses.astuple(entry) for entry in entries])


# --- Those of a run ---


def resume(config: ml_collections.ConfigDict, workdir: str) -> ml_collections.ConfigDict:
    """Returns the config for a start in `workdir`: where a run on a folder wrote its manifest, that one is used."""
    if config.data.name != "folder" or not epath.Path(os.path.join(workdir, MANIFEST)).exists():
        return config
    return saved(config, workdir)


def saved(config: ml_collections.ConfigDict, workdir: str) -> ml_collections.ConfigDict:
    """Returns the config as checkpoints say it: for a folder it names the manifest that `save` writes."""
    if config.data.name != "folder":
        return config
    config = config.copy_and_resolve_references()
    config.data.manifest = os.path.join(workdir, MANIFEST)
    return config


def save(source: Source, workdir: str, log: Callable[[str], None]) -> None:
    """Writes both files of a run on a folder, the manifest at its first start only; tells what its owner should know.

    Call it from one process.
    """
    if getattr(source, "listing", None) is None:
        return
    root, listing = source.root, source.listing
    own, left_out = os.path.join(workdir, MANIFEST), os.path.join(workdir, LEFT_OUT)
    if not epath.Path(own).exists():
        write(own, listing.entries(root))
    rows = [(os.path.relpath(file.path, root), file.why) for file in listing.left_out]
    files.write_csv(left_out, ("file", "why"), rows)
    if complaint := source.complaint():
        log(f"{complaint}. All are listed in {left_out}" if rows else complaint)
    if listing.newcomers:
        log(
            f"{len(listing.newcomers)} photos came since this run began and are not part of it: another --workdir with "
            f"--config.data.split_from={own} trains on them too, and holds out the same images"
        )
