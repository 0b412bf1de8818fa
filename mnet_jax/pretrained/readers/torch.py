"""PyTorch's files (.pth, .pt) without PyTorch: a pickle that may name tensors and nothing else, in NumPy.

Both formats: the ZIP archive since PyTorch 1.6, and the plain stream of pickles before it. A pickle is a program; this
one is run by an unpickler that knows dictionaries, storages and "make a tensor from a storage". What trainers save
beside the weights (settings, epochs, states of optimizers) becomes `Inert`, which does nothing, without importing what
it names; and a file that asks for anything else is refused before it gets it.
"""

import collections
import dataclasses
import io
import math
import pathlib
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Container
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
# Where training scripts put the weights in what they save, and where those averaged over the steps: timm's
# checkpoint_saver.py, torchvision's references/classification/train.py, Lightning, PyTorch's tutorials.
_RAW = ("state_dict", "model_state_dict", "model", "net", "weights")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "model_ema_state_dict")
# Packages whose objects trainers save beside the weights; nothing of them is imported.
_BESIDE = (
    *("_codecs", "argparse", "collections", "datetime", "enum", "pathlib", "typing"),
    *("numpy", "torch", "torchvision", "timm", "lightning", "lightning_fabric", "pytorch_lightning", "omegaconf"),
)
_BUILTINS = ("set", "frozenset", "slice", "range", "complex", "bytearray", "int", "float", "dict", "list")


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
        if math.prod(self.shape) > len(values):  # strides of 0 make any number of values of a few bytes
            raise ValueError("a tensor has more values than its storage")
        strides = [stride * values.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: object) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(tensor: _Tensor, *_: object) -> _Tensor:
    return tensor


class Inert:
    """What a pickle makes of everything beside the weights: takes whatever it is given and keeps nothing."""

    def __new__(cls, *_: object, **__: object) -> "Inert":
        """Returns one, whatever the arguments."""
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Does nothing."""

    def __setitem__(self, _: object, __: object) -> None:
        """Does nothing."""

    def append(self, _: object) -> None:
        """Does nothing."""

    def extend(self, _: object) -> None:
        """Does nothing."""


_KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): lambda *_: {},
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Runs a pickle whose only callables are those of `_KNOWN`, and `Inert`."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self._file = file
        self.storages: dict[str, _Storage] = {}

    def load(self) -> Any:
        """Returns what a pickle makes, once it is known to ask for no more memory than it has bytes."""
        start = self._file.tell()
        for operation, value, place in pickletools.genops(self._file):  # reads; a size beyond the end is an error here
            if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= value <= place:
                raise ValueError("its pickle numbers its parts beyond what there are")  # a table so long would be made
        self._file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        """The only way by which a pickle gets at anything."""
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module.partition(".")[0] in _BESIDE or (module in ("builtins", "__builtin__") and name in _BUILTINS):
            return Inert
        raise Refused(f"its pickle asks for {module}.{name}; only tensors are read")

    def persistent_load(self, key: Any) -> _Storage:
        """What a pickle calls a storage: ("storage", type, key, device, size, and in the old format a view)."""
        kind, storage_type, name, _, size, *view = key
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(part is not None for part in view):
            raise Refused(f"its pickle asks for {kind!r}; only tensors are read")
        storage = _Storage(str(name), storage_type.dtype, int(size))
        return self.storages.setdefault(storage.key, storage)


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """The weights of a file."""

    arrays: dict[str, np.ndarray]  # by their names in the state dict
    beside: str | None  # averaged weights where there are raw ones too: the entry that was taken, and the other one


def read(path: pathlib.Path, *, ema: bool = True, names: Container[str] | None = None) -> TorchFile:
    """Reads the tensors of a state dict, also of one that lies in what a trainer saved.

    Args:
      path: the file.
      ema: whether to take averaged weights where there are raw ones too.
      names: which tensors to read; None: all.

    Raises:
      ValueError: if the file is broken, no state dict, or its pickle asks for anything but tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_archive(archive, ema, names)
        with open(path, "rb") as file:
            return _read_stream(file, ema, names)
    except Refused as error:
        raise ValueError(f"{path} is refused: {error}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, OSError, OverflowError) as error:
        _broken(path, error)
    except (pickle.UnpicklingError, struct.error, zipfile.BadZipFile, MemoryError, RecursionError) as error:
        _broken(path, error)


def _broken(path: pathlib.Path, error: Exception) -> NoReturn:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise ValueError(f"{path} is not a whole PyTorch file of weights: {reason}") from error


def _read_archive(archive: zipfile.ZipFile, ema: bool, names: Container[str] | None) -> TorchFile:
    entries = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in entries:
        raise ValueError("the archive has no data.pkl")
    if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
        raise ValueError("its numbers are big-endian")
    program = archive.getinfo(entries["data.pkl"])
    if program.compress_type != zipfile.ZIP_STORED:
        raise ValueError("its pickle is compressed")
    tensors, beside = _state_dict(_Unpickler(io.BytesIO(archive.read(program))).load(), ema, names)

    def data(key: str) -> bytes:
        entry = archive.getinfo(entries[f"data/{key}"])
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError("its storages are compressed")
        return archive.read(entry)

    return TorchFile({name: tensor.array(data(tensor.storage.key)) for name, tensor in tensors.items()}, beside)


def _read_stream(file: BinaryIO, ema: bool, names: Container[str] | None) -> TorchFile:
    if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
        raise ValueError("it does not begin like one")
    if not _Unpickler(file).load().get("little_endian"):
        raise ValueError("its numbers are big-endian")
    unpickler = _Unpickler(file)
    tensors, beside = _state_dict(unpickler.load(), ema, names)
    needed, data = {tensor.storage.key for tensor in tensors.values()}, {}
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        storage = unpickler.storages.get(str(key))
        if storage is None or count != storage.size:
            raise ValueError("a storage does not have the size that its tensors say")
        if storage.key in needed:
            data[storage.key] = file.read(count * storage.dtype.itemsize)
        else:
            file.seek(count * storage.dtype.itemsize, io.SEEK_CUR)
    return TorchFile({name: tensor.array(data[tensor.storage.key]) for name, tensor in tensors.items()}, beside)


def _state_dict(saved: Any, ema: bool, names: Container[str] | None) -> tuple[dict[str, _Tensor], str | None]:
    """Returns the tensors of what was saved, and which entry they are of if there were two to choose from."""
    if not isinstance(saved, dict):
        raise ValueError("it holds no dictionary of tensors: save model.state_dict()")
    raw, averaged = (next((name for name in names if _tensors(saved.get(name))), None) for names in (_RAW, _AVERAGED))
    chosen, other = (averaged, raw) if (ema and averaged) or not raw else (raw, averaged)
    tensors = _tensors(saved if chosen is None else saved[chosen])
    if not tensors:
        raise ValueError("it holds no dictionary of tensors: save model.state_dict()")
    if names is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if name in names}
    return tensors, f"{chosen!r}, not {other!r}" if other else None


def _tensors(saved: Any) -> dict[str, _Tensor]:
    """Returns the tensors of a state dict by name; {} of what is none. Numbers and settings in it are no weights."""
    if not isinstance(saved, dict):
        return {}
    return {str(name): value for name, value in saved.items() if isinstance(value, _Tensor)}
