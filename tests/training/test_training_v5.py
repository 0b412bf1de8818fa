"""A network of V5's kind, whose norms have no statistics and whose maps are fused, through the whole path of a run."""

import contextlib
import io
import json

import numpy as np
import pytest

from mnet_jax import export, load_checkpoint, load_exported
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


def test_it_is_evaluated_and_exported(run, tmp_path, capsys):
    assert main(["evaluate", "--checkpoint", str(run), "--json"]) == 0
    top1 = json.loads(capsys.readouterr().out)["top1"]
    trained = load_checkpoint(str(run))
    path = tmp_path / "model.onnx"
    export(trained, path, format="onnx", input="uint8", output="logits")
    scores = load_exported(path)(np.zeros((2, 32, 32, 3), np.uint8))
    assert scores.shape == (2, 10)
    assert top1 > 0.3
    with pytest.raises(ValueError, match="int8 is for networks without attention and GELU"):
        export(trained, tmp_path / "model.tflite", format="tflite", quantize="int8")
