"""Any folder of images as a data set: one sub-folder a class.

Either photos/train/<class>/... with photos/val, photos/validation or photos/test beside it, or photos/<class>/...,
which is split here. Sub-folders of a class count too. Files are told apart by their bytes, whatever their names.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import logging
import os

HELD_OUT = ("validation", "val", "valid", "test")  # names of a split for evaluation, the first that is there
EVAL_SHARE = 0.2  # of a folder that is split here
_START = 1 << 16  # bytes of a file that are read to judge it and to draw its split


@dataclasses.dataclass(frozen=True)
class File:
    """One image: its path and the number of its class."""

    path: str
    label: int


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of a folder by split, each split in the order of its paths."""

    class_names: tuple[str, ...]
    splits: dict[str, tuple[File, ...]]


@functools.lru_cache(maxsize=8)  # a run looks more than once, and must see the same files each time
def scan(root: str) -> Listing:
    """Lists a folder of images (local or gs://). What is not a readable image is left out, with one line of warning.

    Raises:
      ValueError: if there are no images, or fewer than two classes, or a split has classes that "train" has not.
    """
    from mnet_jax.data.host import tf

    if not tf.io.gfile.isdir(root):
        raise ValueError(f"no such folder: {root} (data.folder)")
    top = _folders(root)
    if "train" in top and _folders(_join(root, "train")):
        parts = {split: _join(root, split) for split in ("train", *HELD_OUT) if split in top}
    else:
        parts = {"": root}
    found = {split: _classes(path) for split, path in parts.items()}
    paths = [path for classes in found.values() for files in classes.values() for path in files]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        verdicts = dict(zip(paths, pool.map(_judge, paths), strict=True))
    _warn_about_broken(root, {path: verdict.fault for path, verdict in verdicts.items() if verdict.fault})
    for classes in found.values():
        for name in list(classes):
            classes[name] = [path for path in classes[name] if not verdicts[path].fault]
            if not classes[name]:
                del classes[name]

    training = found.get("train", found.get("", {}))
    names = tuple(sorted(training))
    if len(names) < 2:
        raise ValueError(
            f"{root} has {'no images' if not names else f'one class only ({names[0]!r})'}: "
            f"put each class into a folder of its own, such as {_join(root, 'cats')} and {_join(root, 'dogs')}"
        )
    for split, classes in found.items():
        if unknown := sorted(set(classes) - set(names)):
            raise ValueError(
                f"{_join(root, split)} has classes that {_join(root, 'train')} has not: {', '.join(unknown)}"
            )
    if set(found) <= {"", "train"}:
        found = _split(training, {path: verdict.draw for path, verdict in verdicts.items()})
        if not found["validation"]:
            raise ValueError(f"{root} has too few images to hold some out for evaluation ({len(paths)})")
    numbers = {name: number for number, name in enumerate(names)}
    return Listing(
        names,
        {
            split: tuple(
                sorted((File(p, numbers[c]) for c, files in classes.items() for p in files), key=lambda f: f.path)
            )
            for split, classes in found.items()
        },
    )


def _split(classes: dict[str, list[str]], draws: dict[str, float]) -> dict[str, dict[str, list[str]]]:
    """Holds out the images whose draw is below `EVAL_SHARE`, but never all of a class.

    The draw is a hash of the content: an image stays in its split when others come or when it is renamed, and its
    copies go with it.
    """
    train: dict[str, list[str]] = {}
    validation: dict[str, list[str]] = {}
    for name, paths in classes.items():
        last = max(draws[path] for path in paths)
        held_out = [path for path in paths if draws[path] < EVAL_SHARE and draws[path] != last]
        train[name] = [path for path in paths if path not in set(held_out)]
        if held_out:
            validation[name] = held_out
    return {"train": train, "validation": validation}


@dataclasses.dataclass(frozen=True)
class _Verdict:
    fault: str | None  # why the file cannot be used
    draw: float  # a hash of its content, in [0, 1)


def _judge(path: str) -> _Verdict:
    """Reads the start of a file, and all of it only where that leaves a doubt."""
    from mnet_jax.data import check
    from mnet_jax.data.host import tf

    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            size = file.size()
            start = file.read(_START)
            file.seek(max(size - 2, 0))
            end = file.read(2)
            digest = hashlib.blake2b(start + size.to_bytes(8, "big"), digest_size=8).digest()
            draw = int.from_bytes(digest, "big") / 2**64
            if check.is_whole_jpeg(start, end):
                return _Verdict(None, draw)
            file.seek(0)
            return _Verdict(check.fault(file.read()), draw)
    except tf.errors.OpError as error:
        return _Verdict(f"cannot be read: {type(error).__name__}", 0.0)


def _classes(path: str) -> dict[str, list[str]]:
    """Class name -> paths of its files."""
    from mnet_jax.data.host import tf

    return {
        name: sorted(
            _join(directory, file)
            for directory, _, files in tf.io.gfile.walk(_join(path, name))
            for file in files
            if not file.startswith(".") and "/." not in directory[len(path) :]
        )
        for name in _folders(path)
    }


def _folders(path: str) -> list[str]:
    from mnet_jax.data.host import tf

    names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(path))  # a bucket's folders end with a slash
    return [name for name in names if not name.startswith(".") and tf.io.gfile.isdir(_join(path, name))]


def _join(*parts: str) -> str:
    return os.path.join(*parts)  # not pathlib, which makes one slash of the two in gs://


def _warn_about_broken(root: str, faults: dict[str, str], shown: int = 5) -> None:
    if faults:
        some = [f"{os.path.relpath(path, root)} ({fault})" for path, fault in sorted(faults.items())[:shown]]
        more = [f"and {len(faults) - shown} more"] if len(faults) > shown else []
        logging.getLogger(__name__).warning("%s: left out %d files: %s", root, len(faults), ", ".join(some + more))
