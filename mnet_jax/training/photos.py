"""What a run on a folder of photos remembers: which image is in which split, and which files it left out.

    <workdir>/photos.csv     every image with its class, split and digest: the manifest of this run
    <workdir>/left_out.csv   every file that is not used, and why

A second start uses the images of the manifest, in its splits, whatever has come to the folder since.
"""

import collections
import os
from collections.abc import Callable

import ml_collections
from etils import epath

from mnet_jax.data import catalog, manifest

MANIFEST, LEFT_OUT = "photos.csv", "left_out.csv"


def recall(config: ml_collections.ConfigDict, workdir: str) -> ml_collections.ConfigDict:
    """The config with this run's own manifest, if it has one already."""
    own = os.path.join(workdir, MANIFEST)
    if config.data.name != "folder" or not epath.Path(own).exists():
        return config
    return _with_manifest(config, own)


def to_keep(config: ml_collections.ConfigDict, workdir: str) -> ml_collections.ConfigDict:
    """The config as it is saved: it names the manifest that `note` writes."""
    return config if config.data.name != "folder" else _with_manifest(config, os.path.join(workdir, MANIFEST))


def note(config: ml_collections.ConfigDict, workdir: str, log: Callable[[str], None]) -> None:
    """Writes both files at a run's first start; at a later one tells of photos that came since. For one process."""
    if config.data.name != "folder":
        return
    root, listing = catalog.folder_path(config.data), catalog.listing(config.data)
    own = os.path.join(workdir, MANIFEST)
    if not epath.Path(own).exists():
        manifest.write(own, listing.entries(root))
    left_out = os.path.join(workdir, LEFT_OUT)
    rows = [(os.path.relpath(file.path, root), file.why) for file in listing.left_out]
    manifest.write_table(left_out, ("file", "why"), rows)
    if complaint := listing.complaint(root):
        log(f"{complaint}. All are listed in {left_out}")
    counts = collections.Counter(file.label for file in listing.splits["train"])
    most, fewest = counts.most_common()[0], counts.most_common()[-1]
    if most[1] >= 3 * fewest[1] and config.task.class_weights == "none":
        log(
            f"{listing.class_names[most[0]]} has {most[1]:,} photos to learn from, {listing.class_names[fewest[0]]} "
            f"{fewest[1]:,}: with --config.task.class_weights=balanced each class counts the same"
        )
    if listing.newcomers:
        log(
            f"{len(listing.newcomers)} photos came since this run began and are not part of it: another --workdir with "
            f"--config.data.split_from={own} trains on them too, and holds out the same images"
        )


def _with_manifest(config: ml_collections.ConfigDict, path: str) -> ml_collections.ConfigDict:
    config = config.copy_and_resolve_references()
    config.data.manifest = path
    return config
