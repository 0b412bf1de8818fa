"""The TFLite Metadata buffer: what Android Studio, the Task Library and MediaPipe read from a .tflite file.

Its schema is metadata_schema.fbs (file identifier M001) of github.com/tensorflow/tflite-support; slots below are the
positions of its fields. The files that it names lie in a zip archive at the end of the model, stored, not compressed.
"""

import io
import zipfile
from collections.abc import Sequence

import flatbuffers
import numpy as np

from mnet_jax import tasks
from mnet_jax.deploy import sums
from mnet_jax.deploy.metadata import CALIBRATION_FILE, JSON_FILE, LABELS_FILE, ZIP_DATE, About
from mnet_jax.tasks.output import Output

BUFFER_NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"  # the first one knew all fields that are used here
_FEATURE, _IMAGE, _BOXES = 1, 2, 3  # union ContentProperties
_BOUNDARIES = 1  # enum BoundingBoxType; the coordinates' type is by default that of shares, RATIO
_LEFT_TOP_RIGHT_BOTTOM = (1, 0, 3, 2)  # where these are in (y1, x1, y2, x2)
_NORMALIZATION, _CALIBRATION, _THRESHOLDING = 1, 2, 3  # union ProcessUnitOptions
_INVERSE_LOGISTIC = 2  # enum ScoreTransformationType
_CALIBRATIONS = 4  # enum AssociatedFileType, of an axis
_RGB = 1  # enum ColorSpaceType
_DESCRIPTIONS = 1  # enum AssociatedFileType
_SEGMENTER = "SEGMENTER_METADATA"  # what MediaPipe's ImageSegmenter looks for among the custom metadata
_SOFTMAX = 2  # its enum Activation
_LABELS = {"axis": 2, "values": 3}  # the same

Value = int | float | bytes | np.ndarray | str | list | dict
# A table as data: {slot: value}. str -> string, int -> uint8, float -> float, np.ndarray -> vector of numbers,
# np.uint32 -> uint, list of tables or of str -> vector, dict -> table, bytes -> vector of bytes, aligned as a
# flatbuffer of its own.


def build(about: About, names: Sequence[str]) -> bytes:
    """Returns the buffer for a model of one image, whose results are `names` in this order; the task describes them."""
    height, width = about.image_size
    uint8 = about.input == "uint8"
    mean, std = ((0.0,) * 3, (1.0,) * 3) if uint8 else (about.mean, about.std)
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    image = {
        0: "image",
        1: f"RGB image of {height} x {width} pixels",
        3: {0: _IMAGE, 1: {0: _RGB, 1: {0: np.uint32(width), 1: np.uint32(height)}}},
        4: [{0: _NORMALIZATION, 1: {0: mean, 1: std}}],
        5: {0: (255 - mean) / std, 1: (0 - mean) / std},
    }
    described = tasks.face(about.task, "export").describe(about.output, about.class_names)
    outputs = [described[name] for name in names]
    network: dict[int, Value] = {2: [image], 3: [_result(output, about) for output in outputs]}
    groups = dict.fromkeys(output.group for output in outputs if output.group is not None)
    if groups:
        network[8] = [{0: name, 1: [output.title for output in outputs if output.group == name]} for name in groups]
    if any(output.softmax for output in outputs):
        network[9] = [{0: _SEGMENTER, 1: _finished({0: _SOFTMAX}, b"V001")}]
    model = {
        0: f"MobileNet {about.model}",
        1: about.description,
        2: about.version,
        3: [network],
        4: f"mnet_jax, {about.source}",
        6: [{0: JSON_FILE, 1: "The same and more as JSON", 2: _DESCRIPTIONS}],
        7: _PARSER_VERSION,
    }
    return _finished(model, IDENTIFIER)


def _finished(table: dict[int, Value], identifier: bytes) -> bytes:
    """Returns a whole flatbuffer of a table."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, table), identifier)
    return bytes(builder.Output())


def _result(output: Output, about: About) -> dict[int, Value]:
    """Returns the table TensorMetadata of one result."""
    table = {0: output.title, 1: output.text, 3: {0: _FEATURE, 1: {}}}
    if output.boxes:  # dimension 2 holds the numbers of a box
        form = {0: np.array(_LEFT_TOP_RIGHT_BOTTOM, np.uint32), 1: _BOUNDARIES}
        table[3] = {0: _BOXES, 1: form, 2: {0: np.uint32(2), 1: np.uint32(2)}}
    if output.labels is not None:
        table[6] = [{0: LABELS_FILE, 1: "Names of the classes, a line each", 2: _LABELS[output.labels]}]
    if output.thresholds and about.thresholds is not None:
        # What is below its class's threshold becomes 0, and what is 0 is no result.
        table[4] = [
            {0: _CALIBRATION, 1: {0: _INVERSE_LOGISTIC}},
            {0: _THRESHOLDING, 1: {0: min(about.thresholds) / 2}},
        ]
        text = "Of each class: scale, slope, offset, and the score from which it is there"
        table[6] = [*table[6], {0: CALIBRATION_FILE, 1: text, 2: _CALIBRATIONS}]
    if output.range is not None:
        low, high = output.range
        table[5] = {0: np.full(1, high, np.float32), 1: np.full(1, low, np.float32)}
    return table


def _write(builder: flatbuffers.Builder, table: dict[int, Value]) -> int:
    """Writes a table and all that it refers to; returns its offset."""
    offsets: dict[int, int] = {}
    for slot, value in table.items():
        match value:
            case str():
                offsets[slot] = builder.CreateString(value)
            case dict():
                offsets[slot] = _write(builder, value)
            case bytes():
                builder.StartVector(1, len(value), 16)
                for byte in reversed(value):
                    builder.PrependUint8(byte)
                offsets[slot] = builder.EndVector()
            case np.ndarray():
                offsets[slot] = builder.CreateNumpyVector(value)
            case list():
                rows = [builder.CreateString(row) if isinstance(row, str) else _write(builder, row) for row in value]
                builder.StartVector(4, len(rows), 4)
                for row in reversed(rows):
                    builder.PrependUOffsetTRelative(row)
                offsets[slot] = builder.EndVector()
    builder.StartObject(max(table, default=-1) + 1)
    for slot, value in table.items():
        if slot in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
        elif isinstance(value, float):
            builder.PrependFloat32Slot(slot, value, 0.0)
        elif isinstance(value, np.uint32):
            builder.PrependUint32Slot(slot, int(value), 0)
        else:
            builder.PrependUint8Slot(slot, value, 0)
    return builder.EndObject()


def append_files(model: bytes, about: About) -> bytes:
    """Returns the model with a zip archive of its files behind it, and a sum; a zip reader opens it as it is."""
    whole = io.BytesIO(model)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
        files = {LABELS_FILE: about.labels(), JSON_FILE: about.to_json()}
        if about.thresholds is not None:
            files[CALIBRATION_FILE] = about.calibration()
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), text)
        archive.comment = sums.COMMENT
    return sums.seal(whole.getvalue())
