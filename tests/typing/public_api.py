"""Uses every public function as a program of a user would. It is type-checked, strictly, and never run."""

import pathlib
from typing import Any, assert_type

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import mnet_jax


def names() -> str:
    assert_type(mnet_jax.__version__, str)
    assert_type(mnet_jax.list_models(), list[str])
    return ", ".join(mnet_jax.list_models())


def network(images: jax.Array) -> jax.Array:
    model = mnet_jax.create_model("v3_large", num_classes=10, width=0.75, dropout=None, dtype="bfloat16")
    module: nn.Module = model
    variables = model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    assert_type(model(images, train=True), jax.Array)
    assert_type(model.maps(images), dict[int, jax.Array])
    assert_type(model.embed(images), jax.Array)
    assert_type(model.classify(model.embed(images)), jax.Array)
    assert_type(model.plan.name, str)
    if model.plan.classifier is not None:
        assert_type(model.plan.classifier.features, int)
    logits = module.apply(variables, images, train=False)  # Flax does not say of which type
    assert isinstance(logits, jax.Array)
    return logits


def trained(run: str) -> dict[str, float]:
    checkpoint = mnet_jax.load_checkpoint(run, ema=True, step="best")
    published = mnet_jax.load_pretrained(pathlib.Path("weights.h5"), model="v1", width=0.25, like=None, log=print)
    either = [checkpoint, published]  # one record, wherever the weights come from
    for one in either:
        assert_type(one.variables, dict[str, Any])
        assert_type(one.class_names, tuple[str, ...])
        assert_type(one.step, int)
        assert_type(one.path, str)
        assert_type(one.published, bool)
        assert_type(one.info.num_classes, int)
        assert_type(one.info.mean, tuple[float, float, float])
        if one.accuracy is not None:
            assert_type(one.accuracy.top1, float)
            assert_type(one.accuracy.top5, float | None)
    return checkpoint.metrics or {}


def exported(run: str, pixels: np.ndarray) -> np.ndarray:
    about = mnet_jax.export(
        mnet_jax.load_checkpoint(run),
        "model.tflite",
        format="tflite",
        quantize="int8",
        input="float",
        output="logits",
        image_size=(224, 192),
        date="2026-01-31",
        calibration=pathlib.Path("photos"),
    )
    assert_type(about.image_size, tuple[int, int])
    assert_type(about.class_names, tuple[str, ...])
    assert_type(about.mean, tuple[float, float, float])
    assert_type(about.to_json(), str)
    program = mnet_jax.load_exported("model.tflite", threads=2)
    about = program.about
    scores = program(pixels)  # several results would come by name
    assert isinstance(scores, np.ndarray)
    return scores


def mistakes() -> None:
    """Each line is a mistake that a type checker must find: without it the "ignore" is reported as unused."""
    mnet_jax.create_model("v1", classes=10)  # type: ignore[call-arg]
    mnet_jax.create_model("v1", width="0.75")  # type: ignore[arg-type]
    print(mnet_jax.load_checkpoint("runs/digits").class_name)  # type: ignore[attr-defined]
    mnet_jax.export(mnet_jax.load_checkpoint("runs/digits"), "model.tflite")  # type: ignore[call-arg]
    mnet_jax.load_model("runs/digits")  # type: ignore[attr-defined]
