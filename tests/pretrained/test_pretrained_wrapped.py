"""Weights as people have them: in what trainers save, with preprocessing of their own, and in files that lie."""

import argparse
import collections
import io
import json
import pathlib
import resource
import zipfile

import files
import h5py
import numpy as np
import pytest

from mnet_jax.pretrained.layouts import TORCHVISION
from mnet_jax.pretrained.load import load_pretrained
from mnet_jax.tasks.task import normalise
from mnet_jax.trained import build_model


@pytest.fixture(scope="module")
def arrays():
    return files.library_arrays(TORCHVISION, "v2", 0.35)


@pytest.fixture(scope="module")
def plain(arrays, tmp_path_factory):
    return load_pretrained(files.save_torch(tmp_path_factory.mktemp("plain") / "m.pth", arrays)).variables


def same(left, right):
    left, right = (dict(_flat(tree)) for tree in (left, right))
    assert left.keys() == right.keys()
    return all(np.array_equal(left[name], right[name]) for name in left)


def _flat(tree, path=()):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, (*path, name))
        else:
            yield (*path, name), value


def prefixed(prefix):
    return lambda arrays: {prefix + name: array for name, array in arrays.items()}


def in_the_middle(arrays):
    return {"model." + name.replace("features.0.", "features.0._orig_mod."): array for name, array in arrays.items()}


class AttributeDict(dict):
    """Lightning's: a dict by another name."""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("names", "wrap"),
    [
        (prefixed("module."), None),
        (prefixed("_orig_mod."), None),
        (prefixed("module._orig_mod."), None),
        (prefixed("model."), lambda state: {"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.5.0",
                                            "hparams_name": None, "callbacks": {"a": {"b": [1.5, None]}}}),
        (in_the_middle, lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}}),
        (prefixed("net.backbone."), lambda state: {"net": state}),
        (prefixed(""), lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, data=pathlib.Path("/data"))}),
        (prefixed(""), lambda state: {"state_dict": state, "arch": "x", "best": np.float64(0.75),
                                      "seen": collections.defaultdict(list), "log": np.arange(3), "s": {1, 2}}),
    ],
)  # fmt: skip
def test_what_trainers_save_gives_the_weights(arrays, plain, tmp_path, names, wrap, stream):
    path = files.save_torch(tmp_path / "m.ckpt", names(arrays), stream=stream, wrap=wrap)
    assert same(load_pretrained(path).variables, plain)


@pytest.mark.parametrize(
    ("names", "wrap"),
    [
        (lambda raw, ema: ({f"raw.{n}": a for n, a in raw.items()} | {f"ema.{n}": a for n, a in ema.items()}),
         lambda state: {key: collections.OrderedDict((n.partition(".")[2], t) for n, t in state.items()
                                                     if n.startswith(start))
                        for key, start in (("state_dict", "raw."), ("state_dict_ema", "ema."))}),
        (lambda raw, ema: ({f"raw.{n}": a for n, a in raw.items()} | {f"ema.module.{n}": a for n, a in ema.items()}),
         lambda state: {key: collections.OrderedDict((n.partition(".")[2], t) for n, t in state.items()
                                                     if n.startswith(start))
                        for key, start in (("model", "raw."), ("model_ema", "ema."))}),
        (lambda raw, ema: ({f"model.{n}": a for n, a in raw.items()} | {f"ema_model.{n}": a for n, a in ema.items()}),
         lambda state: {"state_dict": state}),
    ],
)  # fmt: skip
def test_averaged_weights_are_taken_unless_the_raw_ones_are_wanted(arrays, plain, tmp_path, names, wrap):
    averaged = {name: array + 1 for name, array in arrays.items()}
    path = files.save_torch(tmp_path / "model_best.pth.tar", names(arrays, averaged), wrap=wrap)
    said = []
    assert not same(load_pretrained(path, log=said.append).variables, plain)
    assert len(said) == 1
    assert "ema" in said[0]
    assert same(load_pretrained(path, ema=False).variables, plain)


def refused(path):
    with pytest.raises(ValueError, match=r".") as caught:
        load_pretrained(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_networks_without_a_word_are_refused(arrays, tmp_path):
    both = prefixed("student.")(arrays) | prefixed("teacher.")(arrays)
    assert "holds 2 networks" in refused(files.save_torch(tmp_path / "m.pth", both))


# --- Keras ---


def keras_model(first, last, tmp_path, suffix):
    """A network of Keras applications between layers of somebody's own, saved, and its answer to some pixels."""
    import keras

    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3)).astype(np.float32)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((96, 96, 3))
    x = inputs
    for layer in first(keras):
        x = layer(x)
    net = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, include_top=False, weights=None, pooling="avg")
    outputs = last(keras)(net(x))
    model = keras.Model(inputs, outputs)
    path = tmp_path / f"m{suffix}"
    model.save(path)
    return path, pixels, np.asarray(model(pixels, training=False))


def normalization(keras):
    layer = keras.layers.Normalization()
    layer.adapt(np.random.default_rng(1).uniform(0, 200, (4, 8, 8, 3)))
    return [layer]


CASES = {
    "unit": (lambda keras: [keras.layers.Rescaling(1 / 255)], ".keras"),
    "both": (lambda keras: [keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 127.5, offset=-1)], ".h5"),
    "operators": (lambda keras: [lambda x: x / 127.5, lambda x: x - 1.0], ".keras"),
    "adapted": (normalization, ".keras"),
    "given": (lambda keras: [keras.layers.Normalization(mean=[9, 8, 7], variance=[400, 500, 600])], ".h5"),
}


KERAS_WARNS = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras with NumPy 2


@KERAS_WARNS
@pytest.mark.parametrize("case", CASES)
def test_preprocessing_inside_a_keras_file_is_taken_over(case, tmp_path):
    first, suffix = CASES[case]
    path, pixels, wanted = keras_model(first, lambda keras: keras.layers.Dense(4), tmp_path, suffix)
    assert np.abs(logits(path, pixels) - wanted).max() < 1e-4 * np.abs(wanted).max()


@KERAS_WARNS
def test_one_sigmoid_is_a_softmax_of_two_and_several_are_refused(tmp_path):
    def head(count):
        return lambda keras: keras.layers.Dense(count, activation="sigmoid")

    path, pixels, wanted = keras_model(CASES["unit"][0], head(1), tmp_path, ".keras")
    found = logits(path, pixels)
    assert found.shape == (2, 2)
    share = 1 / (1 + np.exp(found[:, :1] - found[:, 1:]))
    assert np.abs(share - wanted).max() < 1e-5
    path, *_ = keras_model(CASES["unit"][0], head(3), tmp_path, ".keras")
    assert "ends with sigmoid over 3 outputs" in refused(path)


@KERAS_WARNS
def test_code_before_a_keras_network_is_refused(tmp_path):
    path, *_ = keras_model(
        lambda keras: [keras.layers.Lambda(lambda x: x / 3)], lambda keras: keras.layers.Dense(4), tmp_path, ".keras"
    )
    assert "(Lambda) stands before the network" in refused(path)


def logits(path, pixels):
    trained = load_pretrained(path)
    inputs = normalise(pixels, trained.config.data.mean, trained.config.data.std)
    return np.asarray(build_model(trained.config, trained.info).apply(trained.variables, inputs))


# --- Files that lie about their size ---


def huge_h5(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.create_dataset("0", (2**20, 2**20), "f4", chunks=(1024, 1024))  # 4 TiB, none of it written


def zeros_keras(path):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("layers/conv2d/vars").create_dataset("0", data=np.zeros(2**25, "f4"), compression="gzip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": []}}))
        archive.writestr("model.weights.h5", buffer.getvalue())


def bomb_keras(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        with archive.open("model.weights.h5", "w") as part:
            for _ in range(128):
                part.write(bytes(2**20))


@pytest.mark.parametrize("write", [huge_h5, zeros_keras, bomb_keras])
def test_files_that_declare_more_than_they_hold(write, tmp_path):
    path = tmp_path / ("m.h5" if write is huge_h5 else "m.keras")
    write(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "MiB in a file of" in refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


def test_a_tensor_of_more_values_than_its_storage(arrays, tmp_path):
    many = dict(arrays)
    many["features.0.0.weight"] = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (10**6, 10**6), (0, 0))
    assert "more values than its storage" in refused(files.save_torch(tmp_path / "m.pth", many))
