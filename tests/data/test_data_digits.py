"""The digits: all of them, split for ever, written once even by several processes."""

import subprocess
import sys

import numpy as np
import pytest
from sample_sets import config, evaluate, joined, opened
from sklearn.datasets import load_digits

from mnet_jax.data import decode, digits, order


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return config(
        name="digits",
        data_dir=str(tmp_path_factory.mktemp("digits")),
        image_size=32,
        flip=False,
        crop="center",
        eval_crop=1.0,
    )


def test_description(data):
    info = opened(data).info
    assert (info.num_train, info.num_eval, info.num_classes) == (1437, 360, 10)
    assert info.class_names == tuple("0123456789")
    assert (info.train_split, info.eval_split) == ("train", "test")


def test_split_is_stratified_and_fixed():
    labels = load_digits().target
    test = digits.is_test(labels)
    assert np.bincount(labels[test]).tolist() == [36] * 10
    rows = np.flatnonzero(test)
    assert rows[100:108].tolist() == [477, 483, 485, 492, 498, 499, 503, 509]
    assert rows.sum() == 314634


def test_splits_hold_the_digits_of_scikit_learn(data):
    raw = load_digits()
    wanted = np.round(raw.images * 255 / 16).astype(np.uint8)
    test = digits.is_test(raw.target)
    dataset = opened(data)
    for split, rows in (("test", test), ("train", ~test)):
        table = dataset.table(split)
        images = [decode.load_image(contents) for contents in table.contents.numpy()]
        assert all((image == image[..., :1]).all() for image in images)
        found = sorted(
            (image[..., 0].tobytes(), label)
            for image, label in zip(images, dataset.values("label", split), strict=True)
        )
        assert found == sorted(
            (image.tobytes(), label) for image, label in zip(wanted[rows], raw.target[rows], strict=True)
        )


def test_enlarged_digits_keep_their_shape(data):
    small = np.stack([decode.load_image(contents) for contents in opened(data).table("test").contents.numpy()])
    large = joined(evaluate(data, 360), "image").astype(float)
    means = large.reshape(360, 8, 4, 8, 4, 3).mean((2, 4))
    correlation = np.corrcoef(means.ravel(), small.ravel())[0, 1]
    assert correlation > 0.95


SCRIPT = """
import sys
from mnet_jax import schema
from mnet_jax.data import pipeline
from mnet_jax.data.annotations import Label
from mnet_jax.data.dataset import Dataset
data = schema.get_config().data
data.name, data.data_dir = "digits", sys.argv[1]
batches = pipeline.train_batches(Dataset.open(data, {"label": Label()}), batch_size=4, seed=0, start_step=0)
print(next(batches)["index"].tolist())
"""


def test_two_processes_at_once(tmp_path):
    """Both write the set, read it, and end in the middle of the stream, saying nothing but what they are to say."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.strip() == str(order.permutation(0, 0, 1437)[:4].tolist())
        assert not err
    assert [path.name for path in (tmp_path / "digits").iterdir()] == [digits.VERSION]  # nothing half-written is left
    assert opened(config(name="digits", data_dir=str(tmp_path))).info.num_train == 1437


def test_unwritable_directory_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"cannot write the digits to .*: set data.data_dir"):
        digits.prepare(str(tmp_path / "file"))


def test_bucket_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert digits.prepare("gs://bucket/sets").startswith(str(tmp_path / ".cache" / "mnet_jax"))
