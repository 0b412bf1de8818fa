"""Batches: every example once, the same stream every time, resume at any step; however a set is stored and read."""

import itertools

import numpy as np
import pytest
from sample_sets import assert_equal, config, evaluate, in_order, joined, numbered, opened, train, write_set

from mnet_jax.data import pipeline

TRAIN, TEST = 50, 23
# How a set is read: from memory; streamed with a buffer for all of it, or a part; from ArrayRecord; file by file.
WAYS = ["memory", "streamed", "small_buffer", "array_record", "folder"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    splits = {"train": numbered(TRAIN), "test": numbered(TEST, first=1000)}
    write_set(root, "plain", splits, num_shards=3)
    write_set(root, "random_access", splits, file_format="array_record")
    for split, examples in splits.items():
        for i, (image, label) in enumerate(examples()):
            folder = root / "photos" / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i:03}.jpg").write_bytes(image)
    return root


@pytest.fixture(params=WAYS)
def data(request, sets):
    return {
        "memory": config(name="plain", data_dir=str(sets)),
        "streamed": config(name="plain", data_dir=str(sets), cache_mb=0),
        "small_buffer": config(name="plain", data_dir=str(sets), cache_mb=0, shuffle_buffer=5),
        "array_record": config(name="random_access", data_dir=str(sets)),
        "folder": config(name="folder", folder=str(sets / "photos")),
    }[request.param]


def test_batch_is_as_promised(data):
    data.image_size = (32, 40)
    for batch in (train(data, 4, 1)[0], evaluate(data, 4)[0]):
        shapes = {key: (value.shape, value.dtype.name) for key, value in batch.items()}
        assert shapes == {
            "image": ((4, 32, 40, 3), "uint8"),
            "label": ((4,), "int32"),
            "mask": ((4,), "float32"),
            "index": ((4,), "int64"),
        }
    for fields in (opened(data).batch_spec(train=True), opened(data).batch_spec(train=False)):
        assert {name: ((4, *shape), str(dtype)) for name, (shape, dtype) in fields.items()} == {
            **shapes,
            "index": ((4,), "int32"),
        }


def test_train_has_every_example_once_an_epoch_and_repeats_itself(data):
    batches = train(data, 16, 10)
    index, label = joined(batches, "index"), joined(batches, "label")
    orders = [index[e * TRAIN : (e + 1) * TRAIN] for e in range(3)]
    for order in orders:
        assert sorted(order) == list(range(TRAIN))
    assert len({tuple(order) for order in orders}) == 3
    by_index = dict(zip(index, label, strict=True))
    assert all(by_index[i] == one for i, one in zip(index, label, strict=True))
    assert (joined(batches, "mask") == 1).all()

    assert_equal(train(data, 16, 10), batches)
    other = train(data, 16, 3, seed=1)
    assert (joined(other, "index") != index[:48]).any()


def test_resumed_stream_is_the_rest_bit_for_bit(data):
    whole = train(data, 16, 13)
    for start in (1, 3, 10):  # an epoch is 3.125 batches
        assert_equal(train(data, 16, 3, start_step=start), whole[start : start + 3])


def test_processes_share_an_epoch(data):
    parts = [joined(train(data, 5, 5, process_index=p, process_count=2), "index") for p in range(2)]
    assert sorted(np.concatenate(parts)) == list(range(TRAIN))  # 2 processes x 5 batches x 5 images: one epoch


@pytest.mark.parametrize(("processes", "batch_size"), [(1, 4), (3, 4), (2, 50)])
def test_evaluation_counts_every_example_once(data, processes, batch_size):
    parts = [evaluate(data, batch_size, process_index=p, process_count=processes) for p in range(processes)]
    assert len({len(part) for part in parts}) == 1
    batches = list(itertools.chain(*parts))
    assert all(len(batch["label"]) == batch_size for batch in batches)
    mask, index = joined(batches, "mask"), joined(batches, "index")
    assert mask.sum() == TEST
    assert sorted(index[mask == 1]) == list(range(TEST))
    assert (index[mask == 0] == -1).all()
    for key in ("image", "label"):
        assert not joined(batches, key)[mask == 0].any()


def test_evaluation_of_10_images_on_2_processes_in_batches_of_4(sets):
    data = config(name="plain", data_dir=str(sets), eval_split="test[:10]")
    masks = [[b["mask"].sum() for b in evaluate(data, 4, process_index=p, process_count=2)] for p in range(2)]
    assert masks == [[4, 1], [4, 1]]


def test_evaluation_with_more_processes_than_images(sets):
    data = config(name="plain", data_dir=str(sets), eval_split="test[:2]")
    counts = [[b["mask"].sum() for b in evaluate(data, 4, process_index=p, process_count=3)] for p in range(3)]
    assert sorted(counts) == [[0], [1], [1]]


def test_evaluation_of_another_split(sets):
    data = config(name="plain", data_dir=str(sets))
    assert joined(evaluate(data, 16, split="train"), "mask").sum() == TRAIN


def test_pixels_do_not_depend_on_the_way(sets):
    for fields in ({"cache_mb": 1024}, {"cache_mb": 0}):
        data = config(name="plain", data_dir=str(sets), crop="center", flip=False, **fields)
        trained = in_order(train(data, TRAIN, 1))
        evaluated = in_order(evaluate(data, 8, split="train"))
        for key in trained:
            np.testing.assert_array_equal(trained[key], evaluated[key])
    # ArrayRecord has the same examples in another order
    ways = [evaluate(config(name=name, data_dir=str(sets)), 8) for name in ("plain", "random_access")]
    images = [sorted(image.tobytes() for image in in_order(batches)["image"]) for batches in ways]
    assert images[0] == images[1]


def test_step_in_memory_does_not_depend_on_the_number_of_processes(sets):
    data = config(name="plain", data_dir=str(sets))
    alone = train(data, 12, 5)
    parts = [train(data, 4, 5, process_index=p, process_count=3) for p in range(3)]
    for step in range(5):
        for key in alone[step]:
            np.testing.assert_array_equal(np.concatenate([part[step][key] for part in parts]), alone[step][key])


def test_crops_differ_between_epochs_and_not_with_the_place_in_the_batch(sets):
    data = config(name="plain", data_dir=str(sets), train_split="train[:1]")
    images = joined(train(data, 4, 2), "image")
    assert len({image.tobytes() for image in images}) > 5  # eight epochs of one image
    np.testing.assert_array_equal(joined(train(data, 1, 8), "image"), images)


def test_slices(sets):
    data = config(name="plain", data_dir=str(sets), train_split="train[10:20]", eval_split="train[20:]+test[:3]")
    info = opened(data).info
    assert (info.num_train, info.num_eval) == (10, 33)
    for cache_mb in (0, 1024):
        data.cache_mb = cache_mb
        assert sorted(joined(train(data, 5, 2), "index")) == list(range(10))
    part = in_order(evaluate(data, 8))
    assert part["index"].tolist() == list(range(33))
    whole = in_order(evaluate(data, 8, split="train"))
    np.testing.assert_array_equal(part["image"][:30], whole["image"][20:])


def test_batches_keep_their_values(sets):
    data = config(name="plain", data_dir=str(sets))
    batches = pipeline.train_batches(opened(data), batch_size=8, seed=0, start_step=0)
    first = next(batches)
    copies = {key: value.copy() for key, value in first.items()}
    for _ in range(20):
        next(batches)
    batches.close()
    for key, value in copies.items():
        np.testing.assert_array_equal(first[key], value)


def test_unreadable_example_is_one_clear_line(tmp_path):
    write_set(tmp_path, "broken", {"train": lambda: [(b"no image", 0)], "test": numbered(2)})
    with pytest.raises(ValueError, match="example 0 of broken 'train' .* cannot be decoded"):
        train(config(name="broken", data_dir=str(tmp_path)), 1, 1)
