"""curves.png for runs of many shapes. That a picture looks right is for eyes; here: it is drawn, and of what."""

import json

import numpy as np
import pytest
from matplotlib import image

from mnet_jax.tasks.classification.task import Classification
from mnet_jax.training.reporting import curves

TASK = Classification(num_classes=10, mean=(127.5,) * 3, std=(127.5,) * 3)
TOP1 = TASK.metrics[0]


def write_rows(path, *, steps, steps_per_epoch, log_every, eval_every, loss=lambda share: 2.3 * np.exp(-4 * share)):
    """A run's metrics.jsonl with smooth curves."""
    with path.open("w") as file:
        for step in range(1, steps + 1):
            share = step / steps
            common = {"step": step, "epoch": step / steps_per_epoch, "time": 1.8e9 + step, "elapsed": step}
            if log_every and step % log_every == 0:
                row = {"kind": "train", **common, "loss": loss(share), "top1": 0.9 * share, "learning_rate": 1 - share}
                file.write(json.dumps(row | {"images_per_second": 900.0}) + "\n")
            if eval_every and step % eval_every == 0:
                row = {"kind": "eval", **common, "loss": 2.0 - share, "top1": 0.95 * share, "top5": share}
                file.write(json.dumps(row) + "\n")


def panels(picture):
    """The four panels of a picture [H, W, 4], without their outer labels."""
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    return {
        "loss": picture[30:height, :width],
        "accuracy": picture[30:height, width:],
        "rate": picture[height:, :width],
        "speed": picture[height:, width:],
    }


def has_color(panel, color):
    """Whether a fair number of pixels are of `color` (hex)."""
    wanted = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return (np.abs(panel[..., :3] - wanted).max(-1) < 0.03).sum() > 10


def draw(tmp_path):
    curves.draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", TASK, TOP1)
    picture = image.imread(tmp_path / "curves.png")
    assert picture.shape[:2] == (720, 1080)
    assert not list(tmp_path.glob("*.part"))
    return panels(picture)


@pytest.mark.parametrize(
    ("steps", "steps_per_epoch", "log_every", "eval_every"),
    [(36, 12, 5, 12), (360, 12, 10, 12), (30_000, 100, 50, 100), (10, 10, 10, 10)],
    ids=["3 epochs", "30 epochs", "300 epochs", "one point"],
)
def test_every_curve_is_in_its_panel(tmp_path, steps, steps_per_epoch, log_every, eval_every):
    write_rows(
        tmp_path / "metrics.jsonl",
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        log_every=log_every,
        eval_every=eval_every,
    )
    panel = draw(tmp_path)
    for name in ("loss", "accuracy", "rate", "speed"):
        assert has_color(panel[name], curves.TRAINING)
        assert has_color(panel[name], curves.EVALUATION) == (name in ("loss", "accuracy"))


def test_only_training_only_evaluation_and_nothing(tmp_path):
    write_rows(tmp_path / "metrics.jsonl", steps=100, steps_per_epoch=10, log_every=10, eval_every=None)
    assert not has_color(draw(tmp_path)["accuracy"], curves.EVALUATION)
    write_rows(tmp_path / "metrics.jsonl", steps=100, steps_per_epoch=10, log_every=None, eval_every=10)
    panel = draw(tmp_path)
    assert has_color(panel["loss"], curves.EVALUATION)
    assert not has_color(panel["rate"], curves.TRAINING)
    (tmp_path / "metrics.jsonl").write_text("")
    assert not has_color(draw(tmp_path)["loss"], curves.TRAINING)
    (tmp_path / "metrics.jsonl").unlink()
    assert not has_color(draw(tmp_path)["loss"], curves.TRAINING)


def test_a_loss_that_left_the_rails_is_a_gap_and_not_an_error(tmp_path):
    def loss(share):
        return None if share > 0.7 else 2.0 if share < 0.6 else 10.0 ** (100 * (share - 0.55))

    write_rows(tmp_path / "metrics.jsonl", steps=600, steps_per_epoch=10, log_every=2, eval_every=50, loss=loss)
    assert has_color(draw(tmp_path)["loss"], curves.TRAINING)


def test_title_tells_the_last_and_the_best(tmp_path):
    rows = [
        {"step": 10, "epoch": 1.0, "top1": 0.93, "loss": 0.1},
        {"step": 20, "epoch": 2.0, "top1": 0.92, "loss": 0.2},
    ]
    assert (
        curves.title_line("run", rows, "epoch", TOP1, TOP1) == "run: top-1 92.00 % at epoch 2, best 93.00 % at epoch 1"
    )
    assert curves.title_line("run", rows[:1], "epoch", TOP1, TOP1) == "run: top-1 93.00 % at epoch 1"
    assert curves.title_line("run", [{"step": 1, "epoch": 0.1, "top1": None}], "step", TOP1, TOP1) == "run"


def test_running_mean():
    values = np.array([1.0, 2.0, np.nan, 4.0, 6.0, 8.0])
    # windows of 3; at the start no further ahead than back
    np.testing.assert_allclose(curves.running_mean(values, 3), [1.0, 1.5, np.nan, 5.0, 6.0, 7.0])
