"""A task that the package does not know, through train.py's whole path: its files (toy_task/) are the only new ones.

Dict outputs, boxes in the batch, a metric from rows, its own loss divided by the boxes of the whole step.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mnet_jax.config import load as load_config
from mnet_jax.training import checkpoint, loop
from mnet_jax.training.initial import flat
from mnet_jax.training.reporting.run_files import read_rows

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).parent
NUM_TRAIN, NUM_TEST, NUM_STEPS = 48, 21, 24

CONFIG = """
from mnet_jax import schema


def get_config():
    config = schema.get_config()
    config.task.name = "toy_task"
    config.model.name, config.model.width = "v1", 0.25
    config.data.name, config.data.image_size, config.data.flip = "boxed", 32, True
    config.data.crop = "center"
    config.data.eval_crop = 1.0
    config.train.batch_size, config.train.num_steps, config.train.accumulate_steps = 8, NUM_STEPS, 2
    config.optimizer.name, config.schedule.lr_per_256, config.schedule.name = "adamw", 1.0, "constant"
    config.ema.decay = 0.9
    config.eval.batch_size, config.eval.every_steps, config.eval.report = 8, 6, True
    config.log.every_steps, config.checkpoint.every_steps = 2, 3
    return config
""".replace("NUM_STEPS", str(NUM_STEPS))

WRITE = """
import sys
import numpy as np
import mnet_jax.data.tensorflow_setup
import tensorflow_datasets as tfds


class Boxed(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = "boxed"
    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path, code_path = None, None

    def _info(self):
        objects = tfds.features.Sequence(
            {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=["box"])}
        )
        features = {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"), "objects": objects}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._examples(NUM_TRAIN, 0), "test": self._examples(NUM_TEST, 1)}

    def _examples(self, count, seed):
        rng = np.random.default_rng(seed)
        for key in range(count):
            image = np.full((40, 36, 3), 40, np.uint8)
            y, x = rng.integers(0, 24, 2)
            height, width = rng.integers(6, 12, 2)
            image[y : y + height, x : x + width] = 220
            box = tfds.features.BBox(y / 40, x / 36, (y + height) / 40, (x + width) / 36)
            yield key, {"image": image, "objects": [{"bbox": box, "label": 0}] if key else []}

    def _generate_examples(self):
        raise AssertionError


tfds.disable_progress_bar()
Boxed(data_dir=sys.argv[1]).download_and_prepare()
""".replace("NUM_TRAIN", str(NUM_TRAIN)).replace("NUM_TEST", str(NUM_TEST))


def environment(num_devices):
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices} --xla_backend_optimization_level=0",
    }


def command(place, name, *flags):
    config = place / "toy.py"
    line = [sys.executable, ROOT / "train.py", f"--config={config}", f"--workdir={name}"]
    return [*line, f"--config.data.data_dir={place / 'data'}", *flags]


def run(place, name, *flags, num_devices=2):
    return subprocess.run(
        command(place, name, *flags), env=environment(num_devices), capture_output=True, text=True, cwd=place,
        timeout=280,
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with the data set and the config."""
    place = tmp_path_factory.mktemp("toy")
    (place / "toy.py").write_text(CONFIG)
    writing = [sys.executable, "-c", WRITE, place / "data"]
    done = subprocess.run(writing, env=environment(1), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def whole(place):
    """The directory of a run on two devices, in two parts each, and what it said."""
    done = run(place, "whole")
    assert done.returncode == 0, done.stderr
    return place / "whole", done.stderr


def evaluations(workdir):
    return [row for row in read_rows(workdir / "metrics.jsonl") if row["kind"] == "eval"]


def test_it_learns_and_is_judged_by_its_own_metrics(whole):
    workdir, said = whole
    rows = evaluations(workdir)
    assert [row["step"] for row in rows] == [6, 12, 18, 24]
    assert {row["num_images"] for row in rows} == {NUM_TEST}
    assert {"near", "loss", "median_distance"} <= rows[0].keys()
    assert min(row["median_distance"] for row in rows) < 0.8 * rows[0]["median_distance"]
    train = [row for row in read_rows(workdir / "metrics.jsonl") if row["kind"] == "train"]
    assert {"near", "loss", "gradient_norm", "learning_rate"} <= train[0].keys()
    assert not {"top1", "top5", "accuracy"} & (train[0].keys() | rows[0].keys())
    assert re.search(r"eval +6/24 .* loss .*median distance +\d+\.\d{4}  near +[\d.]+ %  21 images", said), said
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_is_the_lowest_median_distance(whole):
    workdir, said = whole
    rows = evaluations(workdir)
    best = min(rows, key=lambda row: (row["median_distance"], row["loss"], -row["step"]))
    assert checkpoint.load(str(workdir), step="best").step == best["step"]
    assert re.search(rf"best +median distance +{best['median_distance']:.4f} .* at step {best['step']} on 21", said), (
        said
    )
    assert f"21 middles of step {best['step']} in middles.csv" in said
    assert len((workdir / "middles.csv").read_text().splitlines()) == NUM_TEST


def test_the_checkpoint_is_a_whole_model(whole, mnet):
    """`mnet evaluate` finds the task by the name in the checkpoint and repeats the run's own numbers."""
    workdir, _ = whole
    code, out, err = mnet("evaluate", "--checkpoint", workdir, "--json")
    assert code == 0, err
    found, last = json.loads(out), evaluations(workdir)[-1]
    for name in ("near", "loss", "median_distance"):
        assert found[name] == pytest.approx(last[name], rel=1e-4)


@pytest.mark.long  # tests/training/test_training_resume.py shows it for classification each time
def test_killed_and_resumed_is_bit_for_bit_the_same(place, whole):
    workdir = place / "killed"
    with subprocess.Popen(
        command(place, "killed"), env=environment(2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=place
    ) as process:
        deadline = time.monotonic() + 200
        while not [path for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    done = run(place, "killed")
    assert done.returncode == 0, done.stderr
    assert "Going on from step" in done.stderr
    left, right = (checkpoint.load(str(path), ema=ema).variables for path, ema in ((whole[0], True), (workdir, True)))
    left, right = flat(left), flat(right)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name].tobytes() != right[name].tobytes()] == []
    keys = ("step", "near", "loss", "median_distance")
    assert [[row[key] for key in keys] for row in evaluations(whole[0])] == [
        [row[key] for key in keys] for row in evaluations(workdir)
    ]


@pytest.mark.long  # of real tasks: test_training_step.py, and the tasks' own
def test_parts_and_devices_give_the_same_step(place):
    """The loss is divided by the boxes of the whole step: one device in one part learns what two in two parts learn."""
    runs = []
    for name, parts, num_devices in (("one", 1, 1), ("four", 2, 2)):
        config = a_config(place)
        config.model.norm_frozen, config.train.num_steps, config.eval.report = True, 2, False
        config.optimizer.name, config.ema.decay = "sgd", 0.0
        config.train.accumulate_steps, config.train.num_devices = parts, num_devices
        loop.train(config, str(place / name))
        runs.append(flat(checkpoint.load(str(place / name)).variables))
    for name, value in runs[0].items():
        np.testing.assert_allclose(value, runs[1][name], atol=2e-6, err_msg=name)


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        (
            "checkpoint.best_metric",
            "top1",
            "checkpoint.best_metric='top1': the task toy has median_distance, near, loss",
        ),
        (
            "task.name",
            "toy_taks",
            "task.name='toy_taks': no such task; choose classification, detection, multilabel, segmentation, ",
        ),
        ("task.name", "clasification", r"Did you mean 'classification'\?"),
        ("train.embedding_views", 2, "the task toy learns from maps and not from the embedding"),
    ],
)
def test_what_can_be_mistyped(place, whole, tmp_path, field, value, line):
    config = a_config(place)
    config.update_from_flattened_dict({field: value})
    if field == "train.embedding_views":
        config.train.freeze, config.model.norm_frozen, config.init.checkpoint = "backbone", True, str(whole[0])
    with pytest.raises(ValueError, match=line):
        loop.train(config, str(tmp_path / "run"))
    assert not list(tmp_path.glob("run/checkpoints/[0-9]*"))


def a_config(place):
    config = load_config(str(place / "toy.py"))
    config.data.data_dir, config.train.num_devices = str(place / "data"), 1
    return config
