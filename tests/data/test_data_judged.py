"""A folder that a model is judged on: every photo, classes by their names, whatever splits there are."""

import numpy as np
import pytest
from sample_sets import config, encode, joined

from mnet_jax.data import class_names, pipeline
from mnet_jax.data.annotations import Label
from mnet_jax.data.dataset import Dataset


def fill(root, names, start=0):
    """Writes a photo of one shade of grey under each name, each another; returns the next shade."""
    for value, name in enumerate(names, start):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode(np.full((4, 4, 3), value, np.uint8), "PNG"))
    return start + len(names)


def judged(root, known=("ants", "bees", "wasps"), **fields):
    return Dataset.open(config(name="folder", folder=str(root), **fields), {"label": Label()}, known)


def test_every_photo_of_a_folder_of_classes_by_the_names_of_its_classes(tmp_path):
    ants = fill(tmp_path, [f"ants/{i}.png" for i in range(21)])
    fill(tmp_path, [f"Bees/in/{i}.png" for i in range(19)], ants)  # a capital sorts before "ants"
    dataset = judged(tmp_path)
    info = dataset.info
    assert (info.class_names, info.num_eval, info.eval_split) == (("ants", "bees", "wasps"), 40, "all")
    batches = list(pipeline.eval_batches(dataset, batch_size=8))
    shades, labels = joined(batches, "image")[:, 0, 0, 0], joined(batches, "label")
    assert sorted(shades.tolist()) == list(range(40))
    np.testing.assert_array_equal(labels, shades >= ants)
    assert dataset.complaint() == (
        f"{tmp_path}: classes are compared by name: 'Bees' is 'bees'; no photos of 1 of the model's 3 classes: wasps"
    )


def test_splits_alone_and_together(tmp_path):
    start = fill(tmp_path, ["val/bees/1.png", "val/bees/2.png"])
    info = judged(tmp_path).info  # a split alone, and one class of it
    assert (info.eval_split, info.num_eval) == ("val", 2)
    fill(tmp_path, ["train/ants/1.png", "train/bees/2.png", "train/ants/3.png"], start)
    assert (judged(tmp_path).info.eval_split, judged(tmp_path).info.num_eval) == ("val", 2)
    assert judged(tmp_path, eval_split="train").info.num_eval == 3
    assert judged(tmp_path, eval_split="train+val").info.num_eval == 5
    with pytest.raises(ValueError, match=r"no split 'validation': there are val \(2\), train \(3\)"):
        judged(tmp_path, eval_split="validation")


def test_a_class_that_the_model_does_not_know_is_refused_in_one_line(tmp_path):
    fill(tmp_path, ["ants/1.png", "cats/2.png"])
    with pytest.raises(
        ValueError, match=r"has a class that the model does not know: cats; it knows 3: ants, bees"
    ) as e:
        judged(tmp_path)
    assert "\n" not in str(e.value)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"has no images in folders of classes: .*none/ants, for example, expected"):
        judged(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "known", "place"),
    [
        ("n01440764", ("goldfish", "tench"), 1),
        ("tench", ("n01443537", "n01440764"), 1),
        ("tench, Tinca tinca", ("goldfish", "tench"), 1),
        ("n01484850_great_white_shark", ("tench", "great white shark"), 1),
        ("Great_White-Shark", ("tench", "great white shark"), 1),
        ("b", ("B", "b"), 1),  # the very name comes first
        ("B ", ("b", "B"), None),  # may be either
        ("shark", ("tench", "great white shark"), None),
        ("n99999999", ("tench", "great white shark"), None),
    ],
)
def test_a_class_under_another_name(name, known, place):
    assert class_names.places([name], known) == ({} if place is None else {name: place})
