"""`load_pretrained`: a name of the catalogue, a repository of the hub, a file, or a checkpoint -> a trained model."""

import pathlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from configs import default
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.data.imagenet_names import NAMES
from mnet_jax.pretrained import convert, keras_file, sources
from mnet_jax.pretrained.layouts import KERAS, KERAS_NUMBERED, Layout
from mnet_jax.training.trained import Trained

Log = Callable[[str], None]

_KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")
_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar")
SUFFIXES = (*_KERAS_SUFFIXES, *_TORCH_SUFFIXES, ".safetensors")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def load_pretrained(
    source: str | pathlib.Path,
    *,
    model: str | None = None,
    width: float | None = None,
    like: str | None = None,
    ema: bool = True,
    step: int | str | None = None,
    log: Log | None = None,
) -> Trained:
    """Loads a trained model, with the preprocessing, padding and norm that its weights were trained for.

    Args:
      source: one of
        - a name of the catalogue (`mnet weights`): "timm/mobilenetv3_large_100.ra_in1k", "keras/mobilenet_0.25_224",
          "torchvision/mobilenet_v2.IMAGENET1K_V2"; downloaded once, then from the cache;
        - any other "owner/name" of the hub that holds one of timm's MobileNets, "@revision" behind it if wanted;
        - a file: Keras' .h5, .weights.h5 or .keras, timm's .safetensors (or a directory with it and its config.json),
          torchvision's .pth;
        - a checkpoint of this project, local or in a bucket: the directory of a run or of one of its steps.
      model: the architecture that it must be, such as "v3_large"; None: whichever it is.
      width: the same of the width multiplier.
      like: for a file that does not say how its images are prepared: the name in the catalogue whose weights it has.
      ema: of a checkpoint: the averaged weights, where there are any.
      step: of a checkpoint: completed updates, "best" or "latest".
      log: is told of what was left out or assumed, a line each; None: stderr.

    Raises:
      ValueError: one line that says what is wrong, and what to type or to download.
    """
    log = _to_stderr if log is None else log
    text = str(source)
    path = pathlib.Path(text).expanduser()
    if _is_checkpoint(text, path):
        from mnet_jax.training import checkpoint

        trained = checkpoint.load(text, ema=ema, step=step)
        _check(trained, model, width)
        return trained
    if step is not None:
        raise ValueError(f"{text} is no checkpoint of this project: leave out step={step!r}")
    known = None if like is None else _like(like)
    if path.exists():
        return _load_file(path, known, text, model, width, log)
    raise ValueError(_unknown(text))


def _is_checkpoint(text: str, path: pathlib.Path) -> bool:
    if "://" in text:
        return True
    return path.is_dir() and not any(path.glob("*.safetensors"))


def _unknown(text: str) -> str:
    if text.endswith(SUFFIXES):
        return f"no such file: {text}"
    return (
        f"unknown weights {text!r}: give a name of `mnet weights`, owner/name of the hub, a file "
        f"({', '.join(SUFFIXES)}) or the directory of a run.{sources.nearest(text)}"
    )


def _like(name: str) -> sources.Source:
    found = sources.look_up(name)
    if found is None:
        raise ValueError(f"unknown weights like={name!r}: choose a name of `mnet weights`.{sources.nearest(name)}")
    return found


def _check(trained: Trained, model: str | None, width: float | None) -> None:
    there = trained.config.model
    for what, wanted, found in (("model", model, there.name), ("width", width, there.width)):
        if wanted is not None and wanted != found:
            raise ValueError(f"{trained.path} is {what} {found!r}, not {wanted!r}")


# --- Files ---


def _load_file(
    path: pathlib.Path,
    known: sources.Source | None,
    name: str,
    model: str | None,
    width: float | None,
    log: Log,
) -> Trained:
    """Reads a file of any format; `known` says which weights it has, if that is known."""
    about: Mapping[str, Any] = {}
    size = None
    if path.suffix in _KERAS_SUFFIXES:
        file = keras_file.read(path)
        arrays, size = file.arrays, file.image_size
        layout = KERAS_NUMBERED if file.numbered else KERAS
    else:
        raise ValueError(f"cannot read {path}: {', '.join(SUFFIXES)} expected")
    known = known or sources.by_file(path.name)
    model, width = model or (known and known.model), width or (known and known.width)
    converted = convert.convert(arrays, layout, origin=name, model=model, width=width, log=log)
    if known is None:
        known = _assumed(layout, name, converted, size)
    return _trained(known, layout, converted, about.get("label_names"), name, log)


def _assumed(layout: Layout, name: str, converted: convert.Converted, size: int | None) -> sources.Source:
    """What is true of every file that Keras applications or torchvision wrote."""
    make = {"keras": sources.keras_source, "torchvision": sources.torchvision_source}[layout.name]
    known = {} if size is None else {"image_size": size}
    return make(name, converted.model, converted.width, num_classes=None, **known)


def _trained(
    source: sources.Source,
    layout: Layout,
    converted: convert.Converted,
    labels: list[str] | None,
    path: str,
    log: Log,
) -> Trained:
    variables, num_classes = converted.variables, converted.num_classes
    if num_classes == len(NAMES) + 1 and labels is None:
        log(f"{path} has 1,001 outputs: the first, the background, is left out")
        classifier = variables["params"]["classifier"]
        variables["params"]["classifier"] = {leaf: array[..., 1:].copy() for leaf, array in classifier.items()}
        num_classes -= 1
    mean, std = sources.STATISTICS[source.statistics]
    config = default.get_config()
    config.model.name, config.model.width = converted.model, converted.width
    config.model.width_rule, config.model.padding = layout.width_rule, source.padding
    config.model.norm_epsilon, config.model.norm_decay = source.norm_epsilon, source.norm_decay
    config.data.image_size = source.image_size
    config.data.eval_crop, config.data.interpolation = source.eval_crop, source.interpolation
    config.data.mean, config.data.std = mean, std
    config.ema.decay = 0.0
    return Trained(
        variables=variables,
        config=config,
        info=_info(num_classes, labels, mean, std),
        step=0,
        metrics=None,
        path=path,
        published=True,
        claim=source.claim,
    )


def _info(num_classes: int, labels: list[str] | None, mean: sources.Channels, std: sources.Channels) -> DatasetInfo:
    imagenet = num_classes == len(NAMES) and labels is None
    if imagenet:
        names = tuple(NAMES.values())
    elif labels is not None and len(labels) == num_classes:
        names = tuple(labels)
    else:
        names = tuple(f"class {index}" for index in range(num_classes))
    return DatasetInfo(
        name="imagenet2012" if imagenet else "unknown",
        num_classes=num_classes,
        class_names=names,
        num_train=1_281_167 if imagenet else 0,
        num_eval=50_000 if imagenet else 0,
        train_split="train",
        eval_split="validation",
        mean=mean,
        std=std,
    )


def _to_stderr(line: str) -> None:
    print(f"mnet: {line}", file=sys.stderr)
