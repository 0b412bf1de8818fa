"""One checkpoint, as it is read: whatever is not what was written is found before anything of it is used.

Two sums find it. `seal` adds to a finished checkpoint the size and the sum of each of its files, which are compared
before Orbax reads one: damage is then told by the name of a file, and no reader meets it. `about` has the sum of each
array as the run had it in memory, which is compared with what was read. docs/reliability.md says what a run does then.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from mnet_jax import files
from mnet_jax.config import from_json
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.training.state import Tree

_FILES = "files.json"  # in a checkpoint: what `seal` writes
_LATE = "evaluation.json"  # in a checkpoint: the metrics of an evaluation that was made up for after it was written

# What Orbax says about failed saves comes with its tracebacks; it is told here in one line.
logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)


class DamagedError(ValueError):
    """A checkpoint that is not what was written; its text says what is wrong."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint that was read, and found to be what was written."""

    step: int
    about: dict[str, Any]
    arrays: dict[str, np.ndarray]  # by name, such as "params/stem/kernel"

    @property
    def config(self) -> ml_collections.ConfigDict:
        """That of the run when it was written."""
        return from_json(self.about["config"])

    @property
    def info(self) -> DatasetInfo:
        """The data set."""
        fields = self.about["data"].items()
        return DatasetInfo(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields})


def is_finite(array: np.ndarray) -> bool:
    """Returns whether all values of an array of floats are finite, in two passes that allocate nothing."""
    return not array.size or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def array_sum(array: np.ndarray) -> str:
    """Returns a sum of an array's type, shape and values that tells whether any of them was changed by accident.

    The values are added as numbers of 64 bits, modulo 2**64, 2 KiB at a time, and a hash is taken of these sums: what
    happens inside one such number changes it for certain. That runs at the speed of memory; a cyclic or cryptographic
    sum of all bytes takes ten times as long.
    """
    found = hashlib.blake2b(f"{array.dtype}{array.shape}".encode(), digest_size=8)
    _add(found, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return found.hexdigest()


_ROW = 256  # numbers of 64 bits
_READ = 1 << 20  # bytes at a time; a multiple of a row


def _add(found: "hashlib.blake2b", data: np.ndarray) -> None:
    rows = data.size // (8 * _ROW)
    found.update(data[: rows * 8 * _ROW].view(np.uint64).reshape(rows, _ROW).sum(1).tobytes())
    found.update(data[rows * 8 * _ROW :].tobytes())


def _file_sum(path: epath.Path) -> tuple[int, str]:
    """Returns the size and the sum of a file, read in small pieces: memory that is new costs more than the sum."""
    found, size = hashlib.blake2b(digest_size=8), 0
    with path.open("rb") as file:
        while part := file.read(_READ):
            _add(found, np.frombuffer(part, np.uint8))
            size += len(part)
    return size, found.hexdigest()


def signed(about: dict[str, Any]) -> dict[str, Any]:
    """Returns what is written as JSON, as it will be read (lists for tuples), with its sum beside it."""
    about = json.loads(json.dumps(about))
    return {**about, "sum": _text_sum(about)}


def _text_sum(about: dict[str, Any]) -> str:
    text = json.dumps({name: value for name, value in about.items() if name != "sum"}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def write_late_metrics(directory: epath.Path, metrics: dict[str, float]) -> None:
    """Writes the metrics of a checkpoint that was saved before it was evaluated."""
    files.write_whole(directory / _LATE, json.dumps(signed({"metrics": metrics}), indent=2) + "\n")


def seal(directory: epath.Path) -> None:
    """Reads the files of a finished checkpoint back and writes their sizes and sums beside them."""
    files.write_whole(directory / _FILES, json.dumps(signed({"files": _file_sums(directory)}), indent=1) + "\n")


def _file_sums(directory: epath.Path) -> dict[str, list[int | str]]:
    """Returns (size, sum) of each file of a checkpoint's items, by its path from there."""
    found: dict[str, list[int | str]] = {}
    rest = [item for item in (directory / "about", directory / "state") if item.exists()]
    while rest:
        path = rest.pop()
        if path.is_dir():
            rest += path.iterdir()
        else:
            found[path.relative_to(directory).as_posix()] = list(_file_sum(path))
    return found


def _check_files(directory: epath.Path) -> None:
    """Raises DamagedError, with the first file, if a sealed checkpoint has others than it had."""
    try:
        sealed = json.loads((directory / _FILES).read_text())
        if sealed["sum"] != _text_sum(sealed):
            return  # only this list is damaged: the sums of the arrays decide
    except (OSError, ValueError, TypeError, KeyError):
        return  # killed between the two, or of an earlier version
    there = _file_sums(directory)
    for name, (size, found) in sorted(sealed["files"].items()):
        path = directory / name
        if name not in there:
            raise DamagedError(f"{directory} is damaged: {path} is missing")
        if there[name][0] != size:
            raise DamagedError(f"{directory} is damaged: {path} has {there[name][0]:,} bytes of {size:,}")
        if there[name][1] != found:
            raise DamagedError(f"{directory} is damaged: {path} is not what was written")


def read(directory: epath.Path) -> Saved:
    """Returns the checkpoint in a directory, verified; one of an earlier version, without sums, as it is.

    Raises:
      DamagedError: if it is not what was written.
    """
    _check_files(directory)
    about = read_about(directory)
    arrays = flat(_whole(directory / "state", ocp.StandardCheckpointHandler))
    sums = about.get("arrays")
    if sums is not None:
        _check_arrays(directory, arrays, sums)
    return Saved(about["step"], about, arrays)


def _check_arrays(directory: epath.Path, arrays: dict[str, np.ndarray], sums: dict[str, str]) -> None:
    """Raises DamagedError, with the first array, where any is missing, left over or not what was written."""
    lost = sorted(sums.keys() ^ arrays.keys())
    changed = [name for name, array in arrays.items() if array_sum(array) != sums.get(name)]
    if lost:
        raise DamagedError(f"{directory} is damaged: the array {lost[0]} is missing or left over")
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise DamagedError(f"{directory} is damaged: the array {changed[0]}{more} is not what was written")


def read_about(directory: epath.Path) -> dict[str, Any]:
    """Returns what a checkpoint says about itself: config, data, metrics, step.

    Raises:
      DamagedError: if that is not what was written.
    """
    about = _whole(directory / "about", ocp.JsonCheckpointHandler)
    if not isinstance(about, dict) or not {"config", "data", "metrics", "step"} <= about.keys():
        raise DamagedError(f"{directory} is damaged: {directory / 'about'} is not what was written")
    if "sum" in about and about["sum"] != _text_sum(about):
        raise DamagedError(f"{directory} is damaged: {directory / 'about'} is not what was written")
    with contextlib.suppress(OSError, ValueError):  # damaged or none: it was not evaluated
        late = json.loads((directory / _LATE).read_text())
        if late["sum"] == _text_sum(late):
            about["metrics"] = late["metrics"]
    return about


def _whole(directory: epath.Path, handler: Callable[..., Any]) -> Any:
    """Returns one item of a checkpoint.

    Raises:
      DamagedError: in place of what Orbax, tensorstore and json raise about damaged files.
      OSError: where the files could not be read now, such as for want of permission.
    """
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"read_{here}"
    )
    hush_event_loop()
    try:
        with ocp.Checkpointer(handler(multiprocessing_options=alone), multiprocessing_options=alone) as checkpointer:
            return checkpointer.restore(directory)
    except Exception as error:  # a damaged file can lead to any
        lasting = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        if (isinstance(error, OSError) and not lasting) or re.search(_PASSING, str(error)):
            raise OSError(f"{directory} cannot be read: {reason(error)}") from error
        what = "is missing" if not directory.exists() else f"cannot be read ({reason(error)})"
        raise DamagedError(f"{directory.parent} is damaged: {directory.name} {what}") from error


@functools.cache
def hush_event_loop() -> None:
    """Drops what tensorstore's threads print of reads and writes still under way when one of them has failed."""
    usual, usual_unraised = sys.excepthook, sys.unraisablehook

    def is_late(error: BaseException | None) -> bool:
        return type(error) is RuntimeError and str(error) == "Event loop is closed"

    def hook(kind: type, error: BaseException, trace: TracebackType | None) -> None:
        if not is_late(error):
            usual(kind, error, trace)

    def unraised(what: "sys.UnraisableHookArgs") -> None:
        if not is_late(what.exc_value):
            usual_unraised(what)

    sys.excepthook, sys.unraisablehook = hook, unraised


# What tensorstore says where a file is not damaged, only out of reach.
_PASSING = "PERMISSION_DENIED|UNAVAILABLE|DEADLINE_EXCEEDED|UNAUTHENTICATED|CANCELLED"


def reason(error: BaseException) -> str:
    """Returns the first line of an error's text, or what the system said where that is in it."""
    text = str(error)
    for said in ("No space left on device", "Read-only file system", "Disk quota exceeded", "Permission denied"):
        if said in text:
            return said
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= 120 else f"{line[:120]}..."


def fitted(arrays: dict[str, np.ndarray], like: Tree, directory: epath.Path) -> Tree:
    """Returns the arrays in the structure of `like`.

    Raises:
      ValueError: if they are those of another model: names, shapes or types differ.
    """
    ours = flat(like)
    problems = [
        f"{name} is only in {'this model' if name in ours else 'the checkpoint'}"
        for name in sorted(ours.keys() ^ arrays.keys())
    ]
    problems += [
        f"{name} is {arrays[name].dtype}{list(arrays[name].shape)} there, {leaf.dtype}{list(leaf.shape)} here"
        for name, leaf in ours.items()
        if name in arrays and (arrays[name].shape, arrays[name].dtype) != (leaf.shape, leaf.dtype)
    ]
    if problems:
        more = f" and {len(problems) - 1} more differences" if len(problems) > 1 else ""
        raise ValueError(
            f"{directory} is not a checkpoint of this run's model: {problems[0]}{more}. Move it away, and the run goes "
            "on from the one before, or give another --workdir"
        )
    return jax.tree_util.tree_map_with_path(lambda path, leaf: arrays[_name(path)], like)


def flat(tree: Tree) -> dict[str, Any]:
    """Returns the leaves of a tree by name, such as "params/stem/kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves}


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def nested(arrays: dict[str, np.ndarray], scope: str) -> Tree:
    """Returns the arrays below a scope, such as "ema/params", as a nested dict."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        if name.startswith(f"{scope}/"):
            *parents, last = name.removeprefix(f"{scope}/").split("/")
            functools.reduce(lambda node, key: node.setdefault(key, {}), parents, tree)[last] = array
    return tree
