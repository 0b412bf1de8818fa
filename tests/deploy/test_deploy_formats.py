"""Every format for real: written, opened in its own runtime, compared with the graph in JAX."""

import dataclasses
import json
import subprocess
import sys
import types
import zipfile

import jax
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from networks import MEAN, STD, about, fold, normalized, random_images, random_variables

from mnet_jax.deploy import fold as folding
from mnet_jax.deploy import formats, stablehlo, tflite, tflite_metadata
from mnet_jax.deploy.int8.quantize import int8_model
from mnet_jax.deploy.interpret import interpret
from mnet_jax.files import check_writable, placed
from mnet_jax.models import MobileNet
from mnet_jax.tasks.classification.network import create_model
from mnet_jax.tasks.output import Output

SIZE = 64


@pytest.fixture(scope="module")
def network():
    """(plan, graph, images, logits) of a narrow v3_small with symmetric padding, pixels inside."""
    plan = create_model("v3_small", num_classes=7, width=0.25, padding="symmetric").plan
    graph = fold(plan, random_variables(plan), image_size=SIZE, input="uint8", mean=MEAN, std=STD)
    images = random_images(SIZE, 3)
    return plan, graph, images, np.asarray(jax.jit(lambda x: interpret(graph, x))(images))


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    plan, graph, _, _ = network
    folder = tmp_path_factory.mktemp("exported")
    for format in formats.FORMATS:
        formats.write(graph, about(plan, SIZE), folder / f"model.{format}", format)
    return folder


@pytest.mark.parametrize("format", list(formats.FORMATS))
def test_a_file_gives_the_logits_of_its_model_and_knows_itself(network, files, format):
    plan, _, images, expected = network
    path = files / f"model.{format}"
    assert formats.recognize(path) == format
    exported = formats.load(path)
    assert exported.about == about(plan, SIZE)
    found = exported(images)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(exported(images[:1]), found[:1], rtol=1e-4, atol=1e-5)  # any batch
    assert sorted(path.name for path in files.iterdir()) == sorted(f"model.{name}" for name in formats.FORMATS)


@pytest.mark.parametrize("format", ["tflite", "onnx"])  # StableHLO holds the lines of code that traced it
def test_the_same_weights_give_the_same_bytes(network, files, tmp_path, format):
    plan, graph, _, _ = network
    formats.write(graph, about(plan, SIZE), tmp_path / "again", format)
    assert (tmp_path / "again").read_bytes() == (files / f"model.{format}").read_bytes()


def test_float_input_and_probabilities(network, tmp_path):
    plan, _, images, logits = network
    graph = fold(plan, random_variables(plan), image_size=SIZE, input="float", output="probabilities")
    expected = np.asarray(jax.nn.softmax(logits))
    for format in ("tflite", "onnx"):
        formats.write(graph, about(plan, SIZE, input="float", output="probabilities"), tmp_path / format, format)
        found = formats.load(tmp_path / format)(normalized(images))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_attention_in_tflite_and_onnx(tmp_path):
    plan = create_model("v4_hybrid_medium", num_classes=7, width=0.1).plan
    graph = fold(plan, random_variables(plan), image_size=SIZE)
    images = normalized(random_images(SIZE))
    expected = np.asarray(jax.jit(lambda x: interpret(graph, x))(images))
    for format in ("tflite", "onnx"):
        formats.write(graph, about(plan, SIZE, input="float"), tmp_path / format, format)
        found = formats.load(tmp_path / format)(images)
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    model = (tmp_path / "tflite").read_bytes()
    assert tflite.left_out(model) == []
    assert not {"TRANSPOSE", "SUM", "CAST", "PAD"} & set(tflite.operations(model))


@pytest.fixture
def several(monkeypatch, network):
    """(graph, what is known of it) with a map and the embedding as results, of a task that says what they are."""
    plan = network[0]

    def head(graph):
        return {"vector": graph.flatten("flat", graph.embedding()), "coarse": graph.maps()[16]}

    def describe(output, class_names):
        return {name: Output(title=name, text=f"{output} {name}") for name in ("vector", "coarse")}

    package, face = types.ModuleType("toy_task"), types.ModuleType("toy_task.export")
    face.describe = describe
    monkeypatch.setitem(sys.modules, "toy_task", package)
    monkeypatch.setitem(sys.modules, "toy_task.export", face)
    graph = folding.fold(plan, random_variables(plan), head, image_size=SIZE, input="uint8", mean=MEAN, std=STD)
    return graph, about(plan, SIZE, output="both", task="toy_task")


@pytest.mark.parametrize("format", list(formats.FORMATS))
def test_several_results_come_by_name(network, several, tmp_path, format):
    plan, _, images, _ = network
    graph, known = several
    model, variables = MobileNet(plan), random_variables(plan)
    vector, maps = jax.jit(
        lambda images: (model.apply(variables, images), model.apply(variables, images, method="maps"))
    )(normalized(images))
    formats.write(graph, known, tmp_path / "model", format)
    exported = formats.load(tmp_path / "model")
    assert exported.about == known
    found = exported(images)
    assert sorted(found) == ["coarse", "vector"]
    for name, expected in (("vector", vector), ("coarse", maps[16])):
        assert found[name].shape == expected.shape
        assert np.abs(found[name] - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.long
def test_several_results_in_int8(network, several, tmp_path):
    graph, known = several
    images = network[2]
    # what a hard swish gives is six times as large in an int8 graph
    with pytest.raises(ValueError, match="int8 gives results of linear layers only, not vector"):
        int8_model(graph, known, lambda: [images])
    linear = dataclasses.replace(graph, outputs={"vector": "block_03/project", "coarse": graph.outputs["coarse"]})
    path = tmp_path / "model.tflite"
    path.write_bytes(int8_model(linear, known, lambda: [images]))
    expected, found = interpret(linear, images), formats.load(path)(images)
    assert list(found) == ["vector", "coarse"]
    for name, values in found.items():
        assert np.corrcoef(values.ravel(), np.ravel(expected[name]))[0, 1] > 0.9


# --- TFLite ---


@pytest.mark.parametrize(("quantize", "share", "tolerance"), [("float16", 0.6, 0.01), ("dynamic", 0.4, 0.1)])
def test_smaller_models_run_in_xnnpack_too(network, files, tmp_path, quantize, share, tolerance):
    plan, graph, images, expected = network
    path = tmp_path / "small.tflite"
    formats.write(graph, about(plan, SIZE, quantize=quantize), path, "tflite")
    assert tflite.left_out(path.read_bytes()) == []
    assert path.stat().st_size < share * (files / "model.tflite").stat().st_size
    error = np.abs(formats.load(path)(images) - expected).max()
    assert 0 < error < tolerance * np.abs(expected).max()


def test_an_operation_outside_xnnpack_is_found(network):
    """uint8 pixels through CAST, as the converter leaves it: the reason for editing the model."""
    _, graph, _, _ = network
    assert tflite.left_out(tflite.run_converter(graph, lambda converter: None)) == ["CAST"]


def test_stride_two_needs_no_padding_operation_with_padding_same(network):
    plan = create_model("v3_small", num_classes=7, width=0.25).plan
    graph = fold(plan, random_variables(plan), image_size=SIZE)
    operations = tflite.operations(tflite.convert(graph, about(plan, SIZE, input="float")))
    assert set(operations) == {"CONV_2D", "DEPTHWISE_CONV_2D", "HARD_SWISH", "MEAN", "MUL", "ADD", "RESHAPE"}
    assert operations.count("HARD_SWISH") == 19
    symmetric = tflite.operations(tflite.convert(network[1], about(network[0], SIZE)))
    assert symmetric.count("PAD") == 5  # one before each strided convolution


def test_tflite_metadata_are_where_the_task_library_looks(network, files):
    path = files / "model.tflite"
    with zipfile.ZipFile(path) as archive:
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        assert archive.read("labels.txt").decode().splitlines() == [f"class {number}" for number in range(7)]
        assert json.loads(archive.read("mnet.json"))["model"] == "v3_small"
    model = path.read_bytes()
    tree = schema.Model.GetRootAs(model, 0)
    entries = {tree.Metadata(i).Name(): tree.Metadata(i).Buffer() for i in range(tree.MetadataLength())}
    buffer = tree.Buffers(entries[b"TFLITE_METADATA"]).DataAsNumpy().tobytes()
    assert buffer[4:8] == b"M001"
    assert b"labels.txt" in buffer
    assert tflite_metadata.build(about(network[0], SIZE), ["logits"]) == buffer
    images = tree.Subgraphs(0).Tensors(tree.Subgraphs(0).Inputs(0))
    assert images.Name() == b"images"
    assert images.ShapeAsNumpy().tolist() == [1, SIZE, SIZE, 3]


def test_constants_are_aligned_for_microcontrollers(files):
    model = (files / "model.tflite").read_bytes()
    tree = schema.Model.GetRootAs(model, 0)
    places = []
    for index in range(tree.BuffersLength()):
        table = tree.Buffers(index)
        if table.DataLength():
            places.append(table._tab.Vector(table._tab.Offset(4)))
    assert len(places) > 50
    assert all(place % 16 == 0 for place in places)


# --- ONNX ---


def test_onnx_metadata_and_batch(files):
    model = onnx.load(files / "model.onnx")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["model"] == "v3_small"
    assert json.loads(properties["class_names"])[6] == "class 6"
    assert json.loads(properties["mean"]) == list(MEAN)
    assert "date" not in properties
    (images,) = model.graph.input
    assert images.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [entry.version for entry in model.opset_import] == [17]
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Transpose") == 1
    assert "BatchNormalization" not in kinds


# --- StableHLO ---


def test_stablehlo_runs_with_jax_alone(files, network, tmp_path):
    _, _, images, expected = network
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, zipfile, numpy, jax.export\n"
        f"program = zipfile.ZipFile({str(files / 'model.stablehlo')!r}).read('program.jax_export')\n"
        "exported = jax.export.deserialize(bytearray(program))\n"
        f"images = numpy.load({str(tmp_path / 'images.npy')!r})\n"
        f"numpy.save({str(tmp_path / 'logits.npy')!r}, exported.call(images))\n"
        "print(exported.platforms, [name for name in ('flax', 'mnet_jax', 'tensorflow') if name in sys.modules])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "('cpu', 'cuda', 'tpu') []"
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-4, atol=1e-5)


def test_a_program_of_a_newer_jax_is_refused_by_name(files, tmp_path):
    with zipfile.ZipFile(files / "model.stablehlo") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    versions = json.loads(contents[stablehlo.VERSIONS_FILE])
    assert versions["jax"] == jax.__version__
    contents[stablehlo.VERSIONS_FILE] = json.dumps(versions | {"jax": "9.9.1"}).encode()
    with zipfile.ZipFile(tmp_path / "newer", "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"made by jax 9\.9\.1, this is jax .*pip install"):
        formats.load(tmp_path / "newer")


# --- Errors ---


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere/model.tflite", "there is no directory"),
        (".", "give the name of a file|is a directory"),
        ("gs://bucket/model.tflite", "give a local path"),
    ],
)
def test_paths_that_cannot_be_written_are_refused(tmp_path, path, message):
    with pytest.raises(ValueError, match=message):
        check_writable(path if "://" in path else tmp_path / path)


def test_an_error_leaves_no_half_file_and_the_old_one_as_it_was(tmp_path):
    target = tmp_path / "model.tflite"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), placed(target) as part:  # noqa: PT012
        part.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_only_a_savedmodel_is_replaced_by_one(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"no saved_model\.pb in it"):
        formats.check_path(tmp_path / "photos", "savedmodel")
    (tmp_path / "photos" / "saved_model.pb").touch()
    formats.check_path(tmp_path / "photos", "savedmodel")
    with pytest.raises(ValueError, match="it is a directory"):
        formats.check_path(tmp_path / "photos", "tflite")


def test_formats_and_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'tflite'"):
        formats.check("tflit", "none")
    with pytest.raises(ValueError, match="quantize of onnx"):
        formats.check("onnx", "dynamic")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a model")
    with pytest.raises(ValueError, match="is none of stablehlo"):
        formats.load(tmp_path / "photo.jpg")
    with pytest.raises(ValueError, match="is not there"):
        formats.load(tmp_path / "missing.onnx")


def test_a_missing_package_is_told_with_what_to_type(monkeypatch, network, tmp_path):
    plan, graph, _, _ = network
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "mnet_jax.deploy.onnx", raising=False)
    with pytest.raises(ValueError, match=r"needs the package onnx: type pip install 'mnet_jax\[export\]'"):
        formats.write(graph, about(plan, SIZE), tmp_path / "model.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []
