"""Data sets with damaged files, records, images and labels: one line that names them, in training and evaluation."""

import shutil

import numpy as np
import pytest
from record_faults import FILES, GARBAGE, change, evaluate, file_of, opened, train

from mnet_jax.data import digits, pipeline

STREAMED = pytest.mark.parametrize(
    "cache_mb", [pytest.param(1024, id="in memory"), pytest.param(0, id="streamed", marks=pytest.mark.long)]
)


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
