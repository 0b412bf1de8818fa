"""The real ImageNet sample: names, counts, evaluation crops against Pillow."""

import io

import numpy as np
import pytest
from PIL import Image
from sample_sets import config, evaluate, in_order, joined, opened, train


@pytest.fixture(scope="module")
def data(imagenet_sample):
    return config(name="imagenet2012", data_dir=str(imagenet_sample), image_size=64)


def test_description(data):
    info = opened(data).info
    assert (info.num_train, info.num_eval, info.num_classes) == (1000, 300, 1000)
    assert (info.train_split, info.eval_split) == ("train", "validation")
    assert info.class_names[0] == "tench"
    assert info.class_names[999] == "toilet tissue"


def test_300_of_300_on_4_processes(data):
    batches = [evaluate(data, 16, process_index=p, process_count=4) for p in range(4)]
    assert {len(part) for part in batches} == {5}
    together = sum(batches, [])
    assert joined(together, "mask").sum() == 300
    assert sorted(joined(together, "index"))[-300:] == list(range(300))


def test_evaluation_as_pillow(data):
    """Decode, cut 0.875 of the short side out of the centre, resize: by Pillow, within two shades."""
    table = opened(data).table("train[:20]")
    ours = in_order(evaluate(data, 20, split="train[:20]"))["image"]
    for image, encoded in zip(ours, table.contents.numpy(), strict=True):
        original = Image.open(io.BytesIO(encoded)).convert("RGB")
        side = round(0.875 * min(original.size))
        left, top = (original.width - side + 1) // 2, (original.height - side + 1) // 2
        part = original.crop((left, top, left + side, top + side))
        reference = np.asarray(part.resize((64, 64), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(image.astype(int), reference.astype(int), atol=2)


def test_training_sees_every_image_once(data):
    for cache_mb in (1024, 0):
        data.cache_mb = cache_mb
        batches = train(data, 125, 8)
        assert sorted(joined(batches, "index")) == list(range(1000))
        assert sorted(joined(batches, "label")) == list(range(1000))  # the sample has one image a class
        assert joined(batches, "image").mean() == pytest.approx(115, abs=15)
