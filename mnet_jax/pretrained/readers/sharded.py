"""Weights in several files with an index: model.safetensors.index.json, pytorch_model.bin.index.json."""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from mnet_jax.pretrained.readers import safetensors, torch

SUFFIX = ".index.json"
_SHOWN = 3  # names in an error
Select = Callable[[Iterable[str]], set[str]]


def find_index(directory: pathlib.Path) -> pathlib.Path | None:
    """Returns the index in a directory, of safetensors before that of PyTorch; None where there is none."""
    found = sorted(directory.glob(f"*{SUFFIX}"), key=lambda path: ("safetensors" not in path.name, path.name))
    return found[0] if found else None


def read_index(path: pathlib.Path) -> dict[str, str]:
    """Returns the name of the file beside the index that has each array, by the array's name.

    Raises:
      ValueError: if it is no such index, or names a file that is not beside it.
    """
    try:
        shards = json.loads(path.read_bytes())["weight_map"]
        if not isinstance(shards, Mapping) or not shards or not all(isinstance(file, str) for file in shards.values()):
            raise ValueError("its weight_map does not give a file for each array")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no index of weights in several files: {error or type(error).__name__}") from None
    for file in set(shards.values()):
        if pathlib.PureWindowsPath(file).name != file or file in ("", ".", "..") or not file.isprintable():
            raise ValueError(f"{path} is refused: it names {file!r}, where files beside it are allowed")
    return dict(shards)


def read(path: pathlib.Path, select: Select) -> dict[str, np.ndarray]:
    """Returns arrays of several files by name: those that `select` takes of all names; other files are not opened.

    Args:
      path: the index.
      select: which arrays, of the names that the index has.

    Raises:
      ValueError: if the index or a file is broken, a file is missing, or has not what the index says.
    """
    shards = read_index(path)
    chosen: dict[str, set[str]] = {}
    for name in select(shards):
        chosen.setdefault(shards[name], set()).add(name)
    missing = sorted(file for file in chosen if not path.with_name(file).is_file())
    if missing:
        count = sum(len(chosen[file]) for file in missing)
        raise ValueError(
            f"{path} lacks {_some(missing)} beside it, with {count} of the arrays: download what is missing"
        )
    arrays: dict[str, np.ndarray] = {}
    for file, names in sorted(chosen.items()):
        shard = path.with_name(file)
        if file.endswith(".safetensors"):
            found = safetensors.read(shard, names.intersection)
        else:
            found = torch.read(shard, names=names).arrays
        if lacking := sorted(names - found.keys()):
            raise ValueError(f"{path} says that {shard.name} has {_some(lacking)}, which is not in it")
        arrays |= found
    return arrays


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
