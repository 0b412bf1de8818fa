"""PyTorch's files (.pth, .pt) without PyTorch: a pickle that may name tensors and nothing else, in NumPy.

Both formats: the ZIP archive since PyTorch 1.6, and the plain stream of pickles before it. A pickle is a program; this
one is run by an unpickler that knows ordered dictionaries, storages and "make a tensor from a storage", and refuses a
file that asks for anything else before it gets it.
"""

import collections
import dataclasses
import io
import math
import pathlib
import pickle
import struct
import zipfile
from typing import Any, BinaryIO, NoReturn

import ml_dtypes
import numpy as np

# PyTorch's classes of storages -> their values, little-endian.
_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the old format
_PROTOCOL = 1001  # its second
_WRAPPERS = ("state_dict", "model")  # where training scripts put the weights in what they save


class Refused(ValueError):
    """The file's pickle asks for something that is no tensor."""


@dataclasses.dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    size: int  # values


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage; read when everything is known to be there."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in values

    def array(self, data: bytes) -> np.ndarray:
        values = np.frombuffer(data, self.storage.dtype, count=self.storage.size)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if min((self.offset, *self.shape, *self.strides)) < 0 or (math.prod(self.shape) and last >= len(values)):
            raise ValueError("a tensor reaches beyond its storage")
        strides = [stride * values.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: object) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(tensor: _Tensor, *_: object) -> _Tensor:
    return tensor


_KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Runs a pickle whose only callables are those of `_KNOWN`."""

    def find_class(self, module: str, name: str) -> Any:
        """The only way by which a pickle gets at anything."""
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise Refused(f"its pickle asks for {module}.{name}; only tensors are read") from None

    def persistent_load(self, key: Any) -> _Storage:
        """What a pickle calls a storage: ("storage", type, key, device, size, and in the old format a view)."""
        kind, storage_type, name, _, size, *view = key
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(part is not None for part in view):
            raise Refused(f"its pickle asks for {kind!r}; only tensors are read")
        return _Storage(str(name), storage_type.dtype, int(size))


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a state dict, by name; also of one that lies in a checkpoint as "state_dict" or "model".

    Raises:
      ValueError: if the file is broken, no state dict, or its pickle asks for anything but tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_archive(archive)
        with open(path, "rb") as file:
            return _read_stream(file)
    except Refused as error:
        raise ValueError(f"{path} is refused: {error}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, OSError, OverflowError) as error:
        _broken(path, error)
    except (pickle.UnpicklingError, struct.error, zipfile.BadZipFile, MemoryError, RecursionError) as error:
        _broken(path, error)


def _broken(path: pathlib.Path, error: Exception) -> NoReturn:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise ValueError(f"{path} is not a whole PyTorch file of weights: {reason}") from error


def _read_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    entries = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in entries:
        raise ValueError("the archive has no data.pkl")
    if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
        raise ValueError("its numbers are big-endian")
    tensors = _state_dict(_Unpickler(io.BytesIO(archive.read(entries["data.pkl"]))).load())

    def data(key: str) -> bytes:
        entry = archive.getinfo(entries[f"data/{key}"])
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError("its storages are compressed")
        return archive.read(entry)

    return {name: tensor.array(data(tensor.storage.key)) for name, tensor in tensors.items()}


def _read_stream(file: BinaryIO) -> dict[str, np.ndarray]:
    if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
        raise ValueError("it does not begin like one")
    if not _Unpickler(file).load().get("little_endian"):
        raise ValueError("its numbers are big-endian")
    tensors = _state_dict(_Unpickler(file).load())
    sizes = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    data = {}
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        storage = sizes.get(str(key))
        if storage is None or count != storage.size:
            raise ValueError("a storage does not have the size that its tensors say")
        data[str(key)] = file.read(count * storage.dtype.itemsize)
    return {name: tensor.array(data[tensor.storage.key]) for name, tensor in tensors.items()}


def _state_dict(saved: Any) -> dict[str, _Tensor]:
    if isinstance(saved, dict):
        for wrapper in _WRAPPERS:
            if isinstance(saved.get(wrapper), dict):
                saved = saved[wrapper]
                break
    if not isinstance(saved, dict) or not saved or not all(isinstance(value, _Tensor) for value in saved.values()):
        raise ValueError("it holds no dictionary of tensors: save model.state_dict()")
    return {str(name).removeprefix("module."): tensor for name, tensor in saved.items()}
