"""`mnet benchmark` on a narrow net: the figures hold together, errors are one line."""

import json

import pytest

from mnet_jax.commands import cli
from mnet_jax.commands.benchmark_breakdown import classify, operation_names

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
