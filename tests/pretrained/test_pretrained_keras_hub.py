"""KerasHub's presets: files laid out as it wrote them (tests/scripts/parity_keras_hub.py --golden), and its logits."""

import json
import pathlib

import h5py
import jax
import numpy as np
import pytest
import random_weights

from mnet_jax.pretrained.load import load_pretrained
from mnet_jax.trained import build_model

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden_logits.npz")
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # compile time, not run time
CASES = {f"{model} x{width:g}": (model, width) for model, width in random_weights.GOLDEN_HUB}
V3, V5 = CASES


def save(case, folder, *, without=(), biased=False):
    """Writes a preset as KerasHub did: its JSON files, and arrays by rule at its places."""
    stored = json.loads(GOLDEN[f"keras_hub {case} preset"].tobytes())
    folder.mkdir(exist_ok=True)
    for name, text in stored["json"].items():
        if name not in without:
            (folder / name).write_text(json.dumps(text))
    for name, shapes in stored["shapes"].items():
        with h5py.File(folder / name, "w") as file:
            for place, shape in shapes.items():
                array = random_weights.draw_hub(place, tuple(shape))
                file[place] = array + 0.1 if biased and place.endswith("/conv/vars/1") else array
            file["optimizer/vars/0"] = np.int64(0)
    return folder


def edit(path, change):
    text = json.loads(path.read_text())
    change(text["config"])
    path.write_text(json.dumps(text))


@pytest.mark.parametrize("case", [V3, pytest.param(V5, marks=pytest.mark.long)])
def test_logits_are_those_of_keras_hub(case, tmp_path):
    trained = load_pretrained(save(case, tmp_path), log=pytest.fail)
    images = random_weights.images(random_weights.GOLDEN_HUB[CASES[case]])
    model = build_model(trained.config, trained.info)
    logits = jax.jit(model.apply, compiler_options=FAST)(trained.variables, images)
    theirs = GOLDEN[f"keras_hub {case}"]
    np.testing.assert_allclose(logits, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("case", CASES)
def test_a_preset_says_how_its_images_are_prepared(case, tmp_path):
    trained = load_pretrained(save(case, tmp_path) / "model.weights.h5", log=pytest.fail)  # a file of it stands for it
    data = trained.config.data
    scale, offset = np.array([0.017, 0.0175, 0.0174]), np.array([-2.1, -2.0, -1.8])
    pixels = np.array([0.0, 100.0, 255.0])
    np.testing.assert_allclose((pixels - data.mean) / data.std, pixels * scale + offset, rtol=1e-6)
    assert (data.image_size, data.interpolation, data.eval_crop) == (64, "bicubic", 0.9999)
    model, width = CASES[case]
    assert (trained.config.model.name, trained.config.model.width, trained.info.num_classes) == (model, width, 7)
    assert trained.config.model.padding == ("symmetric" if case == V3 else "same")
    squeezed = tmp_path / "image_converter.json"
    edit(squeezed, lambda config: config.update(crop_to_aspect_ratio=False, scale=1 / 255, offset=0.0))
    data = load_pretrained(tmp_path, log=pytest.fail).config.data
    assert (data.eval_crop, tuple(data.std)) == (1.0, pytest.approx((255.0,) * 3))


def test_a_backbone_alone_is_loaded_for_fine_tuning(tmp_path):
    folder = save(V3, tmp_path)
    for name in ("task.json", "task.weights.h5", "image_converter.json"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match=r"lacks image_converter\.json\. Say whose weights it has \(--like NAME"):
        load_pretrained(folder)
    trained = load_pretrained(folder, like="timm/mobilenetv3_small_050.lamb_in1k", log=pytest.fail)
    assert (trained.info.num_classes, trained.config.data.image_size) == (0, 224)
    assert set(trained.variables["params"]) >= {"stem", "last_conv"}
    assert not {"head", "classifier"} & set(trained.variables["params"])
    with pytest.raises(ValueError, match="does not fit v3_small x1"):
        load_pretrained(folder, like="timm/mobilenetv3_small_100.lamb_in1k", log=pytest.fail)


def test_a_classifier_of_another_width_is_left_out(tmp_path):
    folder, lines = save(V3, tmp_path), []
    with h5py.File(folder / "task.weights.h5", "a") as file:
        for place, shape in (
            ("conv2d/vars/0", (1, 1, 288, 512)),
            ("conv2d/vars/1", (512,)),
            ("dense/vars/0", (512, 7)),
        ):
            del file[f"layers/{place}"]
            file[f"layers/{place}"] = np.zeros(shape, np.float32)
    trained = load_pretrained(folder, log=lines.append)
    assert lines == [f"Left out of {folder}: its classifier, which has 512 hidden features where v3_small has 1,024"]
    assert (trained.info.num_classes, trained.config.model.width) == (0, 0.5)


CHANGES = {
    "strides": (V3, "stackwise_num_strides", [[1, 1], [2, 1, 1], [1, 1], [2, 1, 1]], "has stackwise_num_strides"),
    "residual": (V3, "depthwise_residual", True, "has depthwise_residual True, where v3_small x0.5 has False"),
    "stages": (V3, "stackwise_num_blocks", [2, 3, 2, 4], "stages of 2, 3, 2, 4 blocks, which none of v3_small"),
    "lists": (V3, "stackwise_num_blocks", None, "is no config of KerasHub's MobileNetBackbone"),
    "norm": (V5, "norm_layer", "batch_norm", "has norm_layer batch_norm, where v5_base x0.05 has rms_norm"),
    "fusion": (V5, "msfa_output_resolution", 8, "where v5_base x0.05 has 16"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_network_is_refused(change, tmp_path):
    case, field, value, message = CHANGES[change]
    edit(save(case, tmp_path) / "config.json", lambda config: config.update({field: value}))
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path, log=pytest.fail)


def test_what_is_no_mobilenet_of_keras_hub_is_refused(tmp_path):
    folder = save(V3, tmp_path)
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | {"class_name": "ResNetBackbone"}))
    with pytest.raises(ValueError, match="a preset of KerasHub's ResNetBackbone: those of its MobileNetBackbone and"):
        load_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no whole file of JSON"):
        load_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(about))
    edit(folder / "image_converter.json", lambda config: config.update(pad_to_aspect_ratio=True))
    with pytest.raises(ValueError, match="padded to its shape"):
        load_pretrained(folder)


def test_broken_and_strange_files_are_refused(tmp_path):
    folder = save(V3, tmp_path)
    with h5py.File(folder / "model.weights.h5", "a") as file:
        file["layers/lora/vars/0"] = np.zeros(3)
    with pytest.raises(ValueError, match="has layers/lora/vars/0, which is no array of a MobileNet"):
        load_pretrained(folder)
    with h5py.File(folder / "model.weights.h5", "w") as file:
        file.create_dataset("layers/conv2d/vars/0", (2**20, 2**18), "f4")  # 1 TiB declared, nothing there
    with pytest.raises(ValueError, match="declares 1,048,576 MiB"):
        load_pretrained(folder)
    (folder / "model.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ValueError, match="is not a whole file of Keras' weights"):
        load_pretrained(folder)


def test_biases_that_mobilenet_v5_has_not_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has biases before its norms that were trained in KerasHub"):
        load_pretrained(save(V5, tmp_path, biased=True), log=pytest.fail)
