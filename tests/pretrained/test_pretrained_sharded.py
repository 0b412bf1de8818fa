"""Weights in several files with an index; of Gemma 3n, whose vision tower is a MobileNetV5, only that is read."""

import json
import pathlib

import files
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from mnet_jax import load_pretrained
from mnet_jax.pretrained import timm_rows
from mnet_jax.pretrained.layouts import TIMM, TORCHVISION
from mnet_jax.pretrained.readers import safetensors as reader
from mnet_jax.trained import build_model

CONFIG = {"architecture": "mobilenetv4_conv_small_035", "num_classes": 10}
TOWER = "model.vision_tower.timm_model."


def split(folder, arrays, save, stem, count=3, **index):
    """Writes arrays over `count` files and their index; returns the index."""
    suffix = ".safetensors" if stem == "model" else ".bin"
    names = sorted(arrays)
    shards = {name: f"{stem}-{place % count + 1:05}-of-{count:05}{suffix}" for place, name in enumerate(names)}
    for file in set(shards.values()):
        save(folder / file, {name: arrays[name] for name in names if shards[name] == file})
    path = folder / f"{stem}{suffix}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": shards | index}))
    return path


@pytest.fixture(scope="module")
def arrays():
    return files.library_arrays(TIMM, "v4_conv_small", 0.35)


@pytest.fixture
def index(arrays, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": PIXELS} | CONFIG))
    return split(tmp_path, arrays, lambda path, part: safetensors.numpy.save_file(part, path), "model")


PIXELS = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9, "interpolation": "bicubic"}


def same(left, right):
    assert left.keys() == right.keys()
    return all(
        same(value, right[name]) if isinstance(value, dict) else np.array_equal(value, right[name])
        for name, value in left.items()
    )


def refused(path):
    with pytest.raises(ValueError, match=r".") as caught:
        load_pretrained(path, log=lambda line: None)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_index_or_its_directory_gives_the_network(index, arrays, tmp_path):
    (tmp_path / "whole").mkdir()
    expected = load_pretrained(files.save_safetensors(tmp_path / "whole" / "m.safetensors", arrays, **CONFIG))
    for source in (index, index.parent):
        trained = load_pretrained(source)
        assert same(trained.variables, expected.variables)
        assert trained.config.data.image_size == 64


def test_pytorchs_index_gives_the_network(tmp_path):
    arrays = files.library_arrays(TORCHVISION, "v2", 0.35)
    path = split(tmp_path, arrays, files.save_torch, "pytorch_model", count=2)
    whole = load_pretrained(files.save_torch(tmp_path / "m.pth", arrays))
    assert same(load_pretrained(path).variables, whole.variables)


def test_a_file_that_is_missing_is_named(index):
    gone = sorted(index.parent.glob("*.safetensors"))[1]
    gone.unlink()
    message = refused(index)
    assert f"lacks {gone.name} beside it" in message
    assert "of the arrays: download what is missing" in message


def test_an_array_that_is_in_no_file_is_named(index):
    shards = json.loads(index.read_text())["weight_map"]
    first, second, *_ = sorted(set(shards.values()))
    name = next(name for name, file in shards.items() if file == first)
    index.write_text(json.dumps({"weight_map": shards | {name: second}}))
    assert f"says that {second} has {name}, which is not in it" in refused(index)
    without = {key: file for key, file in shards.items() if key != "conv_head.weight"}
    index.write_text(json.dumps({"weight_map": without}))
    assert "1 missing in it: conv_head.weight" in refused(index)


@pytest.mark.parametrize("file", ["../secret.safetensors", "/etc/passwd", "a/b.bin", "..", "", "C:\\x", "a\\b", "x\0y"])
def test_an_index_names_files_beside_it_only(index, file):
    shards = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": shards | {"conv_head.weight": file}}))
    assert "where files beside it are allowed" in refused(index)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "[" * 100_000]
)
def test_what_is_no_index_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    assert "is no index of weights in several files" in refused(path)
    assert "no such file" in refused(tmp_path / "other.safetensors.index.json")


# --- Gemma 3n ---


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    """A narrow tower under Gemma 3n's names, in bfloat16, beside a language model."""
    folder = tmp_path_factory.mktemp("gemma")
    tower = files.library_arrays(TIMM, "v5_base", 0.1)
    tower = {name: array for name, array in tower.items() if not name.startswith("classifier")}
    arrays = {TOWER + name: array.astype(ml_dtypes.bfloat16) for name, array in tower.items()}
    safetensors.numpy.save_file(arrays, folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_text("the language model, which nobody opens")
    shards = dict.fromkeys(arrays, "model-00001-of-00002.safetensors")
    language = dict.fromkeys(
        ("model.language_model.embed_tokens.weight", "model.embed_vision.embedding.weight", "lm_head.weight"),
        "model-00002-of-00002.safetensors",
    )
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards | language}))
    vision = {"architecture": "mobilenetv5_300m_enc", "model_type": "gemma3n_vision", "num_classes": 2}
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3n", "vision_config": vision}))
    return index, tower


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setitem(timm_rows.TIMM_ARCHITECTURES, "mobilenetv5_300m_enc", ("v5_base", 0.1))


def test_the_vision_tower_of_gemma_is_a_backbone(gemma, narrow):
    index, tower = gemma
    trained = load_pretrained(index)
    assert (trained.config.model.name, trained.config.model.width, trained.info.num_classes) == ("v5_base", 0.1, 0)
    model, data = trained.config.model, trained.config.data
    assert (model.padding, model.norm_epsilon, model.norm_decay) == ("same", 1e-6, None)
    assert (data.image_size, data.eval_crop, data.interpolation) == (768, 1.0, "bilinear")
    assert (tuple(data.mean), tuple(data.std)) == ((0.0,) * 3, (255.0,) * 3)
    bias = trained.variables["params"]["stem"]["bias"]
    assert bias.dtype == np.float32
    np.testing.assert_array_equal(bias, tower["conv_stem.conv.bias"].astype(ml_dtypes.bfloat16).astype(np.float32))
    assert trained.variables["batch_stats"] == {}


def test_one_file_is_read_in_part_too(gemma, narrow, tmp_path, monkeypatch):
    index, tower = gemma
    arrays = {TOWER + name: array for name, array in tower.items()} | {"lm_head.weight": np.zeros((4, 4), np.float32)}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((index.parent / "config.json").read_bytes())
    read = []
    whole = reader.read
    monkeypatch.setattr(reader, "read", lambda path, select: read.append(whole(path, select)) or read[-1])
    assert load_pretrained(tmp_path).config.model.name == "v5_base"
    assert set(read[0]) == {TOWER + name for name in tower}


def test_a_network_for_fine_tuning_starts_from_the_tower(gemma, narrow):
    trained = load_pretrained(gemma[0])
    config = trained.config.copy_and_resolve_references()
    model = build_model(config, type(trained.info).made_up(3))
    assert {variable.path[0] for variable in model.list_variables()} - set(trained.variables["params"]) == {
        "classifier"
    }
    assert pathlib.Path(trained.path) == gemma[0]
