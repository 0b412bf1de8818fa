"""An unpacked ImageNet as a source of examples, read where it is: `data.name` "folder" with `data.folder`."""

from __future__ import annotations

from collections.abc import Mapping

import ml_collections
import numpy as np

from mnet_jax.data import layout, records
from mnet_jax.data.annotations import Annotation
from mnet_jax.data.imagenet import facts, forms, tree
from mnet_jax.data.imagenet_names import NAMES
from mnet_jax.data.source import Source
from mnet_jax.data.tensorflow_setup import tf


class UnpackedImageNet(Source):
    """The images of an unpacked ImageNet, always with its 1,000 classes in its order.

    Only names are looked at: nothing is left out, copies neither, so the numbers of images are the published ones.
    """

    class_names = tuple(NAMES.values())

    def __init__(self, found: tree.Tree, annotations: Mapping[str, Annotation]):
        self._tree, self._listing, self._labels = found, found.listing(), tuple(annotations)
        self.sizes = {split: sum(map(len, classes.values())) for split, classes in self._listing.items()}

    def count(self, split: str) -> int | None:
        """Returns how many images a split has."""
        return self.sizes.get(split)

    def open_split(self, split: str) -> records.Table:
        """Returns the paths of a split's images, by class, and their labels."""
        classes = self._listing[split]
        numbers = [facts.label(wnid, self._tree.root) for wnid in classes]
        labels = tf.constant(np.repeat(np.array(numbers, np.int64), [len(names) for names in classes.values()]))
        paths = layout.as_tensor(self.file_names(split))
        return records.Table(paths, {name: {"": labels} for name in self._labels}, are_paths=True)

    def file_names(self, split: str) -> list[str]:
        """Returns the images' paths."""
        return [self._tree.path(split, wnid, name) for wnid, names in self._listing[split].items() for name in names]


def open_folder(data: ml_collections.ConfigDict, annotations: Mapping[str, Annotation]) -> Source | None:
    """Returns the unpacked ImageNet in `data.folder`; None if there is none, or a manifest says what to take.

    Raises:
      ValueError: that says what to type, if ImageNet is there in a form that has to be prepared first.
    """
    if not data.folder or data.manifest or data.split_from or not annotations:
        return None
    root = data.folder.rstrip("/")
    if not tf.io.gfile.isdir(root):
        return None
    if found := tree.find(root):
        return UnpackedImageNet(found, annotations)
    if kind := forms.packed(root):
        raise ValueError(
            f"{data.folder} has ImageNet as {kind}, which is prepared first: type "
            f"mnet prepare --data imagenet2012 --archives {data.folder} --out DIR"
        )
    return None
