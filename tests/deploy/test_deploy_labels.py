"""Sigmoid scores in every format, and the thresholds in what MediaPipe reads of a TFLite file."""

import zipfile

import flatbuffers
import jax
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types
from networks import MEAN, STD, about, normalized, random_images, random_variables

from mnet_jax.deploy import fold as folding
from mnet_jax.deploy import formats
from mnet_jax.tasks.classification.network import create_model
from mnet_jax.tasks.multilabel import export
from mnet_jax.tasks.multilabel.task import MultiLabel

SIZE = 64
NAMES = ("ant", "bee", "wasp")
THRESHOLDS = (0.25, 0.4375, 0.90234375)


@pytest.fixture(scope="module")
def labeller():
    """(graph, About, images, logits) of a narrow v1."""
    network = create_model("v1", num_classes=3, width=0.25)
    variables, images = random_variables(network.plan), random_images(SIZE, 3)
    task = MultiLabel(class_names=NAMES, mean=MEAN, std=STD, thresholds=THRESHOLDS)
    head = lambda graph: export.head(graph, network, task, "probabilities")  # noqa: E731
    graph = folding.fold(network.plan, variables, head, image_size=SIZE, input="uint8", mean=MEAN, std=STD)
    logits = jax.jit(lambda variables: network.apply(variables, normalized(images)))(variables)
    fields = {"class_names": NAMES, "task": "multilabel", "output": "probabilities", "thresholds": THRESHOLDS}
    return graph, about(network.plan, SIZE, **fields), images, np.asarray(logits, np.float64)


@pytest.mark.parametrize(
    "format",
    [
        "tflite",
        "onnx",
        pytest.param("stablehlo", marks=pytest.mark.long),
        pytest.param("savedmodel", marks=pytest.mark.long),
    ],
)
def test_scores_and_thresholds(labeller, tmp_path, format):
    graph, said, images, logits = labeller
    formats.write(graph, said, tmp_path / "model", format)
    exported = formats.load(tmp_path / "model")
    assert exported.about == said
    np.testing.assert_allclose(exported(images), 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_what_mediapipe_reads_of_the_thresholds(labeller, tmp_path):
    """Slots and numbers are those of metadata_schema.fbs (M001); mediapipe 1.2.3 gave the same classes by hand."""
    graph, said, _, _ = labeller
    path = tmp_path / "model.tflite"
    formats.write(graph, said, path, "tflite")
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("score_calibration.txt").decode().split("\n")  # as MediaPipe does: one for each class
        assert archive.read("labels.txt").decode().split() == list(NAMES)
    assert [[float(number) for number in line.split(",")] for line in lines] == [[1, 1, 0, t] for t in THRESHOLDS]

    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    entry = next(entry for entry in tree.metadata if entry.name == b"TFLITE_METADATA")
    metadata = bytes(bytearray(tree.buffers[entry.buffer].data))
    model = Table(metadata, int.from_bytes(metadata[:4], "little"))
    (result,) = model.tables(3)[0].tables(3)
    calibration, thresholding = result.tables(4)
    assert calibration.byte(0) == 2  # ScoreCalibrationOptions
    assert calibration.table(1).byte(0) == 2  # INVERSE_LOGISTIC
    assert thresholding.byte(0) == 3  # ScoreThresholdingOptions
    assert thresholding.table(1).float(0) == min(THRESHOLDS) / 2
    assert [(file.text(0), file.byte(2)) for file in result.tables(6)] == [
        ("labels.txt", 2),
        ("score_calibration.txt", 4),
    ]


class Table(flatbuffers.table.Table):
    """A table of a flatbuffer by the numbers of its fields."""

    def _place(self, slot):
        return self.Pos + self.Offset(4 + 2 * slot)

    def byte(self, slot):
        return self.Get(number_types.Uint8Flags, self._place(slot))

    def float(self, slot):
        return self.Get(number_types.Float32Flags, self._place(slot))

    def text(self, slot):
        return self.String(self._place(slot)).decode()

    def table(self, slot):
        return Table(self.Bytes, self.Indirect(self._place(slot)))

    def tables(self, slot):
        start, count = self.Vector(self.Offset(4 + 2 * slot)), self.VectorLen(self.Offset(4 + 2 * slot))
        return [Table(self.Bytes, self.Indirect(start + 4 * place)) for place in range(count)]
