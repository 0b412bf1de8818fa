"""A folder of images with any number of classes each as a data set: a CSV, labels with boxes, or folders of classes.

What is there is recognised, in this order. In folders of classes (`photos/<class>/...`, `photos/train/<class>/...`) the
same photo, told by its content, lies in the folder of each of its classes; photos without a class lie in one called as
`NOTHING` says. Of labels with boxes (COCO, VOC, YOLO) a class is on an image where it has a box.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Container, Mapping, Sequence
from typing import ClassVar

import ml_collections
import numpy as np

from mnet_jax.data import formats, judged, layout, manifest, records
from mnet_jax.data.annotations import Annotation
from mnet_jax.data.boxes import folder as boxes
from mnet_jax.data.boxes.found import Tree
from mnet_jax.data.folder import Candidate, LeftOut, folder_path, inspect
from mnet_jax.data.label_set import LabelSet
from mnet_jax.data.labels import tables
from mnet_jax.data.labels.holdout import held_out
from mnet_jax.data.labels.tagged import FoundTags, Tagged
from mnet_jax.data.listed import AnnotatedListing, Arranger, ListedFile, ListedFolder
from mnet_jax.data.tensorflow_setup import tf

NOTHING = ("none", "no_label", "no_labels", "negative", "negatives")  # folders whose photos have none of the classes


@dataclasses.dataclass(frozen=True)
class TaggedListing(AnnotatedListing):
    """The images of a folder by split, each split in the order of its paths."""

    parts: ClassVar[str] = "rows"

    def class_of(self, file: ListedFile) -> str:
        """Returns what a manifest says of an image: its classes, "ant;bee"."""
        return _text(self.class_names[number] for number in file.classes)


class TaggedFolder(ListedFolder):
    """The images of `data.folder` with their classes."""

    def __init__(
        self, data: ml_collections.ConfigDict, annotations: Mapping[str, Annotation], judged_by: tuple[str, ...] = ()
    ):
        other = [f"{name} ({one.kind})" for name, one in annotations.items() if not isinstance(one, LabelSet)]
        if other:
            raise ValueError(
                f"data.name='folder' has classes here, and not {', '.join(other)} beside them: name a TFDS set that "
                "has all in data.name"
            )
        root, self._names, self.is_judged = folder_path(data), tuple(annotations), bool(judged_by)
        good = {} if judged_by else manifest.known(data.manifest, data.split_from)
        found = read(root, data.labels, good, for_training=not judged_by)
        if judged_by:
            listing = _judged(root, found, judged_by)
        else:
            listing = _arranged(root, found, data.manifest, data.split_from)
        super().__init__(root, listing)

    def annotations(self, wanted: Mapping[str, Annotation], eval_split: str) -> dict[str, Annotation]:
        """Returns the kinds with the number of classes."""
        del eval_split
        return {name: dataclasses.replace(one, num_classes=len(self.class_names)) for name, one in wanted.items()}

    def open_split(self, split: str) -> records.Table:
        """Returns the paths of a split's images, and a row of classes for each."""
        files = self.files(split)
        rows = np.zeros((len(files), len(self.class_names)), np.uint8)
        for row, file in zip(rows, files, strict=True):
            row[list(file.classes)] = 1
        paths = layout.as_tensor(file.path for file in files)
        return records.Table(paths, {name: {"": tf.constant(rows)} for name in self._names}, are_paths=True)


def read(root: str, table: str | None = None, good: Container[str] = (), *, for_training: bool = True) -> FoundTags:
    """Returns what a folder says of the classes of its images.

    Args:
      root: the folder, local or gs://.
      table: `data.labels`: a CSV below it or elsewhere; None: what is there is recognised.
      good: digests of images that were found to be so before.
      for_training: whether folders of splits are such only beside one called train.

    Raises:
      ValueError: if nothing says the classes, or more than one thing does.
    """
    tree = Tree(root)
    if (found := tables.read(tree, table)) is not None:
        return found
    labelled = [one for reader in boxes.READERS if (one := reader.read(tree)) is not None]
    if labelled:
        found = labelled[0] if len(labelled) == 1 else boxes.read(tree)
        images = [Tagged(one.path, one.split, frozenset(thing.name for thing in one.objects)) for one in found.images]
        return FoundTags(f"boxes ({found.kind})", found.class_names, tuple(images), found.left_out, found.note)
    return _of_folders(root, good, for_training=for_training)


def _of_folders(root: str, good: Container[str], *, for_training: bool) -> FoundTags:
    """Returns the images of folders of classes, the same image in several of them as one."""
    found, unusable = inspect(root, good, for_training=for_training)
    groups = collections.defaultdict(list)
    for one in found:
        groups[one.digest].append(one)
    images, left_out, several = [], [(one.path, one.why) for one in unusable], 0
    for digest, copies in groups.items():
        nothing = [one for one in copies if one.class_name.lower() in NOTHING]
        there = [one for one in copies if one not in nothing]
        chosen = min(copies, key=lambda one: (one.split == "train", one.path))
        if nothing and there:
            left_out += [
                (one.path, f"is in {nothing[0].class_name!r} and in {there[0].class_name!r}") for one in copies
            ]
            continue
        names = frozenset(one.class_name for one in there)
        several += len(names) > 1
        images.append(Tagged(os.path.relpath(chosen.path, root), chosen.split, names, digest))
        places = {(one.split, one.class_name): one for one in reversed(copies)}
        for one in copies:  # the same photo in another class is what the folders are for; in the same it is a copy
            first = places[one.split, one.class_name]
            if one is not first:
                left_out.append((one.path, f"copy of {os.path.relpath(first.path, root)}"))
    names = sorted({name for one in images for name in one.names})
    if not names:
        raise ValueError(
            f"{root} has no images with classes: {tables.NAME} with a row `file,label` for each class of an image, or "
            f"a folder for each class, such as {os.path.join(root, 'cats')}, expected"
        )
    note = f"{several} photos lie in several classes" if several else "no photo lies in more than one class"
    below = tuple(LeftOut(os.path.relpath(path, root), why) for path, why in left_out)
    return FoundTags("folders of classes", tuple(names), tuple(images), below, note)


# --- From what is said to a listing ---


class _SharedOut(Arranger):
    """Puts images into splits so that each of their classes is held out."""

    def held_out(self, files: Mapping[str, ListedFile], candidates: Sequence[Candidate]) -> set[str]:
        """Returns the paths of the images that are held out (`holdout.py`)."""
        numbers = {number for one in candidates for number in files[one.path].classes}
        has = np.zeros((len(candidates), max(numbers, default=-1) + 1), bool)
        for row, one in zip(has, candidates, strict=True):
            row[list(files[one.path].classes)] = True
        held = held_out(np.array([one.draw for one in candidates]), has)
        return {one.path for one, out in zip(candidates, held, strict=True) if out}


def _arranged(root: str, found: FoundTags, manifest_path: str | None, split_from: str | None) -> TaggedListing:
    """Returns the listing of a run."""
    names = found.class_names
    good = manifest.known(manifest_path, split_from)
    files, said, left_out = _checked(root, found, {name: number for number, name in enumerate(names)}, good)
    counts = collections.Counter(number for file in files.values() for number in file.classes)
    if len(names) == 1 and counts[0] == len(files):
        raise ValueError(
            f"{root}: all {len(files)} images have the only class {names[0]!r}: images without it are needed too"
        )
    contents = {path: _text(names[number] for number in file.classes) for path, file in files.items()}
    arranged = _SharedOut(root, found.kind, "other classes")(files, said, contents, manifest_path, split_from)
    note = "; ".join(filter(None, [found.note, _counts(names, arranged.splits)]))
    left_out = tuple(sorted((*left_out, *arranged.left_out), key=lambda one: one.path))
    return TaggedListing(names, arranged.splits, left_out, arranged.newcomers, note)


def _judged(root: str, found: FoundTags, known: tuple[str, ...]) -> TaggedListing:
    """Returns the listing of all images, in the classes of a model."""
    numbers = judged.places(root, found.class_names, known)
    files, said, left_out = _checked(root, found, numbers)
    contents = {path: _text(known[number] for number in file.classes) for path, file in files.items()}
    candidates = [Candidate(path, contents[path], said[path], file.digest) for path, file in files.items()]
    candidates, copies = _SharedOut(root, found.kind, "other classes").without_copies(candidates)
    splits = {
        split: tuple(files[one.path] for one in sorted(candidates, key=lambda one: one.path) if one.split == said)
        for said, split in (*((split, split) for split in judged.SPLITS[:-1]), ("", judged.ALL))
    }
    splits = {split: listed for split, listed in splits.items() if listed}
    there = {number for listed in splits.values() for file in listed for number in file.classes}
    renamed = {name: known[number] for name, number in numbers.items() if name != known[number]}
    note = "; ".join([*judged.notes(known, there, renamed), _counts(known, splits)])
    return TaggedListing(known, splits, tuple(sorted((*left_out, *copies), key=lambda one: one.path)), (), note)


def _checked(
    root: str, found: FoundTags, numbers: Mapping[str, int], good: Container[str] = ()
) -> tuple[dict[str, ListedFile], dict[str, str], list[LeftOut]]:
    """Returns the usable images and their splits by path, and what is left out.

    Images of the digests `good` were found to be so before.

    Raises:
      ValueError: if no image can be used, or none has a class.
    """
    left_out = [type(one)(os.path.join(root, one.path), one.why) for one in found.left_out]
    paths = [os.path.join(root, one.path) for one in found.images]
    unseen = [path for path, one in zip(paths, found.images, strict=True) if one.digest is None]
    verdicts = iter(formats.judge(unseen, good, sizes=False))
    files, said = {}, {}
    for path, one in zip(paths, found.images, strict=True):
        verdict = formats.Verdict(None, one.digest) if one.digest is not None else next(verdicts)
        if verdict.fault:
            left_out.append(LeftOut(path, verdict.fault))
            continue
        files[path] = ListedFile(path, 0, verdict.digest, tuple(sorted(numbers[name] for name in one.names)))
        said[path] = one.split
    if not any(file.classes for file in files.values()):
        why = f", such as {os.path.relpath(left_out[0].path, root)} ({left_out[0].why})" if left_out else ""
        raise ValueError(f"{root}: no image has a class, of {len(found.images)} in {found.kind}{why}")
    return files, said, left_out


def _counts(names: Sequence[str], splits: Mapping[str, Sequence[ListedFile]], shown: int = 12) -> str:
    """Returns how many images each class has in the splits, the fewest first where not all are shown."""
    by_split = {
        split: collections.Counter(number for file in files for number in file.classes)
        for split, files in splits.items()
    }
    totals = collections.Counter({number: 0 for number in range(len(names))})
    for counts in by_split.values():
        totals.update(counts)
    order = range(len(names)) if len(names) <= shown else sorted(totals, key=lambda number: (totals[number], number))
    rows = [f"{names[number]} {' + '.join(str(c[number]) for c in by_split.values())}" for number in order][:shown]
    rows += [f"and {len(names) - shown} more with at least {totals[order[shown]]}"] if len(names) > shown else []
    bare = [sum(not file.classes for file in files) for files in splits.values()]
    rows += [f"none {' + '.join(map(str, bare))}"] if any(bare) else []
    return f"images in {' + '.join(splits)}: {', '.join(rows)}"


def _text(names: Sequence[str]) -> str:
    return ";".join(sorted(names))
