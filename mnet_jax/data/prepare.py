"""A one-off that stores a data set with small images, for several times the speed of input.

A TFDS set becomes the same set (name, version, features, splits, order) under another directory, always as TFRecords; a
folder of images becomes a folder, with the splits that it has, or is given, written out. It is built in a directory
NAME.incomplete beside its final place, which it takes only when all is there. What was finished before a kill is found
there again by the next start.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import ml_collections

from mnet_jax import files
from mnet_jax.data import fetch, tfds_set
from mnet_jax.data.annotations import Label
from mnet_jax.data.folder import File, Folder
from mnet_jax.data.imagenet import forms
from mnet_jax.data.imagenet.store import ImageNet
from mnet_jax.data.shrink import Settings, in_order, shrinker
from mnet_jax.data.stored import Progress, Tally, image, read_bytes, read_json, remove_notes, write_json, write_shard
from mnet_jax.data.tensorflow_setup import tf
from mnet_jax.data.tfds_set import TFDSSet

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

NOTE = "mnet_prepare.json"  # in the prepared set: the settings and what came out
_SAMPLED = 32  # images by which the size is estimated


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What is ahead, from the first images of the set."""

    images: int
    bytes_after: int
    bytes_free: int | None  # None where the place cannot say, such as a bucket


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What was saved, and where."""

    directory: str
    tally: Tally
    was_there: bool  # nothing had to be done
    use: str  # the flag that names it in a config


def prepare(
    data: ml_collections.ConfigDict,
    out: str | None,
    settings: Settings,
    *,
    announce: Callable[[Estimate], None],
    progress: Progress,
) -> Prepared:
    """Prepares the set that `data` names under `out`: a TFDS directory, or for name "folder" the new folder itself.

    ImageNet in `data.folder`, in any of its forms, becomes TFDS's imagenet2012. A set of TFDS's catalogue that is not
    there is downloaded first.

    Args:
      data: the section of a run's config.
      out: where to; None: a set of the catalogue is only downloaded, to its TFDS directory.
      settings: how small.
      announce: is told what is ahead.
      progress: is told how many more images are done.

    Raises:
      ValueError: if there is no such set, nothing to be gained, not enough space, or something else at that place.
    """
    if out is not None and "://" in out and out.partition("://")[0] not in tf.io.gfile.get_registered_schemes():
        raise ValueError(f"cannot write {out}: give a local directory or gs://..., and copy the files from there")
    if not data.folder:
        fetched = _fetched(data, out, settings)
        if fetched is not None:
            return fetched
    source = _source(data, settings)
    target = source.target(os.path.expanduser(out))
    use = f"--config.data.{'folder' if isinstance(source, _Folder) else 'data_dir'}={out}"
    note = {"short_side": settings.short_side, "quality": settings.quality, "interpolation": settings.interpolation}
    if settings.short_side is None:
        note = {"short_side": None}
    note |= source.note()
    if tf.io.gfile.exists(target):
        return Prepared(target, _earlier(target, note), was_there=True, use=use)
    part = target.rstrip("/") + ".incomplete"
    _begin(part, note)
    announce(_estimate(source, settings, part))
    tally = source.write(part, shrinker(settings), progress)
    if not tally.images:
        raise ValueError(f"none of the images of {data.name} can be read")
    write_json(os.path.join(part, NOTE), note | {"tally": dataclasses.asdict(tally)})
    tf.io.gfile.rename(part, target)
    return Prepared(target, tally, was_there=False, use=use)


def _source(data: ml_collections.ConfigDict, settings: Settings) -> "ImageNet | _Folder | _Set":
    form = forms.recognise(os.path.expanduser(data.folder)) if data.folder else None
    if form is not None:
        return ImageNet(form)
    if data.folder and data.name != "folder":
        raise ValueError(f"{data.folder} has no ImageNet: {forms.EXPECTED} expected")
    if settings.short_side is None:
        raise ValueError(f"{data.folder or data.name} is there as it is: give --short_side, and not --original")
    return _Folder(data) if data.folder else _Set(data)


def _fetched(data: ml_collections.ConfigDict, out: str | None, settings: Settings) -> Prepared | None:
    """Returns a set of TFDS's catalogue where it is to stay as TFDS makes it; None if it is to be stored small."""
    home = tfds_set.data_dir(data)
    if not fetch.is_there(data):
        if data.name.split(":")[0] == "imagenet2012":
            tfds_set.open_builder(data)  # says how to come by it
        as_it_is = out is None or settings.short_side is None or fetch.is_small(data)
        place = (out or home) if as_it_is else home
        directory, count = fetch.fetch(data, place)
        tally, use = Tally(images=count, kept=count), f"--config.data.data_dir={place}"
        return Prepared(directory, tally, was_there=False, use=use) if as_it_is else None
    if out is not None:
        return None
    builder = tfds_set.open_builder(data)
    count = sum(split.num_examples for split in builder.info.splits.values())
    tally, use = Tally(images=count, kept=count), f"--config.data.data_dir={home}"
    return Prepared(str(builder.data_dir), tally, was_there=True, use=use)


def _earlier(target: str, note: dict[str, object]) -> Tally:
    """Returns what the note of a finished set says, if it was made with the same settings."""
    path = os.path.join(target, NOTE)
    if not tf.io.gfile.exists(path):
        raise ValueError(f"{target} is there already and was not made by `mnet prepare`: give another --out")
    found = read_json(path)
    _check_settings(target, found, note)
    return Tally(**found["tally"])


def _begin(part: str, note: dict[str, object]) -> None:
    """Makes the directory, or finds what an earlier start with the same settings left there."""
    path = os.path.join(part, NOTE)
    if tf.io.gfile.exists(path):
        _check_settings(part, read_json(path), note)
        return
    tf.io.gfile.makedirs(part)
    write_json(path, note)


def _check_settings(place: str, found: dict[str, object], wanted: dict[str, object]) -> None:
    other = [
        f"{name} {found.get(name)} instead of {value}" for name, value in wanted.items() if found.get(name) != value
    ]
    if other:
        raise ValueError(f"{place} was begun with {', '.join(other)}: delete it or give another --out")


def _size(directory: str) -> int:
    """Returns how many bytes an earlier start left in a local directory."""
    return sum(os.path.getsize(os.path.join(place, name)) for place, _, names in os.walk(directory) for name in names)


def _estimate(source: "ImageNet | _Set | _Folder", settings: Settings, part: str) -> Estimate:
    shrink, sizes = shrinker(settings), []
    for contents in source.sample(_SAMPLED):
        try:
            sizes.append(len(shrink(contents)))
        except ValueError:
            sizes.append(0)
    total = int(sum(sizes) / max(len(sizes), 1) * source.num_images)
    free = None if "://" in part else shutil.disk_usage(part).free + _size(part)
    if free is not None and total > free:
        raise ValueError(f"about {total >> 20:,} MiB are needed at {part} and {free >> 20:,} MiB are free")
    return Estimate(source.num_images, total, free)


class _Set:
    """A TFDS set."""

    def __init__(self, data: ml_collections.ConfigDict):
        self._builder = TFDSSet(data, {}).builder
        self._home = tfds_set.data_dir(data)
        self.num_images = sum(split.num_examples for split in self._splits())
        features = self._builder.info.features
        shape = features["image"].shape
        if None not in shape[:2]:
            raise ValueError(f"all images of {data.name} are {shape[0]}x{shape[1]}: there is nothing to prepare")
        # boxes are shares of the picture and stay right; a map of its pixels would not
        others = [
            name for name, one in features.items() if isinstance(one, type(features["image"])) and name != "image"
        ]
        if others:
            raise ValueError(
                f"{data.name} has {', '.join(others)} of the size of its images: they cannot be shrunk alone"
            )

    def _splits(self) -> "list[tfds.core.SplitInfo]":
        return list(self._builder.info.splits.values())

    def target(self, out: str) -> str:
        """Returns where the prepared set will be."""
        if os.path.abspath(out) == os.path.abspath(self._home) and "://" not in out:
            raise ValueError(f"--out {out} is where the set itself is: give another directory")
        return os.path.join(out, self._builder.info.full_name)

    def note(self) -> dict[str, object]:
        """Returns what tells this source from others: its place in the target does."""
        return {}

    def sample(self, count: int) -> list[bytes]:
        """Returns the first images."""
        found = []
        for file in self._splits()[0].filepaths:
            for example in _examples(str(file)):
                found.append(image(example))
                if len(found) == count:
                    return found
        return found

    def write(self, part: str, shrink: Callable[[bytes], bytes], progress: Progress) -> Tally:
        """Writes all files of the set; one that is there is whole, and its tally lies beside it until the end."""
        total, info = Tally(), json.loads(self._read("dataset_info.json"))
        for split, entry in zip(self._splits(), info["splits"], strict=True):
            assert split.name == entry["name"]
            lengths, num_bytes = [], 0
            for file in split.filepaths:
                name = os.path.basename(str(file)).replace(".array_record-", ".tfrecord-")
                path, note = os.path.join(part, name), os.path.join(part, f".{name}.json")
                if tf.io.gfile.exists(note):
                    tally = Tally(**read_json(note))
                    progress(tally.images + len(tally.left_out))
                else:
                    tally = write_shard(path, split.name, _examples(str(file)), shrink, progress)
                    write_json(note, dataclasses.asdict(tally))
                total.add(tally)
                lengths.append(str(tally.images))
                num_bytes += tf.io.gfile.stat(path).length
            entry["shardLengths"], entry["numBytes"] = lengths, str(num_bytes)
        info["fileFormat"] = "tfrecord"
        for file in tf.io.gfile.listdir(str(self._builder.data_dir)):
            if file.endswith((".txt", "features.json")):
                tf.io.gfile.copy(
                    os.path.join(str(self._builder.data_dir), file), os.path.join(part, file), overwrite=True
                )
        write_json(os.path.join(part, "dataset_info.json"), info)
        remove_notes(part)
        return total

    def _read(self, name: str) -> str:
        with tf.io.gfile.GFile(os.path.join(str(self._builder.data_dir), name)) as file:
            return file.read()


def _examples(path: str) -> Iterator["tf.train.Example"]:
    """Yields the examples of a TFRecord or ArrayRecord file."""
    return (tf.train.Example.FromString(record) for record in _records(path))


def _records(path: str) -> Iterator[bytes]:
    """Yields the serialized examples of a TFRecord or ArrayRecord file."""
    if ".array_record" in os.path.basename(path):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        with ArrayRecordDataSource([path]) as source:
            for place in range(len(source)):
                yield source[place]
    else:
        yield from tf.data.TFRecordDataset(path, buffer_size=8 << 20).as_numpy_iterator()


class _Folder:
    """A folder of images, one sub-folder a class."""

    def __init__(self, data: ml_collections.ConfigDict):
        folder = Folder(data, {"label": Label()})
        self._root, self._listing = folder.root, folder.listing
        self.num_images = sum(map(len, self._listing.splits.values()))

    def target(self, out: str) -> str:
        """Returns where the prepared folder will be."""
        inside = os.path.abspath(out) + os.sep
        if "://" not in out and inside.startswith(os.path.abspath(self._root) + os.sep):
            raise ValueError(f"--out {out} is inside the folder itself: give another directory")
        return out

    def note(self) -> dict[str, object]:
        """Returns what tells this source from others: nothing that is kept."""
        return {}

    def sample(self, count: int) -> list[bytes]:
        """Returns some images, from all over the folder."""
        files = [file.path for files in self._listing.splits.values() for file in files]
        return [read_bytes(path) for path in files[:: max(1, len(files) // count)][:count]]

    def write(self, part: str, shrink: Callable[[bytes], bytes], progress: Progress) -> Tally:
        """Writes all images, in split/class/."""
        total = Tally()
        jobs = list(self._jobs(part))
        for directory in sorted({os.path.dirname(target) for _, target in jobs}):
            tf.io.gfile.makedirs(directory)

        def work(job: tuple[File, str]) -> tuple[bytes, bytes]:
            before = read_bytes(job[0].path)
            if tf.io.gfile.exists(job[1]):  # whole, from an earlier start
                return before, read_bytes(job[1])
            after = shrink(before)
            files.write_whole(job[1], after)
            return before, after

        for (file, _), result in in_order(work, jobs):
            if isinstance(result, ValueError):
                total.left_out[os.path.relpath(file.path, self._root)] = str(result)
            else:
                total.count(*result)
            progress(1)
        return total

    def _jobs(self, part: str) -> Iterator[tuple[File, str]]:
        """Yields each file with its new place; a name says what the bytes are unless it cannot."""
        taken = set()
        for split, listed in self._listing.splits.items():
            for file in listed:
                # the path below the class, flattened; other kinds of images become JPEGs unless they are small
                below = os.path.relpath(file.path, self._root).split(os.sep)
                name = self._listing.class_names[file.label]
                rest = "_".join(below[below.index(name) + 1 :]) if name in below[:-1] else below[-1]
                target = os.path.join(part, split, name, rest)
                stem, number = target, 2
                while target in taken:
                    target, number = f"{os.path.splitext(stem)[0]}_{number}{os.path.splitext(stem)[1]}", number + 1
                taken.add(target)
                yield file, target
