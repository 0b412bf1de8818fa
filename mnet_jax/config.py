"""Configs: load a file with its overrides, check every value, to and from JSON, and how two differ.

The schema is `schema.py`; a field exists there or nowhere, and this is the only place that checks one.
"""

import difflib
import importlib.util
import json
import math
import pathlib
import re
import sys
import types
from collections.abc import Iterator, Sequence

import ml_collections

from mnet_jax import errors, schema

# Fields of checkpoints written before 2026-11-28, and where each is now.
MOVED = {
    "train.label_smoothing": "task.label_smoothing",
    "train.class_weights": "task.class_weights",
    "train.feature_views": "train.embedding_views",
    "train.feature_dir": "train.embedding_dir",
}

_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text in quotes", bool: "True or False", tuple: "a tuple"}


# --- Files ---


def directory() -> pathlib.Path:
    """Returns the directory of the configs that come with the project: in the package, or beside it in a checkout."""
    package = pathlib.Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find(name: str) -> pathlib.Path:
    """Returns the path of a config file: `name` is a path, or the bare name of one that comes with the project.

    Raises:
      ValueError: if there is none; names those that there are.
    """
    path = pathlib.Path(name)
    if path.is_file():
        return path
    shipped = directory() / f"{name}.py"
    if path.name == name and shipped.is_file():
        return shipped
    there = sorted(file.stem for file in directory().glob("[!_]*.py"))
    raise ValueError(
        f"no config file {name!r}: give the path of one, or one of {', '.join(there)}."
        f"{errors.did_you_mean(path.stem, there)}"
    )


def load(name: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Returns the config of a file, not yet checked, with overrides such as "--config.train.batch_size=64" applied.

    Args:
      name: as for `find`.
      overrides: flags as on the command line of train.py; `None` as a value always means None.

    Raises:
      ValueError: if there is no such file or field, or the value has another type.
    """
    from absl import flags
    from ml_collections import config_flags

    config = _read_file(find(name))
    known = dict(_leaves(config))
    for path in (match[1] for match in map(re.compile(r"--?(?:no)?config\.([\w.]+)").match, overrides) if match):
        if path not in known:
            raise ValueError(
                f"unknown config field {path!r}.{_similar_field(path, known)} All are in mnet_jax/schema.py"
            )
    # config_flags cannot set a field of type int, float or str to None. Of one that is given twice the last counts.
    last = {path: arg for arg in overrides for path in re.findall(r"^--?config\.([\w.]+)", arg)}
    nones = [path for path, arg in last.items() if arg.endswith(f"config.{path}=None")]
    argv = ["", *(arg for arg in overrides if not re.fullmatch(r"--?config\.[\w.]+=None", arg))]
    values = flags.FlagValues()
    previous, sys.argv = sys.argv, argv  # where config_flags looks for overrides
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values)
        rest = values(argv)[1:]
        if rest:
            raise ValueError(f"unexpected argument {rest[0]!r}: every option starts with --")
        for field in nones:
            set_field(config, field, None)
    except (flags.Error, AttributeError, KeyError, TypeError) as error:
        text = str(error.args[0] if isinstance(error, KeyError | AttributeError) and error.args else error)
        raise ValueError(errors.of_flag(text)) from error
    finally:
        sys.argv = previous
    return config


def _read_file(path: pathlib.Path) -> ml_collections.ConfigDict:
    """Returns what `get_config()` of a Python file gives."""
    spec = importlib.util.spec_from_file_location(f"mnet_jax_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file: a config is a file NAME.py with a function get_config()")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config() if hasattr(module, "get_config") else None
    if not isinstance(config, ml_collections.ConfigDict):
        raise ValueError(f"{path}: get_config() must return a ConfigDict, such as mnet_jax.schema.get_config() makes")
    return config


# --- Fields ---


def image_size(data: ml_collections.ConfigDict) -> tuple[int, int]:
    """Returns (height, width) in pixels of `data.image_size`, which is one number or a pair."""
    size = data.image_size
    pair = schema.size_pair(size)
    if pair is None or not all(32 <= side <= 4096 for side in pair):
        raise ValueError(f"data.image_size={size!r}: give one number or (height, width), each from 32 to 4096 pixels")
    return pair


def field(config: ml_collections.ConfigDict, path: str) -> object:
    """Returns the value of "section.name"."""
    for name in path.split("."):
        config = config[name]
    return config


def flatten(config: ml_collections.ConfigDict) -> dict[str, object]:
    """Returns {"data.name": "digits", ...} with tuples as lists, as JSON has them."""
    return {path: json.loads(json.dumps(v)) if isinstance(v, tuple | list) else v for path, v in _leaves(config)}


def _leaves(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key in config:
        value = config[key]
        if isinstance(value, ml_collections.ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def set_field(config: ml_collections.ConfigDict, path: str, value: object) -> None:
    """Sets "section.name" to a value of any type, as a field such as `data.image_size` has several."""
    *parents, key = path.split(".")
    for parent in parents:
        config = config[parent]
    with config.ignore_type():
        config[key] = value


def change(config: ml_collections.ConfigDict, path: str, value: object) -> None:
    """Sets "section.name" to a value that its field may have.

    Raises:
      ValueError: if there is no such field, or it may not have that value.
    """
    defaults = schema.get_config()
    known = dict(_leaves(defaults))
    if path not in known:
        raise ValueError(f"unknown config field {path!r}.{_similar_field(path, known)} All are in mnet_jax/schema.py")
    if value is not None or known[path] is not None:
        _check_value(path, value, _type_of(defaults, path))
    set_field(config, path, value)


# --- JSON ---


def to_json(config: ml_collections.ConfigDict) -> str:
    """Returns the config as JSON text, fields sorted, the same on every machine."""
    return json.dumps(config.to_dict(), indent=1, sort_keys=True, default=list)


def from_json(text: str) -> ml_collections.ConfigDict:
    """Returns the config that `to_json` wrote, on top of today's schema: fields added since have their defaults.

    Raises:
      ValueError: if it has a field that the schema no longer knows.
    """
    config = schema.get_config()
    known = dict(_leaves(config))
    for path, value in _leaves(ml_collections.ConfigDict(json.loads(text))):
        path = MOVED.get(path, path)
        if path not in known:
            raise ValueError(f"the saved config has the field {path!r}, which this version of mnet_jax does not know")
        set_field(config, path, tuple(value) if isinstance(value, list) else value)
    return config


def difference(ours: ml_collections.ConfigDict, theirs: ml_collections.ConfigDict) -> dict[str, str]:
    """Returns {field: "field: this here, that there"} for each field in which two configs differ."""
    left, right = flatten(ours), flatten(theirs)
    return {path: f"{path}: {left.get(path)!r} here, {right.get(path)!r} there"
            for path in sorted({*left, *right}) if left.get(path) != right.get(path)}  # fmt: skip


# --- Validation ---


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks a config against the schema: names, types, values, and one unit for each duration.

    Raises:
      ValueError: one line with what was given, what is allowed and what to type.
    """
    defaults = schema.get_config()
    known, given = dict(_leaves(defaults)), dict(_leaves(config))
    for path in given:
        if path not in known:
            raise ValueError(
                f"unknown config field {path!r}.{_similar_field(path, known)} All are in mnet_jax/schema.py"
            )
    for path in known:
        if path not in given:
            raise ValueError(
                f"config field {path!r} is missing: start from mnet_jax.schema.get_config() and override its fields"
            )
    for path, value in given.items():
        if value is not None:
            _check_value(path, value, _type_of(defaults, path))
        elif path in schema.FROM_WEIGHTS:
            if given["init.checkpoint"] is given["init.weights"] is None:
                raise ValueError(
                    f"{path}=None means that of a checkpoint or of published weights: give "
                    "--config.init.checkpoint=DIR or --config.init.weights=NAME"
                )
        elif known[path] is not None:
            raise ValueError(
                f"{path}=None: this field has no default of its own; mnet_jax/schema.py has {known[path]!r}"
            )
    _check_durations(given)
    _check_sources(given)
    _check_data(config)
    _check_embedding(config)


def _similar_field(path: str, known: dict[str, object]) -> str:
    if path in MOVED:
        return f" It is {MOVED[path]!r} now."
    near = errors.did_you_mean(path, known)
    if not near:  # the right name in the wrong section
        name = path.rpartition(".")[2]
        names = difflib.get_close_matches(name, [field.rpartition(".")[2] for field in known], 1)
        found = [field for field in known if names and field.rpartition(".")[2] == names[0]]
        near = f" Did you mean {found[0]!r}?" if found else ""
    return near


def _type_of(defaults: ml_collections.ConfigDict, path: str) -> type:
    *parents, key = path.split(".")
    for parent in parents:
        defaults = defaults[parent]
    return defaults.get_type(key)


def _check_value(path: str, value: object, kind: type) -> None:
    """Raises ValueError unless a value that is not None has its field's type and is one of those allowed."""
    if kind not in (object, types.NoneType):
        fits = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
        fits = fits or (kind is float and isinstance(value, int) and not isinstance(value, bool))
        fits = fits or (kind is tuple and isinstance(value, list))
        if not fits:
            raise ValueError(f"{path}={value!r}: it must be {_TYPE_NAMES[kind]}")
    if path in schema.CHOICES and value not in schema.CHOICES[path]:
        choices = schema.CHOICES[path]
        raise ValueError(
            f"{path}={value!r}: choose one of {', '.join(map(repr, choices))}.{errors.did_you_mean(value, choices)}"
        )
    if path in schema.RANGES and value not in schema.RANGES[path]:
        raise ValueError(f"{path}={value!r}: it must be {schema.RANGES[path]}")


def _check_durations(given: dict[str, object]) -> None:
    for first, second in schema.DURATIONS:
        if given[first] is not None and given[second] is not None:
            raise ValueError(
                f"{first}={given[first]!r} and {second}={given[second]!r} are two units for one duration: "
                f"set one of them to None (--config.{first}=None)"
            )
    if given["train.num_epochs"] is None and given["train.num_steps"] is None:
        raise ValueError("the length of the run is missing: set train.num_epochs or train.num_steps")
    if (
        given["schedule.name"] == "exponential"
        and given["schedule.decay_epochs"] is given["schedule.decay_steps"] is None
    ):
        raise ValueError('schedule.name="exponential" needs schedule.decay_epochs or schedule.decay_steps')


def _check_sources(given: dict[str, object]) -> None:
    if given["init.checkpoint"] is not None and given["init.weights"] is not None:
        raise ValueError(
            f"init.checkpoint={given['init.checkpoint']!r} and init.weights={given['init.weights']!r}: "
            "a run starts from one of them; set the other to None"
        )
    if given["train.freeze"] != "none" and given["init.checkpoint"] is given["init.weights"] is None:
        raise ValueError(
            f"train.freeze={given['train.freeze']!r} keeps weights that somebody trained: give them with "
            "--config.init.checkpoint=DIR"
        )


def _check_data(config: ml_collections.ConfigDict) -> None:
    data = config.data
    if (data.name == "folder") != (data.folder is not None):
        raise ValueError(
            f"data.name={data.name!r} with data.folder={data.folder!r}: "
            'for your own photos set data.name="folder" and data.folder to their directory; otherwise leave it None'
        )
    if data.image_size is not None:
        image_size(data)
    for name in ("mean", "std"):
        value = data[name]
        if value is None:
            continue
        three = isinstance(value, tuple | list) and len(value) == 3 and all(isinstance(v, int | float) for v in value)
        if not three or not all(math.isfinite(v) for v in value) or (name == "std" and min(value) <= 0):
            above = " above 0" if name == "std" else ""
            raise ValueError(f"data.{name}={value!r}: give three numbers{above}, one a channel, of pixels in 0..255")
    for name, top in (("crop_area", 1.0), ("crop_ratio", math.inf), ("crop_scale", 16)):
        low, high = data[name] if len(data[name]) == 2 else (math.nan, math.nan)
        if not 0 < low <= high <= top:
            raise ValueError(f"data.{name}={tuple(data[name])!r}: give (lowest, highest), above 0 and at most {top:g}")


def _check_embedding(config: ml_collections.ConfigDict) -> None:
    """Embeddings are computed once: nothing may be set that would make them other ones each time."""
    views, augment = config.train.embedding_views, config.augment
    if not views:
        return
    strengths = ("brightness", "contrast", "saturation", "hue", "erase_prob")
    layers = augment.randaugment_layers and augment.randaugment_prob
    mixes = augment.mix_prob and (augment.mixup_alpha or augment.cutmix_alpha)
    for wanted, fits in (
        ('train.freeze="backbone"', config.train.freeze == "backbone"),
        ("model.norm_frozen=True", config.model.norm_frozen),
        ("model.drop_path=0.0", not config.model.drop_path),
        ("every augment.* off", not (any(augment[name] for name in strengths) or layers or mixes)),
    ):
        if not fits:
            raise ValueError(
                f"train.embedding_views={views} trains on embeddings that are computed once, which "
                f"needs {wanted}; or set train.embedding_views=0"
            )
