"""MobileNetV5 against timm's, whose results with the same arrays tests/scripts/parity_v5.py --golden stored."""

import pathlib

import files
import jax
import numpy as np
import pytest
import random_weights

from mnet_jax.models.compute import Compute
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.pretrained import convert, sources
from mnet_jax.pretrained.layouts import TIMM
from mnet_jax.tasks.classification.network import Classifier

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden_logits.npz")
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # compile time, not run time


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.long if "300m" in case[1] else ()) for case in random_weights.GOLDEN_V5],
    ids=" ".join,
)
def test_fused_map_and_logits_are_those_of_timm(case):
    name, width = case[1].removeprefix("mobilenet").split(" x")
    arrays = files.library_arrays(TIMM, name, float(width))
    converted = convert.convert(arrays, TIMM, origin="m", model=name, width=float(width), log=pytest.fail)
    assert (converted.num_classes, converted.variables["batch_stats"]) == (10, {})
    plan = resolve(SPECS[name], num_classes=10, width=float(width), width_rule="timm")
    model, images = Classifier(plan, Compute()), random_weights.images(random_weights.GOLDEN_V5[case])

    def run(variables, images):
        return model.apply(variables, images), model.apply(variables, images, ("fusion",), method="taps")["fusion"]

    logits, fused = jax.jit(run, compiler_options=FAST)(converted.variables, images)
    key = " ".join(case)
    for ours, theirs in ((logits, GOLDEN[key]), (fused[:, ::5, ::5, ::64], GOLDEN[f"{key} fused"])):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("architecture", "name", "padding"),
    [
        ("mobilenetv5_300m", "timm/mobilenetv5_300m.gemma3n", "same"),
        ("mobilenetv5_300m_enc", "m", "same"),
        ("mobilenetv5_300m", "m", "symmetric"),
        ("mobilenetv5_base", "m", "symmetric"),
    ],
)
def test_gemmas_weights_have_the_padding_that_they_were_trained_with(architecture, name, padding):
    source = sources.timm_source(name, architecture, statistics="unit")
    assert (source.padding, source.norm_epsilon, source.norm_decay) == (padding, 1e-6, None)
