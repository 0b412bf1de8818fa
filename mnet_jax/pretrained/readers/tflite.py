"""TFLite files (.tflite) without an interpreter: operators, tensors and constants, dequantised to float32.

Slots and numbers are those of tensorflow/compiler/mlir/lite/schema/schema.fbs and of tflite-support's
metadata_schema.fbs.
"""

import dataclasses
import io
import pathlib
import struct
import zipfile

import numpy as np

from mnet_jax.pretrained.readers.flatbuffer import Broken, Table

_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 6: "?", 7: "<i2", 9: "i1", 10: "<f8"}
_CODES = {  # builtin operators that a network of this family may hold; others are "builtin <number>"
    0: "ADD",
    1: "AVERAGE_POOL_2D",
    2: "CONCATENATION",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE",
    9: "FULLY_CONNECTED",
    14: "LOGISTIC",
    18: "MUL",
    19: "RELU",
    21: "RELU6",
    22: "RESHAPE",
    23: "RESIZE_BILINEAR",
    25: "SOFTMAX",
    34: "PAD",
    40: "MEAN",
    41: "SUB",
    43: "SQUEEZE",
    53: "CAST",
    114: "QUANTIZE",
}
_CUSTOM = 32
_ACTIVATIONS = {0: None, 1: "relu", 3: "relu6"}
_OPTIONS = {"CONV_2D": (1, 3), "DEPTHWISE_CONV_2D": (2, 4), "FULLY_CONNECTED": (8, 0)}  # union type; activation's slot
_DILATION = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 5}  # slot of the one along columns; that along rows follows
_ALIGN_CORNERS = 2  # slot; the first two are no longer used
_METADATA = "TFLITE_METADATA"
_MAX_LABELS = 1 << 20  # bytes of a label file, against archives that unpack to more than they should
_NORMALIZATION = 1  # union ProcessUnitOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor; a constant has its values."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    scale: np.ndarray  # real = scale (stored - zero); one number, or one for each index of `axis`; empty: not quantised
    zero: np.ndarray
    axis: int
    stored: np.ndarray | None

    @property
    def values(self) -> np.ndarray:
        """The constant's real values, float32."""
        stored = self.stored.astype(np.float64)
        if not self.scale.size:
            return stored.astype(np.float32)
        shape = [1] * stored.ndim
        if self.scale.size > 1:
            shape[self.axis] = -1
        zero = self.zero if self.zero.size else np.zeros_like(self.scale)
        real = self.scale.astype(np.float64).reshape(shape) * (stored - zero.reshape(shape))
        return real.astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator: what it is and which tensors it takes and gives; -1 for an input that is left out."""

    kind: str  # "CONV_2D", ..., or the name of a custom one
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    activation: str | None = None  # fused, of convolutions
    same: bool = False  # whether a convolution pads as TensorFlow's SAME
    stride: int = 1
    dilation: int = 1
    align_corners: bool = False  # of a RESIZE_BILINEAR; its other rules are not read


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """The first graph of a file, in the order in which it runs."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None  # mean and deviation, where its metadata say so
    labels: tuple[str, ...] | None  # the lines of its label file


def read(path: pathlib.Path) -> Model:
    """Reads a file.

    Raises:
      ValueError: if it is broken, no TFLite file, or stores constants in a way that is not read.
    """
    data = path.read_bytes()
    try:
        return _read(data)
    except (Broken, struct.error, IndexError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is not a whole TFLite file: {error}") from error


def _read(data: bytes) -> Model:
    root = Table.root(data, b"TFL3")
    buffers = [_content(table, data) for table in root.tables(4)]
    codes = [_code(table) for table in root.tables(1)]
    graphs = root.tables(2)
    if not graphs:
        raise Broken("it holds no graph")
    graph = graphs[0]
    tensors = tuple(_tensor(table, buffers) for table in graph.tables(0))
    operators = tuple(_operator(table, codes) for table in graph.tables(3))
    inputs, outputs = (tuple(map(int, graph.numbers(slot, "<i4"))) for slot in (1, 2))
    used = [place for operator in operators for place in (*operator.inputs, *operator.outputs)]
    if any(not -1 <= place < len(tensors) for place in (*used, *inputs, *outputs)):
        raise Broken("an operator takes a tensor that is not there")
    return Model(
        tensors=tensors,
        operators=operators,
        inputs=inputs,
        outputs=outputs,
        normalization=_normalization(root, buffers),
        labels=_labels(data),
    )


def _content(table: Table, data: bytes) -> bytes:
    """Returns a buffer's bytes, which large models have behind the FlatBuffer."""
    start, size = table.number(1, "Q"), table.number(2, "Q")
    if start > 1:  # 0 and 1 mean that there is nothing outside
        if start + size > len(data):
            raise Broken("a constant reaches beyond its end")
        return data[start : start + size]
    return table.numbers(0, "u1").tobytes()


def _code(table: Table) -> str:
    number = max(table.number(0, "b"), table.number(3, "i"))  # the first holds numbers up to 127 only
    return table.text(1) if number == _CUSTOM else _CODES.get(number, f"builtin {number}")


def _tensor(table: Table, buffers: list[bytes]) -> Tensor:
    shape = tuple(map(int, table.numbers(0, "<i4")))
    kind, name = table.number(1, "b"), table.text(3)
    quantization = table.table(4)
    scale, zero, axis = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
    if quantization is not None:
        scale, zero = quantization.numbers(2, "<f4"), quantization.numbers(3, "<i8")
        axis = quantization.number(6, "i")
    content = buffers[table.number(2, "I")]
    stored = None
    if content:
        if kind not in _DTYPES or table.table(6) is not None:
            raise Broken(f"the constant {name} is sparse or of a type that is not read (number {kind})")
        stored = np.frombuffer(content, _DTYPES[kind]).reshape(shape)
    dtype = np.dtype(_DTYPES.get(kind, "V1"))
    return Tensor(name=name, shape=shape, dtype=dtype, scale=scale, zero=zero, axis=axis, stored=stored)


def _operator(table: Table, codes: list[str]) -> Operator:
    kind = codes[table.number(0, "I")]
    inputs, outputs = (tuple(map(int, table.numbers(slot, "<i4"))) for slot in (1, 2))
    options = table.table(4)
    if kind == "RESIZE_BILINEAR" and options is not None:
        aligned = bool(options.number(_ALIGN_CORNERS, "b"))
        return Operator(kind=kind, inputs=inputs, outputs=outputs, align_corners=aligned)
    if kind not in _OPTIONS or options is None:
        return Operator(kind=kind, inputs=inputs, outputs=outputs)
    union, slot = _OPTIONS[kind]
    if table.number(3, "B") != union:
        raise Broken(f"{kind} has the options of another operator")
    number = options.number(slot, "b")
    if number not in _ACTIVATIONS:
        raise Broken(f"{kind} has an activation that is not read (number {number})")
    if kind == "FULLY_CONNECTED":
        return Operator(kind=kind, inputs=inputs, outputs=outputs, activation=_ACTIVATIONS[number])
    return Operator(
        kind=kind,
        inputs=inputs,
        outputs=outputs,
        activation=_ACTIVATIONS[number],
        same=options.number(0, "b") == 0,
        stride=options.number(2, "i", 1),
        dilation=options.number(_DILATION[kind], "i", 1),
    )


def _normalization(root: Table, buffers: list[bytes]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """How the file's metadata say that pixels are normalised before they are given to it."""
    for entry in root.tables(6):
        if entry.text(0) != _METADATA:
            continue
        about = Table.root(buffers[entry.number(1, "I")], b"M001")
        for graph in about.tables(3):
            for tensor in graph.tables(2):
                for unit in tensor.tables(4):
                    options = unit.table(1)
                    if unit.number(0, "B") == _NORMALIZATION and options is not None:
                        mean, std = (tuple(map(float, options.numbers(slot, "<f4"))) for slot in (0, 1))
                        return mean, std
    return None


def _labels(data: bytes) -> tuple[str, ...] | None:
    """The lines of the only text file in the archive at the file's end."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if name.endswith(".txt")]
            if len(names) != 1 or archive.getinfo(names[0]).file_size > _MAX_LABELS:
                return None
            return tuple(archive.read(names[0]).decode("utf-8", "replace").splitlines())
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError):
        return None
