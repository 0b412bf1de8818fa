"""Data sets with damaged files, records, images and labels: one line that names them, in training and evaluation."""

import pathlib
import shutil

import numpy as np
import pytest
from sample_sets import encode

from mnet_jax.config import load as load_config
from mnet_jax.data import digits, pipeline
from mnet_jax.data.annotations import Label
from mnet_jax.data.dataset import Dataset
from mnet_jax.data.tensorflow_setup import tf

STREAMED = pytest.mark.parametrize("cache_mb", [1024, 0], ids=["in memory", "streamed"])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    digits.prepare(str(place))
    return place


@pytest.fixture
def place(prepared, tmp_path):
    """A copy of the digits, to be damaged."""
    shutil.copytree(prepared, tmp_path / "data")
    return tmp_path / "data"


def file_of(place, split):
    (path,) = pathlib.Path(place).rglob(f"digits-{split}.tfrecord*")
    return path


def records(path):
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path))]


def write(path, contents):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in contents:
            writer.write(record)


def change(path, numbers, **features):
    """Writes other values into some records: image=bytes, label=int; None removes the feature."""
    found = records(path)
    for number in numbers:
        example = tf.train.Example.FromString(found[number])
        for name, value in features.items():
            del example.features.feature[name]
            if isinstance(value, bytes):
                example.features.feature[name].bytes_list.value.append(value)
            elif value is not None:
                example.features.feature[name].int64_list.value.append(value)
        found[number] = example.SerializeToString()
    write(path, found)


def opened(place, cache_mb=1024, **fields):
    config = load_config("digits")
    config.data.data_dir, config.data.cache_mb = str(place), cache_mb
    config.data.update(fields)
    return Dataset.open(config.data, {"label": Label()})


def train(dataset, steps=45, batch_size=32):
    """The batches of an epoch."""
    batches = pipeline.train_batches(dataset, batch_size=batch_size, seed=3, start_step=0)
    return [next(batches) for _ in range(steps)]


def evaluate(dataset):
    return list(pipeline.eval_batches(dataset, batch_size=64))


def cut(path):
    write(path, records(path)[:-100])


def empty(path):
    path.write_bytes(b"")


def cut_inside_a_record(path):
    path.write_bytes(path.read_bytes()[:-40])


def flip(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 4
    path.write_bytes(contents)


def without_label(path):
    change(path, [7], label=None)


FILES = {
    "cut at a record's border": (cut, r" is cut short: it has [\d,]+ records of [\d,]+\."),
    "emptied": (empty, r" is cut short: it has 0 records of [\d,]+\."),
    "removed": (pathlib.Path.unlink, r" is missing\."),
    "cut inside a record": (cut_inside_a_record, r" is damaged after record [\d]+ \(truncated record"),
    "one bit flipped": (flip, r" is damaged after record [\d]+ \(corrupted record"),
    "a record without its label": (without_label, r": record 7 lacks 'label'\."),
}


@STREAMED
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_training_is_named(place, name, cache_mb):
    damage, said = FILES[name]
    path = file_of(place, "train")
    damage(path)
    with pytest.raises(ValueError, match=rf"(^|: ){path}{said}") as error:
        train(opened(place, cache_mb))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_an_evaluation_is_named(place, name):
    damage, said = FILES[name]
    path = file_of(place, "test")
    damage(path)
    with pytest.raises(ValueError, match=rf": {path}{said}"):
        evaluate(opened(place))


@STREAMED
@pytest.mark.parametrize("label", [77, -5])
def test_a_class_that_the_set_has_not_is_refused(place, label, cache_mb):
    change(file_of(place, "train"), [20], label=label)
    with pytest.raises(
        ValueError,
        match=rf"^example 20 of digits 'train' \(record 20 of .*\) has the class {label}, and .* 0 to 9: mend",
    ):
        train(opened(place, cache_mb))
    change(file_of(place, "test"), [3], label=label)
    with pytest.raises(ValueError, match=rf"^example 3 of digits 'test' \(.*\) has the class {label}, "):
        evaluate(opened(place))


GARBAGE = {
    "no image": b"these bytes are no image at all",
    "empty": b"",
    "a JPEG without its header": encode(np.zeros((8, 8, 3), np.uint8), "JPEG")[:3] + bytes(200),
    "half a PNG": encode(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), "PNG")[:3000],
}


@STREAMED
@pytest.mark.parametrize("name", GARBAGE)
def test_an_image_that_cannot_be_decoded_is_replaced_and_named_once(place, name, cache_mb, capfd):
    whole = train(opened(place, cache_mb), 90)
    change(file_of(place, "train"), [11, 400], image=GARBAGE[name])
    found = train(opened(place, cache_mb), 90)  # two epochs: each is met twice
    said = capfd.readouterr().err
    for index in (11, 400):
        assert said.count(f"warning: example {index} of digits 'train' (record {index} of ") == 1
    assert "Traceback" not in said
    replaced = 0
    for left, right in zip(whole, found, strict=True):
        for row in range(32):
            if left["index"][row] in (11, 400):
                replaced += 1
                other = (row + 1) % 32  # the next one in the batch
                assert right["index"][row] == left["index"][other]
                np.testing.assert_array_equal(right["image"][row], left["image"][other])
                assert right["label"][row] == left["label"][other]
            else:
                assert right["index"][row] == left["index"][row]
                np.testing.assert_array_equal(right["image"][row], left["image"][row])
    assert replaced in (3, 4)  # 90 steps are two epochs and two thirds of a batch


def test_resumed_behind_it_the_batches_are_the_same(place):
    change(file_of(place, "train"), [11, 400], image=b"none")
    whole = train(opened(place), 45)
    batches = pipeline.train_batches(opened(place), batch_size=32, seed=3, start_step=40)
    for left in whole[40:]:
        right = next(batches)
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])


def test_too_many_of_them_end_the_run(place):
    change(file_of(place, "train"), range(50, 55), image=b"none")
    with pytest.raises(
        ValueError, match=r"^example 5\d of digits 'train' .* nor can [2-4] others, .*max_unreadable=2: mend"
    ):
        train(opened(place, max_unreadable=2))
    with pytest.raises(ValueError, match=r"cannot be decoded, nor can 0 others, more than data.max_unreadable=0"):
        train(opened(place, max_unreadable=0))


def test_an_evaluation_does_not_leave_one_out(place):
    change(file_of(place, "test"), [100], image=b"none")
    with pytest.raises(
        ValueError,
        match=r"^example 100 of digits 'test' \(record 100 of \S+\) cannot be decoded, and an evaluation counts",
    ):
        evaluate(opened(place))
