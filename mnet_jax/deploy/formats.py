"""The formats: which there are, what each can do, and which one a file has."""

import contextlib
import importlib
import os
import pathlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from mnet_jax.deploy import sums
from mnet_jax.deploy.graph import Graph
from mnet_jax.deploy.metadata import About
from mnet_jax.deploy.savedmodel import EXTRA, MODEL_FILE
from mnet_jax.errors import check_choice
from mnet_jax.files import check_writable

# Each is a module of this package with `write(graph, about, path)` and a class `Runner`; and how it can be quantised.
FORMATS = {
    "stablehlo": ("none",),
    "tflite": ("none", "float16", "dynamic", "int8"),
    "onnx": ("none",),
    "savedmodel": ("none",),
}
_MOST_TEXT = 200  # letters of what a runtime says
_THREADED = ("tflite", "onnx")  # whose runtimes can be told how many threads to use


class Exported(Protocol):
    """An exported model in its own runtime: images [N, H, W, 3] as `about.input` says -> its results, [N, ...].

    One result comes as it is (of a classifier: scores [N, classes]), several come by name.
    """

    about: About

    def __call__(self, images: np.ndarray) -> np.ndarray | dict[str, np.ndarray]: ...


def check(format: str, quantize: str) -> None:
    """Raises ValueError unless there is such a format and it can be quantised so."""
    check_choice("format", format, tuple(FORMATS))
    check_choice(f"quantize of {format}", quantize, FORMATS[format])


def check_path(path: str | os.PathLike, format: str) -> None:
    """Raises ValueError unless a file of this format could be written to `path`; it costs nothing."""
    check_writable(path, inside=MODEL_FILE if format == "savedmodel" else "")


def write(graph: Graph, about: About, path: str | os.PathLike, format: str) -> None:
    """Writes a graph to a file (for "savedmodel", a directory), whole or not at all.

    Raises:
      ValueError: if there is no such format, a package is missing, or nothing can be written to `path`.
    """
    check(format, about.quantize)
    with needs_extra():
        _module(format).write(graph, about, path)


def load(path: str | os.PathLike, *, threads: int | None = None) -> Exported:
    """Opens a file that `write` made, in its own runtime; what it returns is called with images.

    Args:
      path: of any of the formats.
      threads: for TFLite and ONNX, whose runtimes can be told; None: their own choice (TFLite: one, ONNX: all cores).

    Raises:
      ValueError: if it is no such file, damaged, or its runtime is missing.
    """
    format = recognize(path)
    options = {"threads": threads} if format in _THREADED else {}
    with needs_extra():
        runner = _module(format).Runner
        sums.check(pathlib.Path(path), EXTRA)
        try:
            return runner(path, **options)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # each runtime has errors of its own
            if isinstance(error, ValueError) and str(path) in str(error):
                raise  # one of ours
            said = " ".join(str(error).split())[:_MOST_TEXT] or type(error).__name__
            raise ValueError(f"{path} is no whole {format} file: {said}; export it again") from error


def takes_threads(format: str) -> bool:
    """Returns whether the format's runtime can be told how many threads to use."""
    return format in _THREADED


def file_size(path: str | os.PathLike) -> int:
    """Returns the bytes of a file, or of all files in a directory."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def recognize(path: str | os.PathLike) -> str:
    """Returns the format of a file, told by its content."""
    path = pathlib.Path(path)
    if (path / MODEL_FILE).is_file():
        return "savedmodel"
    if path.is_dir() or not path.exists():
        raise ValueError(f"{path} is {'no SavedModel' if path.exists() else 'not there'}: give a file of `mnet export`")
    with path.open("rb") as file:
        start = file.read(8)
    if start[4:] == b"TFL3":
        return "tflite"
    if start[:4] == b"PK\x03\x04":
        return "stablehlo"
    if start[:1] == b"\x08":  # protobuf: field 1, a number, is the version of ONNX's format
        return "onnx"
    raise ValueError(f"{path} is none of {', '.join(FORMATS)}: give a file of `mnet export`")


def _module(format: str) -> object:
    return importlib.import_module(f"mnet_jax.deploy.{format}")


@contextlib.contextmanager
def needs_extra() -> Iterator[None]:
    """Makes one line that says how to install it of a missing package."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("mnet_jax"):
            raise
        raise ValueError(f"this needs the package {error.name}: type pip install 'mnet_jax[export]'") from error
