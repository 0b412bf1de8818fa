"""A trained model -> a file that a phone, a browser or a server runs: what `mnet_jax.export` does."""

import os
from collections.abc import Iterator, Mapping

import ml_collections
import numpy as np

import mnet_jax
from mnet_jax import config as configs
from mnet_jax import tasks
from mnet_jax.deploy import formats
from mnet_jax.deploy.fold import check_size, fold
from mnet_jax.deploy.graph import Graph
from mnet_jax.deploy.metadata import About, check_date
from mnet_jax.files import placed
from mnet_jax.trained import Trained, build_model, task_of


def export(
    trained: Trained,
    path: str | os.PathLike,
    *,
    format: str,
    quantize: str = "none",
    input: str = "uint8",
    output: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    date: str | None = None,
    calibration: str | os.PathLike | None = None,
    task: Mapping[str, object] | None = None,
) -> About:
    """Writes a trained model for another runtime; returns what its metadata say.

    Args:
      trained: from `load_checkpoint` or `load_pretrained`.
      path: file, or directory for "savedmodel"; replaced whole, or left as it is on an error.
      format: "stablehlo", "tflite", "onnx" or "savedmodel".
      quantize: "none"; for TFLite also "float16", "dynamic" or "int8".
      input: "uint8": RGB pixels, normalised inside; "float": images normalised before, by the metadata's mean and std.
      output: what the task's head gives, of classification "probabilities" or "logits"; None: the first of these.
      image_size: pixels, one number or (height, width), at least 32; None: that of the model's own evaluation.
      date: for the metadata, as "2026-01-31"; without it the same weights give the same file.
      calibration: for int8, a folder of images like those of training; None: the training images that the model's
        config names, or, after quantisation-aware training, what that learnt.
      task: fields of the config's section `task` that the file is to have otherwise than the model, such as
        {"score_threshold": 0.2, "nms": "all"} of detection.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    formats.check(format, quantize)
    if calibration is not None and quantize != "int8":
        raise ValueError(f"calibration images are for int8, not for quantize {quantize!r}: leave --calibration out")
    graph, about = build_graph(
        trained, quantize=quantize, input=input, output=output, image_size=image_size, date=date, task=task
    )
    if quantize == "int8":
        with formats.needs_extra(), placed(path) as part:
            from mnet_jax.deploy.int8.calibration import batches
            from mnet_jax.deploy.int8.quantize import int8_model

            def images() -> Iterator[np.ndarray]:
                return batches(trained, about.image_size, folder=calibration)

            learnt = trained.variables["batch_stats"] if calibration is None else None
            part.write_bytes(int8_model(graph, about, images, batch_stats=learnt))
    else:
        formats.write(graph, about, path, format)
    return about


def build_graph(
    trained: Trained,
    *,
    quantize: str = "none",
    input: str = "uint8",
    output: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    date: str | None = None,
    task: Mapping[str, object] | None = None,
) -> tuple[Graph, About]:
    """Returns the folded graph and its metadata; arguments as in `export`."""
    if not trained.has_head:
        raise ValueError(f"{trained.path} has no classifier: train one before you export it")
    check_date(date)
    face = tasks.face(trained.config.task.name, "export")
    output = face.OUTPUTS[0] if output is None else output
    size = check_size(configs.image_size(trained.config.data) if image_size is None else image_size)
    unset = {name: value for name, value in face.UNSET.items() if trained.config.task[name] is None}
    settings = {**unset, **(task or {})}
    config = with_settings(trained.config, size, settings)
    task = task_of(trained, config)
    network = build_model(config, trained.info, task=task)
    graph = fold(
        network.plan,
        trained.variables,
        lambda graph: face.head(graph, network, task, output),
        image_size=size,
        input=input,
        mean=task.mean,
        std=task.std,
    )
    about = About(
        model=network.plan.name,
        width=network.plan.width,
        class_names=trained.class_names,
        image_size=size,
        input=input,
        output=output,
        quantize=quantize,
        mean=task.mean,
        std=task.std,
        eval_crop=config.data.eval_crop,
        interpolation=config.data.interpolation,
        source=trained.path,
        step=trained.step,
        version=mnet_jax.__version__,
        date=date,
        task=config.task.name,
        task_settings=settings,
        thresholds=task.class_thresholds,
    )
    return graph, about


def with_settings(
    config: ml_collections.ConfigDict, image_size: tuple[int, int], task: Mapping[str, object]
) -> ml_collections.ConfigDict:
    """Returns a model's config for images of another size, and with other values of fields of its section `task`.

    Raises:
      ValueError: if there is no such field, or it may not have that value.
    """
    config = config.copy_and_resolve_references()
    configs.set_field(config, "data.image_size", image_size)
    for name, value in task.items():
        configs.change(config, f"task.{name}", value)
    return config
