"""The forms that people hold ImageNet in, recognised by what lies in a folder.

The two archives of image-net.org; unpacked trees and Kaggle's layout (`tree.py`); Parquet shards and WebDataset tars as
the Hugging Face hub has them. Each becomes strands by split.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable

from mnet_jax.data import catalog, layout
from mnet_jax.data.imagenet import archives, facts, strands, tree
from mnet_jax.data.imagenet.strands import Strand
from mnet_jax.data.imagenet.tar import Bytes, Region
from mnet_jax.data.tensorflow_setup import tf

_SPLITS = re.compile(r"(?:^|[^a-z])(train|validation|val)(?:[^a-z]|$)")
_PUBLISHED = catalog.PUBLISHED["imagenet2012"]
_IMAGES = {"train": _PUBLISHED.num_train, "validation": _PUBLISHED.num_eval}
_MEASURED = 64  # images of a strand by which the number of all is estimated
EXPECTED = (
    "the archives ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, the unpacked train/ and val/, Kaggle's "
    "ILSVRC/Data/CLS-LOC, Parquet files or WebDataset tars named train-*.parquet or *-train-*.tar"
)


@dataclasses.dataclass(frozen=True)
class Form:
    """ImageNet in a folder."""

    kind: str
    splits: dict[str, list[Strand]]
    is_exact: bool = True  # whether the strands count images, and not bytes

    def num_images(self, split: str) -> int:
        """Returns how many images a split has; an estimate where only the size of its archives is known."""
        size = sum(strand.size for strand in self.splits[split])
        if self.is_exact:
            return size
        if size == facts.ARCHIVES[split].size:
            return _IMAGES[split]
        count, place = 0, 0
        for strand in self.splits[split]:
            for after, _ in strand.examples(0):
                count, last = count + 1, after
                if count % _MEASURED == 0:
                    break
            else:
                last = strand.size
            place += last
            if count >= _MEASURED:
                break
        return round(count * size / max(place, 1))

    def num_shards(self, split: str) -> int:
        """Returns how many files a split is stored in: TFDS's own number for all of ImageNet, fewer for a part."""
        share = self.num_images(split) / _IMAGES[split]
        return max(1, min(facts.SHARDS[split], round(facts.SHARDS[split] * share)))

    def size(self) -> int:
        """Returns a number that tells one copy of ImageNet from another."""
        return sum(strand.size for split in self.splits.values() for strand in split)


def recognise(root: str) -> Form | None:
    """Returns the form of ImageNet that is in a folder, None if there is none.

    Raises:
      ValueError: if there is one with a part missing.
    """
    if not tf.io.gfile.isdir(root):
        raise ValueError(f"no such folder: {root}")
    if archives.are_there(root):
        return Form("archives", archives.open_strands(root), is_exact=False)
    if found := tree.find(root.rstrip("/")):
        return _tree(found)
    for kind, (ending, make) in _SHARDS.items():
        if found := _shards(root, ending):
            splits = {split: [strands.Chain([make(path) for path in paths])] for split, paths in found.items()}
            return Form(kind, splits, is_exact=make is strands.Rows)
    return None


def packed(root: str) -> str | None:
    """Returns what a folder has ImageNet as, if it is packed in archives or shards."""
    if archives.are_there(root):
        return "archives"
    return next((kind for kind, (ending, _) in _SHARDS.items() if all(_listed(root, ending).values())), None)


def _samples(path: str) -> Strand:
    return strands.Samples(Region(Bytes(path)))


_SHARDS: dict[str, tuple[str, Callable[[str], Strand]]] = {
    "Parquet files": (".parquet", strands.Rows),
    "WebDataset tars": (".tar", _samples),
}


def _shards(root: str, ending: str) -> dict[str, list[str]]:
    """Returns the files of both splits, {} if there are none. Raises ValueError if one split has none."""
    found = _listed(root, ending)
    if any(found.values()) and not all(found.values()):
        there, missing = sorted(found, key=lambda split: not found[split])
        raise ValueError(f"{root} has {there} files (*{ending}) and none of {missing}: download those too")
    return found if any(found.values()) else {}


def _listed(root: str, ending: str) -> dict[str, list[str]]:
    """Returns the files of a folder, or of data/ in it, by the split that their names say."""
    found: dict[str, list[str]] = {"train": [], "validation": []}
    for directory in (root, os.path.join(root, "data")):
        for name in sorted(layout.names(directory)) if tf.io.gfile.isdir(directory) else ():
            if name.endswith(ending) and (split := _SPLITS.search(name)):
                found["train" if split[1] == "train" else "validation"].append(os.path.join(directory, name))
    return found


def _tree(found: tree.Tree) -> Form:
    listing, splits = found.listing(), {}
    for split, classes in listing.items():
        splits[split] = [
            strands.Files([found.path(split, wnid, name) for name in names], [wnid] * len(names))
            for wnid, names in classes.items()
            if names
        ]
        if not splits[split]:
            raise ValueError(f"{found.validation if split == 'validation' else found.train} has no images")
    return Form("unpacked tree", splits)
