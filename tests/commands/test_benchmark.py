"""`mnet benchmark` on a narrow net: the figures hold together, errors are one line."""

import argparse
import json

import jax
import numpy as np
import pytest

from mnet_jax.commands import benchmark, cli
from mnet_jax.commands.benchmark_breakdown import classify, operation_names
from mnet_jax.data.annotations import Boxes, Label
from mnet_jax.data.batch import spec
from mnet_jax.data.made_up import make_batch
from mnet_jax.data.pixel_map import PixelMap
from mnet_jax.training.parallel import AXIS

SMALL = ["--width", "0.25", "--image_size", "32", "--batch_size", "2", "--num_classes", "10", "--seconds", "0.1"]


def test_infer(capsys):
    assert cli.main(["benchmark", "infer", "v1", *SMALL, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == "v1"
    assert result["runs"] >= 5
    assert 0 < result["fastest_ms"] <= result["median_ms"] <= result["p90_ms"]
    assert result["images_per_second"] == pytest.approx(2 / result["median_ms"] * 1e3)
    assert result["bandwidth_gb_s"] > 0.1
    seconds = result["median_ms"] / 1e3
    moved = result["bandwidth_fraction"] * result["bandwidth_gb_s"] * 1e9 * seconds
    assert moved == pytest.approx(result["bytes_moved_mib"] * 2**20)
    # all the weights (v1 at 0.25: above 0.2 M, 4 bytes each) are read at least
    assert result["bytes_moved_mib"] > 0.8


def test_step_breakdown(capsys):
    assert cli.main(["benchmark", "step-breakdown", "v1", *SMALL, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["phases_ms"]) >= {"augmentation", "forward", "backward", "optimizer", "moving averages"}
    assert set(result["layers_ms"]) >= {"stem", "depthwise", "pointwise", "batch norm", "classifier"}
    for table in ("phases_ms", "layers_ms"):
        assert sum(result[table].values()) == pytest.approx(result["operations_ms"])


@pytest.mark.parametrize(
    ("model", "crop", "metric"),
    [("ssdlite320_v2_tf", "ssd", "found"), ("lraspp_v3_small_tf", "scale", "pixel_accuracy")],
)
def test_training_of_other_tasks(model, crop, metric):
    """The train step takes the batch with its made-up objects or maps (traced, not run)."""
    parser = argparse.ArgumentParser()
    benchmark.add_model_arguments(parser, batch_size=2)
    small = ["--width", "0.1", "--image_size", "128", "--num_classes", "3"]
    setup = benchmark.prepare(parser.parse_args([model, *small]), num_devices=1)
    state = jax.eval_shape(setup.learning.new_state, setup.variables)
    batch = {name: values[0] for name, values in setup.batch.items()}
    step = jax.vmap(setup.learning.train_step(), axis_name=AXIS, in_axes=(None, 0))
    _, metrics = jax.eval_shape(step, state, jax.tree.map(lambda x: x[None], batch))
    assert batch["image"].shape == (2, 128, 128, 3)
    assert setup.config.data.crop == crop
    assert metric in metrics


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # how ml_collections reads a config file
def test_a_config(capsys):
    """Inference of a detector with its detections, in the config's own dtype."""
    small = ["--config.model.width=0.1", "--config.data.image_size=128", "--config.model.dtype=bfloat16"]
    options = ["--predict", "--batch_size", "1", "--seconds", "0.1", "--json"]
    assert cli.main(["benchmark", "infer", "--config", "configs/ssdlite_v1.py", *small, *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["model"], result["width"]) == ("configs/ssdlite_v1.py", 0.1)
    assert (result["image_size"], result["batch_size"], result["dtype"]) == (128, 1, "bfloat16")


def test_made_up_batches():
    """Objects inside the image, in the first slots; classes that there are; an unknown kind has padding."""
    kinds = {"boxes": Boxes(most=20), "label": Label(), "map": PixelMap()}
    batch = make_batch(kinds, 3, (64, 96), 5)
    fields = spec(kinds, (64, 96), train=True)
    assert {name: (5, *field.shape) for name, field in fields.items()} == {k: v.shape for k, v in batch.items()}
    assert {name: np.dtype(field.dtype) for name, field in fields.items()} == {k: v.dtype for k, v in batch.items()}
    there = batch["boxes_mask"]
    boxes = batch["boxes"][there]
    assert there.sum(1).tolist() == [7] * 5
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [64, 96]).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= [6.3, 9.5]).all()
    assert not batch["boxes"][~there].any()
    for name in ("label", "map", "boxes_class"):
        assert set(np.unique(batch[name])) == {0, 1, 2}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jit(_fun)/jvp(MobileNet)/MobileNet._run/block_01/block_01.conv/expand/dot_general", ("forward", "pointwise")),
        (
            "jit(_fun)/transpose(jvp(MobileNet))/MobileNet._run/block_01/block_01.conv/expand/norm/mul",
            ("backward", "batch norm"),
        ),
        (
            "transpose(jvp(MobileNet))/MobileNet._run/block_00/block_00.conv/depthwise/jit(_dispatch)/cond/pad",
            ("backward", "depthwise"),
        ),
        ("jit(_fun)/jvp(MobileNet)/MobileNet._run/stem/conv_general_dilated", ("forward", "stem")),
        (
            "jvp(MobileNet)/block_00/block_00.conv/conv/cond/branch_0_fun/conv_general_dilated",
            ("forward", "convolution"),
        ),
        ("jvp(MobileNet)/block_00/block_00.conv/conv/jit(relu)/max", ("forward", "activation")),
        ("jit(_fun)/optimizer/mul", ("optimizer", "optimizer")),
        ("jit(_fun)/psum", ("other", "other")),
        ("", ("other", "other")),
    ],
)
def test_classify(name, expected):
    assert classify(name) == expected


def test_what_the_compiler_adds_counts_where_it_is_read():
    program = """
ENTRY %main (x: f32[8]) -> (f32[]) {
      %copy.1 = f32[8]{0} copy(%x)
      %sum.1 = f32[] reduce(%copy.1, %zero), to_apply=%add, metadata={op_name="jit(f)/optimizer/sum"}
      %while.1 = (f32[]) while(%sum.1), body=%b, metadata={op_name="jit(f)/jvp(MobileNet)/while"}
      ROOT %tuple.1 = (f32[]) tuple(%copy.2)
    """
    names = operation_names(program)
    assert names["copy.1"] == names["sum.1"] == "jit(f)/optimizer/sum"
    assert names["tuple.1"] == ""
    assert "while.1" not in names


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "v3_larg"], "Did you mean 'v3_large'?"),
        (["train", "v1", "--batch_size", "0"], "--batch_size 0: give at least 1"),
        (["infer", "v1", "--dtype", "float16"], "'bfloat16'"),
        (["infer", "v1", "--image_size", "8"], "32"),
        (["infer", "v1", "--seconds", "-1"], "--warmup and --seconds must be 0 or more"),
    ],
)
def test_refused_in_one_line(capsys, args, message):
    assert cli.main(["benchmark", *args]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
