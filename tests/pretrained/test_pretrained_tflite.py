"""TFLite files as a source of weights, and torchvision's detector: what is loaded computes what the file does."""

import dataclasses
import os
import pathlib

import files
import jax
import numpy as np
import pytest
import tflite_files

from mnet_jax.models.compute import Compute
from mnet_jax.models.heads.boxes import resolve_head
from mnet_jax.models.heads.tables import find_detector, find_head, resolve_detector
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import find_spec
from mnet_jax.pretrained.box_layouts import TORCHVISION_BOXES
from mnet_jax.pretrained.load import load_pretrained
from mnet_jax.tasks.classification.network import Classifier
from mnet_jax.tasks.detection.network import Detector
from mnet_jax.training.initial import flat

# The published coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite (4.2 MB, not in this repository).
REAL = pathlib.Path(os.environ.get("MNET_SSD_V1_TFLITE", "absent"))


def network_of(trained):
    """The network of a trained model, with the plan that its config says."""
    section = trained.config.model
    names = ("width", "width_rule", "padding", "norm_epsilon")
    plan = resolve(find_spec(section.name), num_classes=trained.info.num_classes, **{n: section[n] for n in names})
    if trained.config.task.name == "classification":
        return Classifier(plan, Compute())
    head = resolve_head(find_head(trained.config.task.head), plan, trained.info.num_classes)
    return Detector.for_plan(plan, Compute(), head)


@pytest.mark.parametrize(("name", "width"), [("ssd300_v1", 0.25), ("ssdlite320_v1_tf", 0.5)])
def test_detector(name, width, tmp_path):
    """Codes and scores as LiteRT has them; model, width, head, classes and size are read off the file."""
    plan, head = resolve_detector(find_detector(name), 5, width=width)
    path = tflite_files.write_detector(tmp_path / "ssd.tflite", plan, head, 128)
    lines = []
    trained = load_pretrained(path, log=lines.append)
    config = trained.config
    assert (config.model.name, config.model.width, config.task.name) == ("v1", width, "detection")
    assert (config.task.head, config.data.image_size) == (find_detector(name).head, 128)
    assert trained.info.num_classes == 5
    assert config.model.norm_frozen
    assert len(lines) == 2  # norms are folded; the pixels are assumed

    image = np.random.default_rng(1).uniform(-1, 1, (1, 128, 128, 3)).astype(np.float32)
    codes, scores = tflite_files.run(path, image)
    outputs = jax.jit(network_of(trained).apply)(trained.variables, image)
    np.testing.assert_allclose(outputs["boxes"], codes, atol=2e-5 * np.abs(codes).max())
    np.testing.assert_allclose(jax.nn.sigmoid(outputs["classes"]), scores, atol=2e-5)


def test_classifier_with_a_background(tmp_path):
    """1,001 classes are 1,000 here, as with Keras' files."""
    plan = resolve(find_spec("v1"), width=0.25, num_classes=1001)
    path = tflite_files.write_classifier(tmp_path / "v1.tflite", plan, 64)
    trained = load_pretrained(path, log=lambda line: None)
    image = np.random.default_rng(1).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    logits = jax.jit(network_of(trained).apply)(trained.variables, image)
    (theirs,) = tflite_files.run(path, image)
    np.testing.assert_allclose(logits, theirs[:, 1:], atol=2e-5 * np.abs(theirs).max())
    assert trained.class_names[0].startswith("tench")


def test_bytes_become_real_numbers(tmp_path):
    """Kernels stored as uint8 are scale (q - zero), in our axes."""
    plan, head = resolve_detector(find_detector("ssd300_v1"), 5, width=0.25)
    stored, real = (
        load_pretrained(
            tflite_files.write_detector(tmp_path / f"{quantized}.tflite", plan, head, 128, quantized=quantized),
            log=lambda line: None,
        )
        for quantized in (True, False)
    )
    ours, theirs = flat(stored.variables), flat(real.variables)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        wanted = theirs[name]
        if name.endswith("kernel"):
            wanted = np.float32(0.01) * np.clip(np.rint(wanted / np.float32(0.01)), -100, 155)
        np.testing.assert_allclose(array, wanted, atol=1e-6)


def test_broken_files_end_in_one_line(tmp_path):
    """Cut off anywhere or with wrong bytes anywhere, a file is read or refused; nothing else is raised."""
    plan = resolve(find_spec("v1"), width=0.25, num_classes=3)
    path = tflite_files.write_classifier(tmp_path / "v1.tflite", plan, 32)
    whole = path.read_bytes()
    structure = whole.find(b"kernel")  # before the constants
    random = np.random.default_rng(0)
    cuts = [whole[:size] for size in random.integers(0, len(whole), 20)]
    for place in random.integers(0, max(structure, 20_000), 150):
        changed = bytearray(whole)
        changed[place] = random.integers(256)
        cuts.append(bytes(changed))
    for number, content in enumerate(cuts):
        path.write_bytes(content)
        lines = []
        try:
            load_pretrained(path, log=lambda line: None)
        except ValueError as error:
            lines = str(error).splitlines()
        assert len(lines) == 1 if number < 20 else len(lines) < 2


@pytest.mark.parametrize("halved", [True, False])
def test_torchvision_detector(halved, tmp_path):
    """Every array of the state dict comes to its place, codes as ty, tx, th, tw; the tail is read off the shapes."""
    detector = find_detector("ssdlite320_v3_large" if halved else "ssdlite320_v3_large_full")
    plan, head = resolve_detector(detector, 4)
    arrays, expected = {}, {}
    random = np.random.default_rng(0)
    for variable, name in TORCHVISION_BOXES.names(plan, head):
        shape = variable.shape
        if variable.path[-1].endswith("kernel"):
            shape = (1, 1, *shape) if len(shape) == 2 else shape
            shape = tuple(shape[axis] for axis in (3, 2, 0, 1))
        arrays[name] = random.standard_normal(shape).astype(np.float32)
        expected["/".join((variable.collection, *variable.path))] = arrays[name]
    path = files.save_torch(tmp_path / "detector.pth", arrays)
    trained = load_pretrained(path)
    assert trained.config.model.name == detector.model
    assert (trained.info.num_classes, trained.config.data.image_size) == (4, 320)
    found = flat(trained.variables)
    assert found.keys() == expected.keys()
    bias = expected["params/boxes_2/bias"].reshape(6, 4)
    np.testing.assert_array_equal(found["params/boxes_2/bias"].reshape(6, 4), bias[:, (1, 0, 3, 2)])
    kernel = expected["params/classes_2/kernel"]
    np.testing.assert_array_equal(found["params/classes_2/kernel"], kernel[:, :, 0, 0].T)

    del arrays["backbone.extra.0.1.0.weight"]
    files.save_torch(path, arrays)
    with pytest.raises(ValueError, match=r"does not fit ssdlite320_v3_large.*1 missing in it: backbone\.extra\.0\.1"):
        load_pretrained(path)
    with pytest.raises(ValueError, match="not on v2"):
        load_pretrained(path, model="v2")


@pytest.mark.skipif(not REAL.exists(), reason="MNET_SSD_V1_TFLITE does not name the file")
def test_the_published_detector():
    trained = load_pretrained(REAL, log=lambda line: None)
    section = trained.config.model
    assert (section.name, section.width, trained.config.task.head) == ("v1", 0.75, "ssd_tf")
    assert trained.config.data.mean == (128.0, 128.0, 128.0)
    assert trained.class_names[11:13] == ("unused 12", "stop sign")
    assert dataclasses.asdict(trained)["info"]["num_classes"] == 90
