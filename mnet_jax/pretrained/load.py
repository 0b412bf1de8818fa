"""`load_pretrained`: a name of the catalogue, a repository of the hub, a file, or a checkpoint -> a trained model."""

import dataclasses
import pathlib
import re
import sys
from collections.abc import Callable

from mnet_jax.data import catalog
from mnet_jax.models.tables import find_spec
from mnet_jax.pretrained import boxes, build, convert, download, folded, keras_hub, masks, sources, tflite, wrapped
from mnet_jax.pretrained.layouts import KERAS, KERAS_NUMBERED, LAYOUTS, TIMM, TORCHVISION, Layout
from mnet_jax.pretrained.readers import keras, safetensors, sharded, torch
from mnet_jax.pretrained.readers import tflite as tflite_reader
from mnet_jax.pretrained.readers.keras_config import KerasConfig
from mnet_jax.pretrained.unsupported import UNSUPPORTED
from mnet_jax.trained import Trained

Log = Callable[[str], None]

_KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")
_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".ckpt")
_TFLITE_SUFFIX = ".tflite"
SUFFIXES = (*_KERAS_SUFFIXES, *_TORCH_SUFFIXES, ".safetensors", sharded.SUFFIX, _TFLITE_SUFFIX)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What a caller wants of whatever is loaded; see `load_pretrained`."""

    model: str | None
    width: float | None
    ema: bool
    log: Log


def load_pretrained(
    source: str | pathlib.Path,
    *,
    model: str | None = None,
    width: float | None = None,
    like: str | None = None,
    ema: bool = True,
    log: Log | None = None,
) -> Trained:
    """Loads a trained model, with the preprocessing, padding and norm that its weights were trained for.

    Args:
      source: one of
        - a name of the catalogue (`mnet weights`): "timm/mobilenetv3_large_100.ra_in1k", "keras/mobilenet_0.25_224",
          "torchvision/mobilenet_v2.IMAGENET1K_V2"; downloaded once, then from the cache;
        - any other "owner/name" of the hub that holds one of timm's MobileNets, "@revision" behind it if wanted;
        - a file: Keras' .h5, .weights.h5 or .keras, timm's .safetensors (or a directory with it and its config.json),
          a directory that KerasHub saved (`save_to_preset`) or downloaded, of its MobileNet (V3) and MobileNetV5;
          torchvision's .pth, also of its ssdlite320_, lraspp_ and deeplabv3_mobilenet_v3_large; what trainers save
          around a network of either (timm's train.py, torchvision's references, Lightning's .ckpt, torch.compile);
          the index of weights in several files (model.safetensors.index.json, pytorch_model.bin.index.json; of Gemma
          3n only what holds its vision tower is read);
          .tflite, of V1 and V2 as classifiers, as TensorFlow's SSD and SSDLite and as its DeepLab (with
          `model.norm_frozen`: a file's norms are folded).
      model: the architecture that it must be, such as "v3_large"; None: whichever it is.
      width: the same of the width multiplier.
      like: for a file that does not say how its images are prepared: the name in the catalogue whose weights it has.
      ema: whether a trainer's file that has averaged weights beside raw ones gives the averaged ones.
      log: is told of what was left out or assumed, a line each; None: stderr.

    Raises:
      ValueError: one line that says what is wrong, and what to type or to download.
    """
    asked = _Asked(model, width, ema, _to_stderr if log is None else log)
    text = str(source)
    path = pathlib.Path(text).expanduser()
    if _is_checkpoint(text, path):
        raise ValueError(
            f"{text} is the directory of a run: commands take it as --checkpoint, a config as init.checkpoint, and "
            "Python as mnet_jax.load_checkpoint"
        )
    known = None if like is None else _like(like)
    if path.exists():
        return _load_file(path, known, text, asked)
    if text.endswith(SUFFIXES):
        raise ValueError(f"no such file: {text}")
    name, _, revision = text.partition("@")
    found = sources.look_up(name)
    if found is not None and found.name != name:
        asked.log(f"{name} stands for {found.name}")
        name = found.name
    if found is not None and found.url is not None:
        return _load_file(download.fetch(found), found, name, asked)
    if found is None:
        _check_hub_name(text)
    file, config = download.fetch_hub(name, revision or None)
    trained = _load_timm(file, config, known, name, asked)
    return dataclasses.replace(trained, accuracy=found.accuracy if found and not revision else None)


def _is_checkpoint(text: str, path: pathlib.Path) -> bool:
    if "://" in text:
        return True
    weights = (
        any(path.glob("*.safetensors")) or sharded.find_index(path) is not None or keras_hub.find(path) is not None
    )
    return path.is_dir() and not weights


def _check_hub_name(text: str) -> None:
    """Raises ValueError unless the hub can have this name, and one of ours cannot have been meant."""
    if text in UNSUPPORTED:
        raise ValueError(f"{text} cannot be loaded: {UNSUPPORTED[text]}")
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
    asked: _Asked,
) -> Trained:
    """Reads a file of any format, told by its name; `known` says which weights it has, if that is known."""
    if (preset := keras_hub.find(path)) is not None:
        return keras_hub.load_preset(preset, known, name, asked.model, asked.width, asked.log)
    if path.is_dir() or path.name.endswith((".safetensors", sharded.SUFFIX)):
        file = _only_file(path) if path.is_dir() else path
        config = file.with_name("config.json")
        known = known or sources.by_file(path.name)
        return _load_timm(file, config if config.exists() else None, known, name, asked)
    if path.suffix == _TFLITE_SUFFIX:
        return _load_tflite(path, name, asked)
    size, said = None, KerasConfig()
    if path.suffix in _KERAS_SUFFIXES:
        found = keras.read(path)
        arrays, size, said = found.arrays, found.image_size, found.config
        layout = KERAS_NUMBERED if found.numbered else KERAS
    elif path.suffix in _TORCH_SUFFIXES:
        read = torch.read(path, ema=asked.ema)
        if read.beside:
            asked.log(f"{name} holds averaged and raw weights: those of {read.beside}, are taken")
        arrays = wrapped.unwrapped(read.arrays, ema=asked.ema, origin=name, log=asked.log)
        if boxes.is_detector(arrays):
            converted = boxes.convert_detector(arrays, origin=name, model=asked.model, width=asked.width)
            return boxes.trained(converted, path=name)
        if masks.is_segmenter(arrays):
            segmenter = masks.convert_segmenter(arrays, origin=name, model=asked.model, width=asked.width)
            return masks.trained(segmenter, path=name)
        layout = _torch_layout(arrays, name)
    else:
        raise ValueError(f"cannot read {path}: {', '.join(SUFFIXES)} expected")
    known = known or sources.by_file(path.name)
    return _finish(arrays, layout, known, None, size, name, asked, said)


def _only_file(directory: pathlib.Path) -> pathlib.Path:
    """Returns the .safetensors file of a directory, or the index of several."""
    files = sorted(directory.glob("*.safetensors"))
    index = sharded.find_index(directory)
    if index is not None and len(files) != 1:
        return index
    if len(files) > 1:
        raise ValueError(f"{directory} has {len(files)} .safetensors files: give one of them")
    return files[0]


def _load_timm(
    file: pathlib.Path,
    config: pathlib.Path | None,
    known: sources.Source | None,
    name: str,
    asked: _Asked,
) -> Trained:
    """Reads a .safetensors file, or the index of several; its config.json says more than the catalogue does."""
    labels = None
    if config is not None:
        known, labels = safetensors.read_config(config, name)
    read = sharded.read if file.name.endswith(sharded.SUFFIX) else safetensors.read
    arrays = wrapped.unwrapped(read(file, wrapped.wanted), ema=asked.ema, origin=name, log=asked.log)
    return _finish(arrays, _torch_layout(arrays, name), known, labels, None, name, asked, KerasConfig())


def _load_tflite(path: pathlib.Path, name: str, asked: _Asked) -> Trained:
    """Reads a .tflite file, of a classifier, a detector or a segmenter; it says itself how its pixels are prepared."""
    read = tflite_reader.read(path)
    try:
        network = folded.trace(read)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{name} cannot be read as weights: {error}") from error
    converted = tflite.convert_tflite(network, origin=name, model=asked.model, width=asked.width)
    asked.log(f"The norms of {name} are folded: its weights are exact, but train them with model.norm_frozen=True only")
    if network.mean is None:
        asked.log(f"{name} does not say how its pixels are prepared: -1 .. 1 is assumed")
    height, across = network.image_size
    size = height if height == across else (height, across)
    pixels = None if network.mean is None else (network.mean, network.std)
    if isinstance(converted, masks.ConvertedSegmenter):
        return masks.trained(converted, path=name, labels=read.labels, pixels=pixels, image_size=size, norm_frozen=True)
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
    trained = build.build_trained(
        source, "tf", converted, None if labels and len(labels) == background else labels, name, asked.log
    )
    trained.config.model.norm_frozen = True
    if pixels is None:
        return trained
    mean, std = trained.config.data.mean, trained.config.data.std = pixels
    return dataclasses.replace(trained, info=dataclasses.replace(trained.info, mean=mean, std=std))


def _torch_layout(arrays: convert.Arrays, name: str) -> Layout:
    """Whose names these are: timm and torchvision share the formats of their files."""
    if "conv_stem.weight" in arrays or "conv_stem.conv.weight" in arrays:
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
    asked: _Asked,
    said: KerasConfig,
) -> Trained:
    model, width = asked.model, asked.width
    if known is not None:
        if known.layout != layout.name:
            raise ValueError(f"{name} holds weights of {layout.name}, but {known.name} is of {known.layout}")
        if model not in (None, known.model) or width not in (None, known.width):
            raise ValueError(
                f"{name} is {known.model} x{known.width:g}, not {model or known.model} x{width or known.width:g}"
            )
        model, width = known.model, known.width
    converted = convert.convert(arrays, layout, origin=name, model=model, width=width, log=asked.log)
    if known is None:
        known = build.assumed_source(layout, name, converted, size)
    elif known.num_classes not in (None, converted.num_classes):
        known = dataclasses.replace(known, accuracy=None)  # somebody's own head
    if said.activation is not None:
        converted = build.as_softmax(converted, said.activation, name)
    return build.build_trained(known, layout.width_rule, converted, labels, name, asked.log, pixels=said.pixels)


def _to_stderr(line: str) -> None:
    print(f"mnet: {line}", file=sys.stderr)
