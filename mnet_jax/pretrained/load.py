"""`load_pretrained`: a name of the catalogue, a repository of the hub, a file, or a checkpoint -> a trained model."""

import dataclasses
import pathlib
import re
import sys
from collections.abc import Callable

from mnet_jax import schema
from mnet_jax.data import catalog
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models.tables import find_spec
from mnet_jax.pretrained import boxes, convert, download, folded, sources, tflite
from mnet_jax.pretrained.layouts import KERAS, KERAS_NUMBERED, LAYOUTS, TIMM, TORCHVISION, Layout
from mnet_jax.pretrained.readers import keras, safetensors, torch
from mnet_jax.pretrained.readers import tflite as tflite_reader
from mnet_jax.trained import Trained

Log = Callable[[str], None]

_KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")
_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar")
_TFLITE_SUFFIX = ".tflite"
SUFFIXES = (*_KERAS_SUFFIXES, *_TORCH_SUFFIXES, ".safetensors", _TFLITE_SUFFIX)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def load_pretrained(
    source: str | pathlib.Path,
    *,
    model: str | None = None,
    width: float | None = None,
    like: str | None = None,
    log: Log | None = None,
) -> Trained:
    """Loads a trained model, with the preprocessing, padding and norm that its weights were trained for.

    Args:
      source: one of
        - a name of the catalogue (`mnet weights`): "timm/mobilenetv3_large_100.ra_in1k", "keras/mobilenet_0.25_224",
          "torchvision/mobilenet_v2.IMAGENET1K_V2"; downloaded once, then from the cache;
        - any other "owner/name" of the hub that holds one of timm's MobileNets, "@revision" behind it if wanted;
        - a file: Keras' .h5, .weights.h5 or .keras, timm's .safetensors (or a directory with it and its config.json),
          torchvision's .pth, also of its ssdlite320_mobilenet_v3_large; .tflite, of V1 and V2 as classifiers and as
          TensorFlow's SSD and SSDLite (with `model.norm_frozen`: a file's norms are folded).
      model: the architecture that it must be, such as "v3_large"; None: whichever it is.
      width: the same of the width multiplier.
      like: for a file that does not say how its images are prepared: the name in the catalogue whose weights it has.
      log: is told of what was left out or assumed, a line each; None: stderr.

    Raises:
      ValueError: one line that says what is wrong, and what to type or to download.
    """
    log = _to_stderr if log is None else log
    text = str(source)
    path = pathlib.Path(text).expanduser()
    if _is_checkpoint(text, path):
        raise ValueError(
            f"{text} is the directory of a run: commands take it as --checkpoint, a config as init.checkpoint, and "
            "Python as mnet_jax.load_checkpoint"
        )
    known = None if like is None else _like(like)
    if path.exists():
        return _load_file(path, known, text, model, width, log)
    if text.endswith(SUFFIXES):
        raise ValueError(f"no such file: {text}")
    name, _, revision = text.partition("@")
    found = sources.look_up(name)
    if found is not None and found.name != name:
        log(f"{name} stands for {found.name}")
        name = found.name
    if found is not None and found.url is not None:
        return _load_file(download.fetch(found), found, name, model, width, log)
    if found is None:
        _check_hub_name(text)
    file, config = download.fetch_hub(name, revision or None)
    trained = _load_timm(file, config, known, name, model, width, log)
    return dataclasses.replace(trained, accuracy=found.accuracy if found and not revision else None)


def _is_checkpoint(text: str, path: pathlib.Path) -> bool:
    if "://" in text:
        return True
    return path.is_dir() and not any(path.glob("*.safetensors"))


def _check_hub_name(text: str) -> None:
    """Raises ValueError unless the hub can have this name, and one of ours cannot have been meant."""
    owner, _, rest = text.partition("@")[0].partition("/")
    if owner == "timm":
        sources.timm_source(text, rest.partition(".")[0], statistics="imagenet")
    if owner in LAYOUTS and owner != "timm" or not _HUB_NAME.fullmatch(text):
        raise ValueError(
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
    """Reads a file of any format, told by its name; `known` says which weights it has, if that is known."""
    if path.is_dir() or path.suffix == ".safetensors":
        file = _only_safetensors(path) if path.is_dir() else path
        config = file.with_name("config.json")
        known = known or sources.by_file(path.name)
        return _load_timm(file, config if config.exists() else None, known, name, model, width, log)
    if path.suffix == _TFLITE_SUFFIX:
        return _load_tflite(path, name, model, width, log)
    size = None
    if path.suffix in _KERAS_SUFFIXES:
        found = keras.read(path)
        arrays, size = found.arrays, found.image_size
        layout = KERAS_NUMBERED if found.numbered else KERAS
    elif path.suffix in _TORCH_SUFFIXES:
        arrays = torch.read(path)
        if boxes.is_detector(arrays):
            return boxes.trained(boxes.convert_detector(arrays, origin=name, model=model, width=width), path=name)
        layout = _torch_layout(arrays, name)
    else:
        raise ValueError(f"cannot read {path}: {', '.join(SUFFIXES)} expected")
    known = known or sources.by_file(path.name)
    return _finish(arrays, layout, known, None, size, name, model, width, log)


def _only_safetensors(directory: pathlib.Path) -> pathlib.Path:
    files = sorted(directory.glob("*.safetensors"))
    if len(files) > 1:
        raise ValueError(f"{directory} has {len(files)} .safetensors files: give one of them")
    return files[0]


def _load_timm(
    file: pathlib.Path,
    config: pathlib.Path | None,
    known: sources.Source | None,
    name: str,
    model: str | None,
    width: float | None,
    log: Log,
) -> Trained:
    """Reads a .safetensors file; its config.json, where there is one, says more than the catalogue does."""
    labels = None
    if config is not None:
        known, labels = safetensors.read_config(config, name)
    arrays = safetensors.read(file)
    return _finish(arrays, _torch_layout(arrays, name), known, labels, None, name, model, width, log)


def _load_tflite(path: pathlib.Path, name: str, model: str | None, width: float | None, log: Log) -> Trained:
    """Reads a .tflite file, of a classifier or of a detector; it says itself how its pixels are prepared."""
    read = tflite_reader.read(path)
    try:
        network = folded.trace(read)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{name} cannot be read as weights: {error}") from error
    converted = tflite.convert_tflite(network, origin=name, model=model, width=width)
    log(f"The norms of {name} are folded: its weights are exact, but train them with model.norm_frozen=True only")
    if network.mean is None:
        log(f"{name} does not say how its pixels are prepared: -1 .. 1 is assumed")
    height, across = network.image_size
    size = height if height == across else (height, across)
    pixels = None if network.mean is None else (network.mean, network.std)
    if isinstance(converted, boxes.ConvertedDetector):
        return boxes.trained(converted, path=name, labels=read.labels, pixels=pixels, image_size=size, norm_frozen=True)
    norm = find_spec(converted.model).norm
    source = sources.Source(
        name=name,
        layout="tflite",
        model=converted.model,
        width=converted.width,
        padding=network.padding,
        norm_epsilon=norm.epsilon,
        norm_decay=norm.decay,
        image_size=size,
        statistics="half",
    )
    labels = list(read.labels) if read.labels and len(read.labels) == converted.num_classes else None
    background = catalog.PUBLISHED["imagenet2012"].num_classes + 1
    trained = _trained(source, "tf", converted, None if labels and len(labels) == background else labels, name, log)
    trained.config.model.norm_frozen = True
    if pixels is None:
        return trained
    mean, std = trained.config.data.mean, trained.config.data.std = pixels
    return dataclasses.replace(trained, info=dataclasses.replace(trained.info, mean=mean, std=std))


def _torch_layout(arrays: convert.Arrays, name: str) -> Layout:
    """Whose names these are: timm and torchvision share the formats of their files."""
    if "conv_stem.weight" in arrays:
        return TIMM
    if "features.0.0.weight" in arrays:
        return TORCHVISION
    some = ", ".join(list(arrays)[:3])
    raise ValueError(f"{name} holds no MobileNet of timm or torchvision (its arrays: {some}, ...)")


def _finish(
    arrays: convert.Arrays,
    layout: Layout,
    known: sources.Source | None,
    labels: list[str] | None,
    size: int | None,
    name: str,
    model: str | None,
    width: float | None,
    log: Log,
) -> Trained:
    if known is not None:
        if known.layout != layout.name:
            raise ValueError(f"{name} holds weights of {layout.name}, but {known.name} is of {known.layout}")
        if model not in (None, known.model) or width not in (None, known.width):
            raise ValueError(
                f"{name} is {known.model} x{known.width:g}, not {model or known.model} x{width or known.width:g}"
            )
        model, width = known.model, known.width
    arrays = {key: array for key, array in arrays.items() if not key.endswith("num_batches_tracked")}
    converted = convert.convert(arrays, layout, origin=name, model=model, width=width, log=log)
    if known is None:
        known = _assumed(layout, name, converted, size)
    elif known.num_classes not in (None, converted.num_classes):
        known = dataclasses.replace(known, accuracy=None)  # somebody's own head
    return _trained(known, layout.width_rule, converted, labels, name, log)


def _assumed(layout: Layout, name: str, converted: convert.Converted, size: int | None) -> sources.Source:
    """What is true of every file that Keras applications or torchvision wrote."""
    if layout is TIMM:
        raise ValueError(
            f"{name} does not say how its images are prepared, and timm's weights differ in that: put timm's "
            "config.json beside it, or say whose weights it has (--like NAME, a name of `mnet weights`)"
        )
    make = sources.torchvision_source if layout is TORCHVISION else sources.keras_source
    known = {} if size is None else {"image_size": size}
    return make(name, converted.model, converted.width, num_classes=None, **known)


def _trained(
    source: sources.Source,
    width_rule: str,
    converted: convert.Converted,
    labels: list[str] | None,
    path: str,
    log: Log,
) -> Trained:
    variables, num_classes = converted.variables, converted.num_classes
    if num_classes == catalog.PUBLISHED["imagenet2012"].num_classes + 1 and labels is None:
        log(f"{path} has 1,001 outputs: the first, the background, is left out")
        classifier = variables["params"]["classifier"]
        variables["params"]["classifier"] = {leaf: array[..., 1:].copy() for leaf, array in classifier.items()}
        num_classes -= 1
    mean, std = sources.STATISTICS[source.statistics]
    config = schema.get_config()
    config.model.name, config.model.width = converted.model, converted.width
    config.model.width_rule, config.model.padding = width_rule, source.padding
    config.model.norm_epsilon, config.model.norm_decay = source.norm_epsilon, source.norm_decay
    config.data.image_size = source.image_size
    config.data.eval_crop, config.data.interpolation = source.eval_crop, source.interpolation
    config.data.mean, config.data.std = mean, std
    config.ema.decay = 0.0
    return Trained(
        variables=variables,
        config=config,
        info=_info(num_classes, labels, (mean, std)),
        step=0,
        metrics=None,
        path=path,
        published=True,
        accuracy=source.accuracy,
    )


def _info(num_classes: int, labels: list[str] | None, statistics: catalog.Statistics) -> DatasetInfo:
    """Returns ImageNet where the classes can be its own, else a set of which nothing is known but these."""
    sizes = catalog.PUBLISHED["imagenet2012"]
    if num_classes == sizes.num_classes and labels is None:
        return DatasetInfo.made_up(
            num_classes,
            name="imagenet2012",
            class_names=catalog.imagenet_classes(),
            num_train=sizes.num_train,
            num_eval=sizes.num_eval,
            statistics=statistics,
        )
    named = labels is not None and len(labels) == num_classes
    names = tuple(labels) if named else tuple(f"class {index}" for index in range(num_classes))
    return DatasetInfo.made_up(
        num_classes, name="unknown", class_names=names, num_train=0, num_eval=0, statistics=statistics
    )


def _to_stderr(line: str) -> None:
    print(f"mnet: {line}", file=sys.stderr)
