"""Files of every format and layout come in as they went out; what is broken or wrong is refused in one line."""

import pathlib
import sys

import jax
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import files
import random_weights

from mnet_jax import load_pretrained
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.models.variables import list_variables
from mnet_jax.pretrained import timm_rows
from mnet_jax.pretrained.layouts import KERAS, KERAS_NUMBERED, LAYOUTS, TIMM, TORCHVISION
from mnet_jax.trained import build_model

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden_logits.npz")

LONG = ("mobilenetv4_conv_aa_medium", "mobilenetv4_conv_blur_medium")
TIMM_CONFIG = {"architecture": "mobilenetv4_conv_small_035", "num_classes": 10}


def flat(tree, path=()):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, (*path, name))
        else:
            yield (*path, name), value


@pytest.fixture
def lines():
    return []


def make(case, folder):
    """The file of a golden case."""
    library, variant = case
    if library == "torchvision":
        return files.save_torch(folder / "m.pth", files.library_arrays(TORCHVISION, "v3_small", 0.75))
    if variant == "mobilenetv4_conv_small_035":
        return files.save_safetensors(
            folder / "model.safetensors", files.library_arrays(TIMM, "v4_conv_small", 0.35), **TIMM_CONFIG
        )
    if library == "timm":
        arrays = files.library_arrays(TIMM, *timm_rows.TIMM_ARCHITECTURES[variant])
        return files.save_safetensors(folder / "m.safetensors", arrays, architecture=variant, num_classes=10)
    model, width = {"MobileNet x0.25": ("v1", 0.25), "MobileNetV2 x0.35": ("v2", 0.35)}[variant]
    return files.save_keras(folder / "m.h5", files.library_arrays(KERAS, model, width))


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.long if case[1] in LONG else ()) for case in random_weights.GOLDEN],
    ids=" ".join,
)
def test_logits_are_those_of_the_library(case, tmp_path, lines):
    """Within 1e-4 of the largest, which tests/scripts/make_parity.py --golden stored from the live library."""
    trained = load_pretrained(make(case, tmp_path), log=lines.append)
    assert lines == []
    model = build_model(trained.config, trained.info)
    images = random_weights.images(random_weights.GOLDEN[case])
    logits = np.asarray(jax.jit(model.apply)(trained.variables, images))
    theirs = GOLDEN[" ".join(case)]
    assert np.abs(logits - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("layout", "model"), [(layout, model) for layout in LAYOUTS.values() for model in layout.models]
)
def test_names_are_a_bijection_for_every_architecture(layout, model):
    for width in (0.35, 1.0):
        plan = resolve(SPECS[model], num_classes=1000, width=width, width_rule=layout.width_rule)
        names = [name for _, name in layout.names(plan)]
        assert len(set(names)) == len(names) == len(list_variables(plan))


def test_one_network_in_four_formats_is_one_network(tmp_path, lines):
    arrays = files.library_arrays(KERAS, "v2", 0.35)
    plan = resolve(SPECS["v2"], width=0.35, num_classes=10)
    names = [name for _, name in KERAS_NUMBERED.names(plan)]
    numbered = dict(zip(names, arrays.values(), strict=True))
    torch = files.library_arrays(TORCHVISION, "v2", 0.35)
    pairs = (
        (
            files.save_keras(tmp_path / "a.h5", arrays),
            files.save_keras(tmp_path / "a.weights.h5", numbered, named=False),
        ),
        (files.save_torch(tmp_path / "b.pth", torch), files.save_torch(tmp_path / "b.pt", torch, stream=True)),
    )
    for one, other in pairs:
        first, second = (load_pretrained(path, log=lines.append) for path in (one, other))
        for (path, a), (_, b) in zip(flat(first.variables), flat(second.variables), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=str(path))
        assert first.config.model.name == "v2"
        assert first.config.model.width == 0.35
    assert first.config.model.padding == "symmetric"
    assert first.config.model.norm_epsilon == 1e-5
    assert first.config.model.width_rule == "torchvision"
    assert first.variables["params"]["stem"]["kernel"].dtype == np.float32


def test_preprocessing_comes_with_the_weights(tmp_path, lines):
    trained = load_pretrained(make(("timm", "mobilenetv4_conv_small_035"), tmp_path), log=lines.append)
    data = trained.config.data
    assert (data.image_size, data.interpolation) == (64, "bicubic")
    assert data.eval_crop == pytest.approx(64 / 73)
    assert tuple(data.mean) == tuple(data.std) == (127.5,) * 3
    assert trained.config.model.padding == "symmetric"
    assert trained.class_names == tuple(f"class {i}" for i in range(10))


def test_names_of_classes_in_the_config_are_used(tmp_path, lines):
    arrays = files.library_arrays(TIMM, "v4_conv_small", 0.35, num_classes=3)
    config = TIMM_CONFIG | {"num_classes": 3, "label_names": ["ant", "bee", "cat"]}
    trained = load_pretrained(files.save_safetensors(tmp_path / "m.safetensors", arrays, **config).parent)
    assert trained.class_names == ("ant", "bee", "cat")


def test_the_background_class_is_left_out(tmp_path, lines):
    arrays = files.library_arrays(KERAS, "v1", 0.25, num_classes=1001)
    trained = load_pretrained(files.save_keras(tmp_path / "m.h5", arrays), log=lines.append)
    assert "background" in lines[0]
    kernel = trained.variables["params"]["classifier"]["kernel"]
    np.testing.assert_array_equal(kernel, arrays["conv_preds/kernel"][0, 0, :, 1:])
    assert trained.class_names[0] == "tench"


def test_no_top_and_a_top_of_ones_own(tmp_path, lines):
    arrays = files.library_arrays(KERAS, "v2", 0.35)
    backbone = {name: array for name, array in arrays.items() if not name.startswith("predictions/")}
    bare = load_pretrained(files.save_keras(tmp_path / "bare.h5", backbone), log=lines.append)
    assert bare.info.num_classes == 0
    assert bare.class_names == ()
    assert "classifier" not in bare.variables["params"]
    own = backbone | {"dense_7/kernel": np.ones((1280, 3), np.float32), "dense_7/bias": np.zeros(3, np.float32)}
    assert load_pretrained(files.save_keras(tmp_path / "own.h5", own), log=lines.append).info.num_classes == 3
    assert lines == []
    two = backbone | {"d1/kernel": np.ones((1280, 9), np.float32), "d2/kernel": np.ones((9, 3), np.float32)}
    assert load_pretrained(files.save_keras(tmp_path / "two.h5", two), log=lines.append).info.num_classes == 0
    assert "Left out" in lines[0]


def test_v3_without_top_has_no_head_either(tmp_path, lines):
    arrays = files.library_arrays(KERAS, "v3_small_minimalistic", 1.0)
    backbone = {name: array for name, array in arrays.items() if name.split("/")[0] not in ("conv_2", "logits")}
    trained = load_pretrained(files.save_keras(tmp_path / "m.h5", backbone), log=lines.append)
    assert {"head", "classifier"}.isdisjoint(trained.variables["params"])


# --- What is wrong is refused in one line ---


def refused(path, **options):
    with pytest.raises(ValueError, match=r".") as caught:
        load_pretrained(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_another_architecture_or_width(tmp_path):
    path = files.save_torch(tmp_path / "v2.pth", files.library_arrays(TORCHVISION, "v2", 0.35))
    message = refused(path, model="v3_large")
    assert "does not fit v3_large" in message
    assert "It fits v2 x0.35" in message
    narrow = files.save_keras(tmp_path / "v1.h5", files.library_arrays(KERAS, "v1", 0.25))
    message = refused(narrow, width=1.0)
    assert "of another shape: conv1/kernel (3, 3, 3, 8), not (3, 3, 3, 32)" in message
    assert "It fits v1 x0.25" in message


def test_missing_and_left_over_arrays_are_listed(tmp_path):
    arrays = files.library_arrays(KERAS, "v1", 0.25)
    arrays["strange/kernel"] = arrays.pop("conv_dw_3/kernel")
    message = refused(files.save_keras(tmp_path / "m.h5", arrays))
    assert "1 missing in it: conv_dw_3/kernel" in message
    assert "1 left over: strange/kernel" in message


def test_truncated_files(tmp_path):
    arrays = files.library_arrays(TIMM, "v4_conv_small", 0.35)
    whole = (
        files.save_safetensors(tmp_path / "m.safetensors", arrays, **TIMM_CONFIG),
        files.save_keras(tmp_path / "m.h5", files.library_arrays(KERAS, "v1", 0.25)),
        files.save_torch(tmp_path / "zip.pth", files.library_arrays(TORCHVISION, "v2", 0.35)),
        files.save_torch(tmp_path / "stream.pth", files.library_arrays(TORCHVISION, "v2", 0.35), stream=True),
    )
    for path in whole:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert f"{path} is not a whole" in refused(path)


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch /nonexistent/hacked",)


@pytest.mark.parametrize("stream", [False, True])
def test_a_pickle_with_code_is_refused_before_it_runs(tmp_path, stream, monkeypatch):
    arrays = {"features.0.0.weight": np.zeros((1, 1), np.float32)}
    path = files.save_torch(tmp_path / "m.pth", arrays, stream=stream, extra={"x": Evil()})
    monkeypatch.setattr("os.system", lambda command: pytest.fail("it ran"))
    assert "asks for posix.system; only tensors are read" in refused(path)


def test_timm_file_without_config_must_say_whose_it_is(tmp_path, lines):
    path = files.save_safetensors(tmp_path / "m.safetensors", files.library_arrays(TIMM, "v2", 0.5))
    assert "does not say how its images are prepared" in refused(path)
    trained = load_pretrained(path, like="timm/mobilenetv2_050.lamb_in1k", log=lines.append)
    assert trained.config.data.interpolation == "bicubic"
    assert trained.accuracy is None  # ten classes: somebody's own
    assert "fit v3_small x0.5" in refused(path, like="timm/mobilenetv3_small_050")


def test_wrong_places_and_names(tmp_path):
    assert "is the directory of a run: commands take it as --checkpoint" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "none.h5")
    assert "Did you mean 'keras/mobilenet_0.25_224'?" in refused("keras/mobilenet_0.25_22")
    assert "Did you mean 'mobilenetv3_large_100'?" in refused("timm/mobilenetv3_lage_100")
    assert "a detector of two stages" in refused("torchvision/fasterrcnn_mobilenet_v3_large_fpn.COCO_V1")
    assert "load timm/mobilenetv3_small_050" in refused("keras_hub/mobilenet_v3_small_050_imagenet")


def test_networks_of_the_same_arrays_are_told_apart_by_their_name(tmp_path, lines):
    """With strides, averages or blurs, timm's medium networks have one set of arrays."""
    arrays = files.library_arrays(TIMM, "v4_conv_medium", 1.0)
    for kind in ("conv", "conv_aa", "conv_blur"):
        config = {"architecture": f"mobilenetv4_{kind}_medium", "num_classes": 10}
        path = files.save_safetensors(tmp_path / "m.safetensors", arrays, **config)
        assert load_pretrained(path, log=lines.append).config.model.name == f"v4_{kind}_medium"
    path.with_name("config.json").unlink()
    trained = load_pretrained(path, like="timm/mobilenetv4_conv_blur_medium", log=lines.append)
    assert trained.config.model.name == "v4_conv_blur_medium"


def test_real_keras_files(real_data, lines):
    weights = real_data / "weights"
    trained = load_pretrained(weights / "keras_v1_0.25_224.h5", log=lines.append)
    assert (trained.config.model.name, trained.config.model.width, trained.info.num_classes) == ("v1", 0.25, 1000)
    assert trained.config.data.image_size == 224
    assert lines == []
    backbone = load_pretrained(weights / "teachablemachine_v2_0.35_224.h5", log=lines.append)
    assert (backbone.config.model.name, backbone.config.model.width, backbone.info.num_classes) == ("v2", 0.35, 0)
    assert "Left out" in lines[0]
