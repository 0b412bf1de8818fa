"""Lists of classes as CSV, a row or several for each image of a folder.

    file,label           a row for each class of an image
    file,labels          or several in one: "ant;bee", "ant|bee"; no class: the image has none
    file,ant,bee,wasp    a column for each class: 1 or 0

The first column is the image, by any name of `_FILES`; a column `split` says train, val or test. A row of which nobody
can say what it means costs its image: training would teach that a class is not there.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import os
import re

from mnet_jax.data.boxes.found import IMAGES, Fault, Tree
from mnet_jax.data.folder import LeftOut
from mnet_jax.data.labels.tagged import FoundTags, Tagged
from mnet_jax.data.layout import split_of, split_of_folder
from mnet_jax.data.listed import Dropped
from mnet_jax.data.manifest import COLUMNS
from mnet_jax.data.tensorflow_setup import tf
from mnet_jax.errors import did_you_mean

NAME = "labels.csv"  # at the top of a folder: is taken before all others
CLASSES = "classes.txt"  # beside it: all classes, one a line, in their order
_MOST = 256 << 20  # bytes
_FILES = (
    "file", "filename", "file_name", "filepath", "image", "images", "image_name", "image_id", "image_path", "img",
    "path", "photo", "picture",
)  # fmt: skip
_LABELS = ("label", "labels", "class", "classes", "tag", "tags", "category", "categories")
_SPLITS = ("split", "set", "subset")
_VALUES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


@dataclasses.dataclass(frozen=True)
class Table:
    """One file, still as text."""

    file: str  # below the root, or where else it is
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]  # the number of the line, its cells

    def column(self, *names: str) -> int | None:
        """Returns the place of the first column with one of these names; None if there is none."""
        return next((place for place, name in enumerate(self.header) if place and name.lower() in names), None)


def read(tree: Tree, name: str | None) -> FoundTags | None:
    """Returns what the table of a folder says, `name` or the one that is there; None if there is none.

    Several tables are read where each names a split: train.csv and val.csv, train/_classes.csv and valid/_classes.csv.

    Raises:
      ValueError: if there is no file `name`, one cannot tell which is meant, or it is no such table.
    """
    tables = [_named(tree, name)] if name is not None else _there(tree)
    if not tables:
        return None
    shown = " and ".join(table.file for table in tables)
    known = _known(tree)
    reader = _Reader(tree, known)
    columns = {tuple(header): table.file for table in tables if (header := class_columns(table)) is not None}
    if len(columns) > 1:
        raise ValueError(f"{tree.root}: {' and '.join(columns.values())} have other columns: the same classes expected")
    for table in tables:
        try:
            reader.add(table)
        except Fault as fault:
            raise ValueError(f"{tree.path(table.file)}: {fault}") from fault
    images, left_out = reader.result(shown)
    names = known or next(iter(columns), None) or sorted({name for one in images for name in one.names})
    alike = collections.Counter(name.casefold() for name in names)
    if twice := [name for name in names if alike[name.casefold()] > 1]:
        raise ValueError(
            f"{tree.root}: {shown} has the classes {twice[0]!r} and {twice[1]!r}: write one class in one way"
        )
    return FoundTags(shown, tuple(names), tuple(images), tuple(left_out))


def class_columns(table: Table) -> list[str] | None:
    """Returns the names of the classes where each has a column of 0 and 1; None where the classes are in cells."""
    others = [place for place in range(1, len(table.header)) if table.header[place].lower() not in _SPLITS]
    if len(others) == 1:
        values = {cells[others[0]].lower() for _, cells in table.rows if len(cells) == len(table.header)}
        if table.header[others[0]].lower() in _LABELS or not values <= _VALUES.keys():
            return None
    return [table.header[place] for place in others]


class _Reader:
    """Collects what the rows say of each image."""

    def __init__(self, tree: Tree, known: tuple[str, ...]):
        self._tree, self._known = tree, known
        self._names: dict[str, dict[str, str]] = {}  # image -> its classes, and where each was said
        self._none: dict[str, str] = {}  # image -> where it was said to have none
        self._row: dict[str, tuple[frozenset[str], str]] = {}  # image -> its row of 0 and 1
        self._splits: dict[str, str] = {}
        self._faults: dict[str, str] = {}  # image, or what stands for one -> the first fault
        self._again: list[LeftOut] = []

    def add(self, table: Table) -> None:
        """Reads a table. Raises Fault if most of its rows say nothing that can be understood."""
        columns, split, wrong = class_columns(table), table.column(*_SPLITS), []
        if columns == []:
            raise Fault("line 1: a column `label`, or a column of 0 and 1 for each class, expected beside the first")
        for line, cells in table.rows:
            image, where = cells[0] or f"line {line}", f"{table.file}, line {line}"
            try:
                image = self._image(table, cells[0], split_of(table.file))
                if len(cells) != len(table.header):
                    raise Fault(f"{len(cells)} cells, {len(table.header)} expected: several classes are `ant;bee`")
                self._split(image, table, "" if split is None else cells[split])
                if columns is None:
                    place = next(at for at in range(1, len(cells)) if at != split)
                    self._add_cell(image, cells[place], where)
                else:
                    self._add_row(image, dict(zip(table.header[1:], cells[1:], strict=True)), columns, where)
            except Fault as fault:
                wrong.append(f"line {line}: {fault}")
                self._faults.setdefault(image, f"{where}: {fault}")
        if len(wrong) > max(len(table.rows) / 2, 1):
            raise Fault(f"{len(wrong)} of {len(table.rows)} rows cannot be understood, such as {wrong[0]}")

    def result(self, shown: str) -> tuple[list[Tagged], list[LeftOut]]:
        """Returns the images, and what is left out; images of the folder without a row are."""
        images = []
        for image in self._splits:
            names, none = self._names.get(image, {}), self._none.get(image)
            if names and none:
                name, where = next(iter(names.items()))
                self._faults.setdefault(image, f"{none}: no class, and {name!r} in {where}")
            if image not in self._faults:
                images.append(Tagged(image, self._splits[image], frozenset(names)))
        used = set(self._splits) | set(self._faults)
        left_out = [LeftOut(image, why) for image, why in self._faults.items()]
        left_out += [LeftOut(image, f"in no row of {shown}") for image in self._tree.images if image not in used]
        return images, [*left_out, *(one for one in self._again if one.path not in self._faults)]

    def _image(self, table: Table, name: str, split: str) -> str:
        if not name:
            raise Fault("no image named")
        try:
            return self._tree.named(name, table.file, split)
        except Fault:
            if name.lower().endswith(IMAGES):
                raise
            return self._tree.of_stem(name, name, split)  # "train_17" is train_17.jpg

    def _split(self, image: str, table: Table, said: str) -> None:
        found = split_of(said) if said else split_of(os.path.basename(table.file)) or split_of_folder(image)
        if said and not found:
            raise Fault(f"split {said!r}: train, val or test expected")
        if self._splits.setdefault(image, found) != found:
            raise Fault(f"in split {found!r}, and before in {self._splits[image]!r}")

    def _add_cell(self, image: str, cell: str, where: str) -> None:
        whole = cell in self._known
        names = [cell] if whole else [part.strip() for part in re.split(r"[;|,]", cell) if part.strip()]
        if not names:
            if image in self._none:
                self._again.append(Dropped(image, f"{where}: no class again, as in {self._none[image]}"))
            self._none.setdefault(image, where)
        there = self._names.setdefault(image, {})
        for name in names:
            if self._known and name not in self._known:
                raise Fault(f"unknown class {name!r}.{did_you_mean(name, self._known)} {CLASSES} has the classes")
            if name in there:
                self._again.append(Dropped(image, f"{where}: {name!r} again, as in {there[name]}"))
            there.setdefault(name, where)

    def _add_row(self, image: str, cells: dict[str, str], columns: list[str], where: str) -> None:
        values = {}
        for name in columns:
            if self._known and name not in self._known:
                raise Fault(f"unknown class {name!r}.{did_you_mean(name, self._known)} {CLASSES} has the classes")
            if (value := _VALUES.get(cells[name].lower())) is None:
                raise Fault(f"column {name!r} has {cells[name]!r}: 0 or 1 expected")
            values[name] = value
        names = frozenset(name for name, value in values.items() if value)
        before, earlier = self._row.setdefault(image, (names, where))
        if earlier != where:
            if before != names:
                raise Fault(f"other classes than in {earlier}")
            self._again.append(Dropped(image, f"{where}: the same again, as in {earlier}"))
        self._names.setdefault(image, {}).update(dict.fromkeys(names, where))


# --- Files ---


def _named(tree: Tree, name: str) -> Table:
    """Returns the table of `data.labels`, a file below the folder or anywhere else."""
    elsewhere = os.path.abspath(os.path.expanduser(name))
    if name not in tree.known and ("://" in name or not tf.io.gfile.exists(elsewhere)):
        there = tree.with_suffix(".csv", ".tsv")
        raise ValueError(
            f"data.labels={name!r}: no such file, neither below {tree.root} nor here; below it there "
            f"{'are ' + ', '.join(there[:5]) if there else 'is no CSV'}.{did_you_mean(name, there)}"
        )
    file = name if name in tree.known else elsewhere
    try:
        return _load(tree, file)
    except Fault as fault:
        raise ValueError(f"{tree.path(file)}: {fault}") from fault


def _there(tree: Tree) -> list[Table]:
    """Returns labels.csv, or else what looks like such tables: one, or one for each split."""
    if NAME in tree.known:
        return [_named(tree, NAME)]
    found = []
    for file in tree.with_suffix(".csv", ".tsv"):
        try:
            found.append(_load(tree, file))
        except Fault:
            continue  # something else
    splits = [split_of(table.file) for table in found]
    if len(found) > 1 and (not all(splits) or len(set(splits)) < len(splits)):
        files = ", ".join(table.file for table in found[:5])
        raise ValueError(
            f"{tree.root} has {len(found)} tables of images, {files}: type --config.data.labels=FILE, or call them "
            "after their splits, such as train.csv and val.csv"
        )
    return found


def _load(tree: Tree, file: str) -> Table:
    """Returns a table. Raises Fault if the file is none."""
    text = tree.text(file, _MOST)
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text), delimiter=next((sign for sign in ",;\t" if sign in first), ","))
    try:
        rows = [(reader.line_num, tuple(cell.strip() for cell in row)) for row in reader]
    except csv.Error as error:
        raise Fault(f"line {reader.line_num}: {error}") from error
    rows = [(line, cells) for line, cells in rows if any(cells)]
    if not rows or rows[0][1] == COLUMNS:  # a run's photos.csv is no table of classes
        raise Fault("has no rows; `file,label` and then a row for each image expected")
    header = rows[0][1]
    if header[0].lower().endswith(IMAGES) and len(header) == 2:
        return Table(file, ("file", "label"), tuple(rows))
    if header[0].lower() not in _FILES:
        raise Fault(f"line 1: the first column is {header[0]!r}; it must be the image and be called {_FILES[0]!r}")
    if twice := [name for name, count in collections.Counter(header).items() if count > 1 or not name]:
        raise Fault(f"line 1: {'two columns are called ' + repr(twice[0]) if twice[0] else 'a column has no name'}")
    return Table(file, header, tuple(rows[1:]))


def _known(tree: Tree) -> tuple[str, ...]:
    """Returns the classes of classes.txt, () where there is none."""
    if CLASSES not in tree.known:
        return ()
    try:
        names = tuple(line.strip() for line in tree.text(CLASSES, 1 << 20).splitlines() if line.strip())
    except Fault as fault:
        raise ValueError(f"{tree.path(CLASSES)} {fault}; a class a line expected") from fault
    if len(set(names)) < len(names):
        raise ValueError(f"{tree.path(CLASSES)} has a class twice: a class a line expected, each once")
    return names
