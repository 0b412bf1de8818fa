"""The confusion matrix and the sheet of mistakes: sizes, and names that could break them."""

import io

import numpy as np
import pytest
from PIL import Image

from mnet_jax.plotting import shortened
from mnet_jax.tasks.classification.confusion import draw_confusion
from mnet_jax.tasks.classification.mistakes import Mistake, draw_mistakes

NAMES = ("$cash", "price $5 or 6$", "猫", "a very long name of a class that goes on", "_under_", "b\\alpha")


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_confusion_grows_with_its_classes_and_shows_right_blue_and_wrong_orange():
    small = pixels(draw_confusion(np.array([[3, 1], [0, 4]]), ("ants", "bees"), title="run"))
    large = pixels(draw_confusion(np.eye(60, dtype=int), tuple(f"class {i}" for i in range(60)), title="run"))
    assert min(large.shape[:2]) > 1.5 * max(small.shape[:2])
    assert (small == (0, 0x72, 0xB2)).all(-1).mean() > 0.05  # bees: all right, the darkest blue
    red, _, blue = small.astype(int).transpose(2, 0, 1)
    assert (red > blue + 20).mean() > 0.05  # a quarter of the ants


def test_any_name_can_be_drawn():
    draw_confusion(np.eye(6, dtype=int), NAMES, title="run $1")
    picture = np.zeros((20, 30, 3), np.uint8)
    mistakes = [Mistake(picture, name, name[::-1], 0.5, f"photos/{name}/$x$.jpg") for name in NAMES]
    sheet = pixels(draw_mistakes([*mistakes, mistakes[0]], num_wrong=9, num_images=20, title="run"))
    assert (sheet == 0).all(-1).sum() > 7 * 50 * 80  # seven black pictures


def test_no_mistakes_is_said():
    assert (pixels(draw_mistakes([], num_wrong=0, num_images=5, title="run")) < 255).any()


@pytest.mark.parametrize(("text", "short"), [("ants", "ants"), ("abcdefghijkl", "abcdef…jkl")])
def test_long_names_keep_both_ends(text, short):
    assert shortened(text, 10) == short
