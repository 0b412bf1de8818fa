"""`mnet tpu-check`: a real compilation for a TPU that is not here, on a net of two blocks; what it says and advises."""

import dataclasses
import importlib.util
import json

import pytest

from mnet_jax.commands import tpu_check
from mnet_jax.commands.cli import main
from mnet_jax.config import load
from mnet_jax.measuring import tpu
from mnet_jax.models import tables
from mnet_jax.models.plans import RmsNorm
from mnet_jax.models.specs import ModelSpec
from mnet_jax.training.parallel import Devices

# ml_collections reads a config file by importlib's old way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

PROGRAM = """HloModule jit_step
%condition.1 (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %end = s32[] constant(3)
  ROOT %lt = pred[] compare(%i, %end), direction=LT
}
%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %y = f32[8]{0:T(128)S(1)} fusion(%x), kind=kLoop, calls=%f, metadata={op_name="jit(f)/while/body/mixing/add"}, backend_config={"estimated_cycles":"100"}
  ROOT %t = (s32[], f32[8]{0}) tuple(%x, %y)
}
ENTRY %main (a: f32[8], b: bf16[4,2]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %b = bf16[4,2]{1,0} parameter(1)
  %loop = (s32[], f32[8]{0}) while(%a), condition=%condition.1, body=%body.1
  %conv.1 = f32[8]{0} fusion(%a, %b), kind=kOutput, calls=%g, metadata={op_name="jit(f)/jvp(MobileNet)/MobileNet._run/block_01/block_01.conv/depthwise/jit(_dispatch)/cond/branch_0_fun/conv"}, backend_config={"estimated_cycles":"2000"}
  ROOT %conv.2 = f32[8]{0} fusion(%conv.1), kind=kOutput, calls=%g, metadata={op_name="jit(f)/transpose(jvp(MobileNet))/MobileNet._run/block_01/block_01.conv/depthwise/jit(_dispatch)/cond/branch_0_fun/conv"}, backend_config={"estimated_cycles":"3000"}
}
"""  # noqa: E501


def test_a_program_is_read_operation_by_operation():
    operations = {operation.name: operation for operation in tpu.operations(PROGRAM)}
    assert {name: operation.cycles for name, operation in operations.items()} == {
        "y": 300,
        "conv.1": 2000,
        "conv.2": 3000,
    }
    assert operations["y"].runs == 3
    assert operations["y"].hbm_bytes == 3 * 32  # what it writes stays on the chip
    assert operations["conv.1"].hbm_bytes == 32 + 32 + 16
    assert operations["conv.1"].label == "block_01/depthwise forward"
    assert operations["conv.2"].label == "block_01/depthwise gradient"


def test_what_is_no_estimate_does_not_count():
    text = PROGRAM.replace('"estimated_cycles":"3000"', f'"estimated_cycles":"{2**63 - 1}"')
    cycles = {operation.name: operation.cycles for operation in tpu.operations(text)}
    assert cycles["conv.1"] == 2000
    assert cycles["conv.2"] == 0


def test_text_of_something_else_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        tpu.operations("func @main()")


def test_the_chips_figures_agree_with_each_other():
    clocks = {chip.name: round(chip.clock / 1e9, 2) for chip in tpu.CHIPS.values()}
    assert clocks == {"v4": 1.05, "v5e": 1.5, "v5p": 1.75, "v6e": 1.75, "tpu7x": 2.2}
    with pytest.raises(ValueError, match="no figures for 'TPU v2'; there are those of v4, v5e"):
        tpu.chip("TPU v2")


def test_what_does_not_fit_is_told_with_what_to_type():
    error = "RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (40.00G) exceeds available HBM (15.75G)."
    needed = tpu_check._needed(error)
    assert needed == 40 * 2**30
    assert tpu_check._needed("INTERNAL: something else") is None
    advice = tpu_check._advice(needed, 16 * 2**30, device_batch=256, devices=4, parts=1)
    assert "--config.train.accumulate_steps=4 " in advice
    assert "--config.train.batch_size=256" in advice  # 64 a device


@pytest.fixture(scope="module")
def tiny():
    """A net of a stem and one block under a name of its own."""
    with pytest.MonkeyPatch.context() as patch:
        spec = tables.SPECS["v1"]
        patch.setitem(tables.SPECS, "tiny", ModelSpec(**{**vars(spec), "name": "tiny", "blocks": spec.blocks[:1]}))
        yield "tiny"


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu exists for Linux on x86_64 only")
def test_the_real_step_is_compiled_for_a_slice(tiny, capsys):
    code = main(
        [
            *("tpu-check", "--config=configs/digits.py", "--topology=v5e:2x2", "--json"),
            *(f"--config.model.name={tiny}", "--config.model.width=0.25", "--config.train.batch_size=32"),
            *("--config.data.name=cifar10", "--config.data.image_size=32"),
            *("--config.optimizer.name=sgd", "--config.ema.decay=0.0", "--config.model.dropout=0.0"),
        ]
    )
    out, _ = capsys.readouterr()
    report = json.loads(out)
    assert code == 0
    assert (report["chip"], report["devices"], report["device_batch"]) == ("v5e", 4, 8)
    assert report["fits"]
    assert 0 < report["hbm_gib"] < 1
    assert report["cycles"] > 1000
    assert report["bytes_accessed"] > report["hbm_bytes"] > 0
    layers = {row["layer"] for row in report["operations"]}
    assert {"block_00/depthwise gradient", "stem gradient"} & layers
    speeds = 8 / (report["step_ms"] / 1e3)
    assert report["images_per_second_per_chip"] == pytest.approx(speeds)


def test_a_network_without_statistics_is_lowered(tiny, monkeypatch):
    spec = dataclasses.replace(tables.SPECS[tiny], norm=RmsNorm(epsilon=1e-6))  # V5's norm
    monkeypatch.setitem(tables.SPECS, tiny, spec)
    given = {"model.name": tiny, "model.width": 0.25, "data.name": "cifar10", "data.image_size": 32}
    config = load("digits", [f"--config.{field}={value}" for field, value in given.items()])
    config.model.norm_decay = None
    lowered = tpu_check.lower(config, tpu_check._data(config, 10), Devices(8))
    assert "batch_stats" not in lowered.as_text(debug_info=True)
    assert "block_00" in lowered.as_text(debug_info=True)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu exists for Linux on x86_64 only")
def test_a_slice_that_cannot_be_is_one_line(capsys):
    assert main(["tpu-check", "--config=configs/v1.py", "--topology=v9:2x2"]) == 2
    assert "libtpu knows no slice 'v9:2x2'" in capsys.readouterr().err


def test_without_libtpu_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "libtpu", None)
    assert main(["tpu-check", "--config=configs/v1.py", "--topology=v5e:2x2"]) == 2
    assert capsys.readouterr().err.strip().endswith("pip install 'mnet_jax[tpu-check]'")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu exists for Linux on x86_64 only")
def test_a_data_set_that_is_elsewhere_needs_its_classes_only(monkeypatch, capsys):
    given = ["tpu-check", "--config=configs/lraspp_v3_large.py", "--topology=v5e:1x1"]
    assert main(given) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith("no such folder: VOC2012 (data.folder); for a data set that is elsewhere give --num_classes")
    )
    lowered = []

    def lower(config, info, devices):
        lowered.append((config.task.name, info.num_classes, devices.count))
        raise ValueError("not here")

    monkeypatch.setattr(tpu_check, "lower", lower)
    assert main([*given, "--num_classes=21"]) == 2
    assert lowered == [("segmentation", 21, 1)]
    with pytest.raises(SystemExit):
        main([*given, "--num_classes=0"])
