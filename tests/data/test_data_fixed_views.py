"""Fixed views: the evaluation's crop, its mirror image, and training crops that stay whatever comes beside them."""

import hashlib

import numpy as np
import pytest
from sample_sets import config, encode, evaluate, joined, numbered, opened, picture, write_set

from mnet_jax.data import fixed_views


def look(data, split, indices, num_views=4, seed=0):
    batches = list(
        fixed_views.view_batches(
            opened(data), split=split, indices=indices, num_views=num_views, seed=seed, batch_size=4
        )
    )
    assert {batch["image"].shape[0] for batch in batches} == {4}
    real = joined(batches, "mask") > 0
    assert joined(batches, "index")[real].tolist() == list(indices)
    return joined(batches, "image")[real]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("views") / "photos"
    for i in range(12):
        path = root / f"class{i % 2}" / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(40, 50, seed=i), "JPEG"))
    return root


def test_views_of_a_folder(photos):
    data = config(name="folder", folder=str(photos), eval_crop=0.8)
    dataset = opened(data)
    info = dataset.info
    images = look(data, "train", range(info.num_train))
    assert dataset.values("label", "train").tolist() == [file.label for file in dataset.listing.splits["train"]]
    assert dataset.values("label", "train").dtype == np.int32
    np.testing.assert_array_equal(images[:, 1], images[:, 0, :, ::-1])
    assert len({view.tobytes() for view in images.reshape(-1, 32, 32, 3)}) == images.shape[0] * 4
    held_out = look(data, info.eval_split, range(info.num_eval), num_views=1)
    np.testing.assert_array_equal(held_out[:, 0], joined(evaluate(data, 4), "image")[: info.num_eval])

    # the same whichever images are asked for, in whichever order; others with another seed
    some = look(data, "train", [5, 0])
    np.testing.assert_array_equal(some, images[[5, 0]])
    other = look(data, "train", [0], seed=1)
    np.testing.assert_array_equal(other[0, :2], images[0, :2])
    assert (other[0, 2:] != images[0, 2:]).any()
    [thumbnail] = fixed_views.pictures(dataset, "train", [3])
    np.testing.assert_array_equal(thumbnail, images[3, 0])


def test_an_image_keeps_its_views_when_others_come(photos):
    data = config(name="folder", folder=str(photos), flip=False)
    digests = opened(data).digests("train")
    before = dict(zip(digests, look(data, "train", range(len(digests))), strict=True))
    for i in range(100, 106):
        (photos / "class0" / f"00{i}.jpg").write_bytes(encode(picture(40, 50, seed=i), "JPEG"))
    digests = opened(data).digests("train")
    after = dict(zip(digests, look(data, "train", range(len(digests))), strict=True))
    assert len(after) > len(before)
    assert all((after[digest] == image).all() for digest, image in before.items())


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_views_of_a_tfds_set(tmp_path, file_format):
    write_set(tmp_path, "plain", {"train": numbered(7), "test": numbered(3)}, file_format=file_format)
    data = config(name="plain", data_dir=str(tmp_path))
    known = {hashlib.blake2b(contents, digest_size=16).hexdigest(): label for contents, label in numbered(7)()}
    order = [known[digest] for digest in opened(data).digests("train")]  # TFDS shuffles
    assert sorted(order) == list(range(7))
    assert opened(data).values("label", "train").tolist() == order
    images = look(data, "train", [6, 2], num_views=3)
    assert images.shape == (2, 3, 32, 32, 3)
    assert opened(data).file_names("train") is None
    if file_format == "tfrecord":
        data.cache_mb = 0
        with pytest.raises(ValueError, match="more than data.cache_mb=0"):
            opened(data).values("label", "train")
