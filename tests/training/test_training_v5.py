"""A network of V5's kind, whose norms have no statistics and whose maps are fused, through the whole path of a run."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from mnet_jax import export, load_checkpoint
from mnet_jax.commands.cli import main
from mnet_jax.config import load as load_config
from mnet_jax.models import blocks, plans
from mnet_jax.models.specs import Fusion, ModelSpec
from mnet_jax.models.tables import SPECS
from mnet_jax.models.widths import WidthRule
from mnet_jax.training import loop
from mnet_jax.training.reporting.run_files import read_rows

pytestmark = pytest.mark.long
GELU = {"activation": "gelu_tanh"}
TOY = ModelSpec(
    name="toy",
    source="",
    image_size=32,
    stem=blocks.Conv(kernel=3, features=16, stride=2, bias=True, **GELU),
    blocks=(
        blocks.FusedInvertedBottleneck(expand=2, features=16, stride=2, **GELU),
        blocks.UniversalInvertedBottleneck(
            start_kernel=3, middle_kernel=5, expand=2, features=24, stride=2, layer_scale=0.1, **GELU
        ),
        blocks.MultiQueryAttention(heads=2, key_features=8, key_value_stride=2, features=24, layer_scale=0.1),
        blocks.UniversalInvertedBottleneck(
            start_kernel=3, middle_kernel=5, expand=2, features=32, stride=2, layer_scale=0.1, **GELU
        ),
    ),
    fusion=Fusion(maps=2, expand=2, features=48, size=4, **GELU),
    dropout=0.0,
    norm=plans.RmsNorm(epsilon=1e-6),
    width_rules={"tf": WidthRule()},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a run on the digits."""
    place = tmp_path_factory.mktemp("v5")
    SPECS["toy"] = TOY
    config = load_config("digits")
    config.model.name, config.model.width, config.model.norm_decay = "toy", 1.0, None
    config.data.data_dir, config.train.num_devices = str(place / "data"), 1
    config.optimizer.name, config.schedule.lr_per_256, config.schedule.warmup_epochs = "adamw", 0.01, 0.5
    config.ema.decay = 0.9
    config.train.num_epochs, config.eval.every_epochs = 4.0, 2.0
    with contextlib.redirect_stderr(io.StringIO()):
        loop.train(config, str(place / "run"))
    yield place / "run"
    del SPECS["toy"]


def test_it_learns_and_its_checkpoint_is_whole(run):
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "eval"]
    assert rows[-1]["top1"] > 0.3  # chance is a tenth
    trained = load_checkpoint(str(run))
    assert trained.variables["batch_stats"] == {}
    assert set(trained.variables["params"]["stem"]) == {"kernel", "bias", "norm"}
    assert set(trained.variables["params"]["fusion"]) == {"expand", "project", "norm"}


def test_it_is_evaluated(run, capsys):
    assert main(["evaluate", "--checkpoint", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] > 0.3


@pytest.mark.parametrize("format", ["tflite", "onnx", "savedmodel", "stablehlo"])
def test_each_format_gives_what_the_network_does(run, photos, format, tmp_path, capfd):
    """An unbroken fusion: the coarser map twice as large, and both in windows or resized to 4 x 4."""
    path = tmp_path / f"model.{format}"
    assert main(["export", "--checkpoint", str(run), "--format", format, "--out", str(path)]) == 0
    assert "Instructions for updating" not in capfd.readouterr().err  # TensorFlow's of what is deprecated
    arguments = ["verify-export", str(path), "--checkpoint", str(run), "--images", str(photos), "--json"]
    assert main([*arguments, "--num_images", "8"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["agreement"], found["num_images"]) == (1.0, 8)
    assert found["max_error"] < 1e-4


def test_int8_is_refused_with_what_there_is(run, tmp_path):
    with pytest.raises(ValueError, match="int8 is for networks without attention and GELU: use --quantize dynamic or"):
        export(load_checkpoint(str(run)), tmp_path / "model.tflite", format="tflite", quantize="int8")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three of the ten digits as a folder of PNG files of 32 px, one sub-folder a class."""
    root = tmp_path_factory.mktemp("v5_photos") / "photos"
    raw = datasets.load_digits()
    for row in np.flatnonzero(raw.target < 3)[:90]:
        folder = root / ("zero", "one", "two")[raw.target[row]]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.round(raw.images[row] * (255 / 16)).astype(np.uint8))
        image.resize((32, 32)).save(folder / f"{row}.png")
    return root


def tuning(run, photos, name):
    config = load_config(name)
    config.init.checkpoint, config.data.folder = str(run), str(photos)
    config.data.flip, config.train.num_devices = False, 1
    config.train.batch_size = config.eval.batch_size = 16
    return config


def test_its_features_teach_a_classifier_of_other_classes(run, photos, tmp_path, capsys):
    file = tmp_path / "features.npz"
    assert main(["features", "--checkpoint", str(run), str(photos), "--out", str(file)]) == 0
    found = np.load(file)
    assert found["features"].shape == (90, 48)  # as wide as the fused map
    head = load_checkpoint(str(run)).variables["params"]["classifier"]
    guess = (found["features"] @ head["kernel"] + head["bias"]).argmax(1)
    assert (guess == np.array([1, 2, 0])[found["labels"]]).mean() > 0.3  # of ten digits

    capsys.readouterr()
    assert main(["probe", "--checkpoint", str(run), str(photos), "--k", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["linear_probe"]["top1"] > 0.6  # chance is a third

    config = tuning(run, photos, "finetune")
    config.train.embedding_views, config.train.embedding_dir = 2, str(tmp_path / "embeddings")
    config.train.num_epochs, config.schedule.lr_per_256 = 8.0, 0.2
    with contextlib.redirect_stderr(io.StringIO()):
        loop.train(config, str(tmp_path / "tuned"))
    tuned = load_checkpoint(str(tmp_path / "tuned"))
    assert tuned.class_names == ("one", "two", "zero")
    before = load_checkpoint(str(run)).variables["params"]
    np.testing.assert_array_equal(
        tuned.variables["params"]["fusion"]["norm"]["scale"], before["fusion"]["norm"]["scale"]
    )
    capsys.readouterr()
    image = next((photos / "zero").iterdir())
    assert main(["predict", "--checkpoint", str(tmp_path / "tuned"), str(image), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["images"]
    assert {row["class"] for row in shown["predictions"]} == {"one", "two", "zero"}
    assert main(["evaluate", "--checkpoint", str(tmp_path / "tuned"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] > 0.6


def test_all_of_it_is_tuned_and_restored(run, photos, tmp_path):
    config = tuning(run, photos, "finetune_full")
    with pytest.raises(ValueError, match=r"the norm of toy has no decay: .* \(--config.model.norm_decay=None\)"):
        loop.train(config, str(tmp_path / "refused"))
    config.model.norm_decay = None
    config.train.num_epochs = 2.0
    with contextlib.redirect_stderr(io.StringIO()) as said:
        loop.train(config, str(tmp_path / "full"))
    assert "Restored from" in said.getvalue()
    before, after = (load_checkpoint(str(place)).variables["params"] for place in (run, tmp_path / "full"))
    assert np.abs(after["fusion"]["norm"]["scale"] - before["fusion"]["norm"]["scale"]).max() > 1e-5
    assert np.abs(after["stem"]["kernel"] - before["stem"]["kernel"]).max() < 0.5  # from there, not from fresh values
