"""From a config to a run plan: every value checked, every duration in steps, every batch in images a device.

The schema is `configs/default.py`; a field exists there or nowhere.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterator

import ml_collections

from configs import default
from mnet_jax.augment.settings import AugmentConfig

if typing.TYPE_CHECKING:
    from mnet_jax.data.catalog import DatasetInfo

# Fields with a closed set of values.
CHOICES = {
    "model.width_rule": ("tf", "timm", "torchvision"),
    "model.dtype": ("float32", "bfloat16"),
    "model.padding": ("same", "symmetric"),
    "model.stem_stride": (4, 2, 1),
    "data.crop": ("inception", "pad", "center"),
    "data.interpolation": ("bilinear", "bicubic"),
    "train.freeze": ("none", "backbone"),
    "train.class_weights": ("none", "balanced"),
    "optimizer.name": ("rmsprop", "sgd", "adamw"),
    "schedule.name": ("cosine", "exponential", "constant"),
    "checkpoint.best_metric": ("top1", "top5", "loss"),
}

# Fields with a range: lowest, highest, both allowed. An open end is infinity; a strict bound is _TINY inside.
_TINY = 1e-12
RANGES = {
    "seed": (0, 2**31 - 1),
    "model.width": (_TINY, 16.0),
    "model.dropout": (0.0, 1.0 - _TINY),
    "model.drop_path": (0.0, 1.0 - _TINY),
    "model.norm_decay": (0.0, 1.0 - _TINY),
    "model.norm_epsilon": (_TINY, 1.0),
    "data.crop_pad": (0, 1024),
    "data.eval_crop": (0.05, 1.0),
    "data.shuffle_buffer": (1, math.inf),
    "data.cache_mb": (0, math.inf),
    "train.batch_size": (1, math.inf),
    "train.num_epochs": (_TINY, math.inf),
    "train.num_steps": (1, math.inf),
    "train.label_smoothing": (0.0, 1.0 - _TINY),
    "train.accumulate_steps": (1, math.inf),
    "train.part_size": (1, math.inf),
    "train.num_devices": (1, math.inf),
    "train.feature_views": (0, 1000),
    "train.patience": (1, math.inf),
    "optimizer.momentum": (0.0, 1.0 - _TINY),
    "optimizer.decay": (0.0, 1.0 - _TINY),
    "optimizer.epsilon": (_TINY, math.inf),
    "optimizer.beta1": (0.0, 1.0 - _TINY),
    "optimizer.beta2": (0.0, 1.0 - _TINY),
    "optimizer.weight_decay": (0.0, math.inf),
    "optimizer.clip_norm": (_TINY, math.inf),
    "optimizer.backbone_lr": (_TINY, math.inf),
    "optimizer.layer_decay": (_TINY, 1.0),
    "schedule.lr_per_256": (_TINY, math.inf),
    "schedule.warmup_epochs": (0.0, math.inf),
    "schedule.warmup_steps": (0, math.inf),
    "schedule.end_factor": (0.0, 1.0),
    "schedule.decay_rate": (_TINY, 1.0),
    "schedule.decay_epochs": (_TINY, math.inf),
    "schedule.decay_steps": (1, math.inf),
    "ema.decay": (0.0, 1.0 - _TINY),
    "eval.batch_size": (1, math.inf),
    "eval.every_epochs": (_TINY, math.inf),
    "eval.every_steps": (1, math.inf),
    "checkpoint.every_epochs": (_TINY, math.inf),
    "checkpoint.every_steps": (1, math.inf),
    "checkpoint.keep": (1, math.inf),
    "quantize.range_decay": (0.0, 1.0 - _TINY),
    "log.every_steps": (1, math.inf),
}

# Fields that a fine-tuning config may leave None: `training/initial.py` takes them from its checkpoint or weights.
ADOPTED = ("model.name", "data.image_size", "data.eval_crop", "data.interpolation")

# One duration, two units: give one of them.
DURATIONS = (
    ("train.num_epochs", "train.num_steps"),
    ("schedule.warmup_epochs", "schedule.warmup_steps"),
    ("schedule.decay_epochs", "schedule.decay_steps"),
    ("eval.every_epochs", "eval.every_steps"),
    ("checkpoint.every_epochs", "checkpoint.every_steps"),
)


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """What a config comes to on this data set and these devices. Steps are completed updates, batches are images."""

    total_steps: int
    steps_per_epoch: float
    warmup_steps: int
    decay_steps: int
    peak_lr: float
    eval_steps: float  # between two evaluations; a fraction where it comes from epochs
    checkpoint_steps: float | None
    log_steps: int
    num_devices: int
    device_batch: int
    num_parts: int  # of a device's batch, one after the other
    eval_device_batch: int
    image_size: tuple[int, int]

    def epoch(self, step: int) -> float:
        """Passes over the training data after `step` updates."""
        return step / self.steps_per_epoch


def due(step: int, every: float | None, total_steps: int) -> bool:
    """Whether something that happens each `every` steps (a fraction is fine) and at the end is due at `step`."""
    return step == total_steps or (every is not None and step // every > (step - 1) // every)


def image_size(config: ml_collections.ConfigDict) -> tuple[int, int]:
    """(height, width) in pixels of `config.data.image_size`, which is one number or a pair."""
    size = config.data.image_size
    pair = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(side, int) and 32 <= side <= 4096 for side in pair):
        raise ValueError(f"data.image_size={size!r}: give one number or (height, width), each from 32 to 4096 pixels")
    return pair


def flatten(config: ml_collections.ConfigDict) -> dict[str, object]:
    """`{"data.name": "digits", ...}`, tuples as lists, as JSON has them."""
    return {path: list(value) if isinstance(value, tuple) else value for path, value in _leaves(config)}


def _leaves(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key in config:
        value = config[key]
        if isinstance(value, ml_collections.ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def to_json(config: ml_collections.ConfigDict) -> str:
    """The config as JSON text, fields sorted, the same on every machine."""
    return json.dumps(config.to_dict(), indent=1, sort_keys=True, default=list)


def from_json(text: str) -> ml_collections.ConfigDict:
    """The config that `to_json` wrote, on top of today's schema: fields that were added since have their defaults.

    Raises:
      ValueError: if it has a field that the schema no longer knows.
    """
    config = default.get_config()
    schema = dict(_leaves(config))
    for path, value in _leaves(ml_collections.ConfigDict(json.loads(text))):
        if path not in schema:
            raise ValueError(f"the saved config has the field {path!r}, which this version of mnet_jax does not know")
        _set(config, path, tuple(value) if isinstance(value, list) else value)
    return config


def _set(config: ml_collections.ConfigDict, path: str, value: object) -> None:
    *parents, key = path.split(".")
    for parent in parents:
        config = config[parent]
    with config.ignore_type():
        config[key] = value


def difference(ours: ml_collections.ConfigDict, theirs: ml_collections.ConfigDict) -> list[str]:
    """One line for each field in which two configs differ."""
    left, right = flatten(ours), flatten(theirs)
    return [f"{path}: {left.get(path)!r} here, {right.get(path)!r} there"
            for path in sorted({*left, *right}) if left.get(path) != right.get(path)]  # fmt: skip


def _type_name(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "text in quotes", bool: "True or False", tuple: "a tuple"}[
        kind
    ]


def _schema_type(schema: ml_collections.ConfigDict, path: str) -> type:
    *parents, key = path.split(".")
    for parent in parents:
        schema = schema[parent]
    return schema.get_type(key)


def _check_type(path: str, value: object, kind: type) -> None:
    if kind in (object, types.NoneType):
        return
    fits = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
    fits = fits or (kind is float and isinstance(value, int) and not isinstance(value, bool))
    fits = fits or (kind is tuple and isinstance(value, list))
    if not fits:
        raise ValueError(f"{path}={value!r}: it must be {_type_name(kind)}")


def suggest(name: str, known: typing.Iterable[str]) -> str:
    """' Did you mean ...?' for the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks a config against the schema: names, types, values, and one unit for each duration.

    Raises:
      ValueError: one line with what was given, what is allowed and what to type.
    """
    schema_config = default.get_config()
    schema, given = dict(_leaves(schema_config)), dict(_leaves(config))
    for path in given:
        if path not in schema:
            near = suggest(path, schema) or suggest(path.rpartition(".")[2], schema)
            raise ValueError(f"unknown config field {path!r}.{near} All fields are in configs/default.py")
    for path in schema:
        if path not in given:
            raise ValueError(f"config field {path!r} is missing: start from configs/default.py and override its fields")
    for path, value in given.items():
        if value is None:
            if path in ADOPTED:
                if given["init.checkpoint"] is given["init.weights"] is None:
                    raise ValueError(
                        f"{path}=None means that of a checkpoint or of published weights: give "
                        "--config.init.checkpoint=DIR or --config.init.weights=NAME"
                    )
            elif schema[path] is not None:
                raise ValueError(
                    f"{path}=None: this field has no default of its own; configs/default.py has {schema[path]!r}"
                )
            continue
        _check_type(path, value, _schema_type(schema_config, path))
        if path in CHOICES and value not in CHOICES[path]:
            near = suggest(str(value), map(str, CHOICES[path]))
            raise ValueError(f"{path}={value!r}: choose one of {', '.join(map(repr, CHOICES[path]))}.{near}")
        if path in RANGES:
            low, high = RANGES[path]
            if not low <= value <= high:  # NaN fails too
                raise ValueError(f"{path}={value!r}: it must be {_range_text(low, high)}")
    for pair in DURATIONS:
        if all(given[path] is not None for path in pair):
            first, second = pair
            raise ValueError(
                f"{first}={given[first]!r} and {second}={given[second]!r} are two units for one duration: "
                f"set one of them to None (--config.{first}=None)"
            )
    if given["init.checkpoint"] is not None and given["init.weights"] is not None:
        raise ValueError(
            f"init.checkpoint={given['init.checkpoint']!r} and init.weights={given['init.weights']!r}: "
            "a run starts from one of them; set the other to None"
        )
    if given["train.num_epochs"] is None and given["train.num_steps"] is None:
        raise ValueError("the length of the run is missing: set train.num_epochs or train.num_steps")
    if (
        config.schedule.name == "exponential"
        and given["schedule.decay_epochs"] is given["schedule.decay_steps"] is None
    ):
        raise ValueError('schedule.name="exponential" needs schedule.decay_epochs or schedule.decay_steps')
    if (config.data.name == "folder") != (config.data.folder is not None):
        raise ValueError(
            f"data.name={config.data.name!r} with data.folder={config.data.folder!r}: "
            'for your own photos set data.name="folder" and data.folder to their directory; otherwise leave it None'
        )
    if config.train.freeze != "none" and not any(given.get(path) for path in ("init.checkpoint", "init.weights")):
        raise ValueError(
            f"train.freeze={config.train.freeze!r} keeps weights that somebody trained: give them with "
            "--config.init.checkpoint=DIR"
        )
    _check_features(config, AugmentConfig.from_config(config.augment))
    if config.data.image_size is not None:
        image_size(config)
    for path in ("data.mean", "data.std"):
        value = given[path]
        if value is not None and not (
            isinstance(value, tuple | list) and len(value) == 3 and all(isinstance(v, int | float) for v in value)
        ):
            raise ValueError(f"{path}={value!r}: give three numbers, one a channel, of pixels in 0..255")
    for path in ("data.crop_area", "data.crop_ratio"):
        low, high = given[path] if len(given[path]) == 2 else (math.nan, math.nan)
        top = 1.0 if path == "data.crop_area" else math.inf
        if not 0 < low <= high <= top:
            raise ValueError(f"{path}={tuple(given[path])!r}: give (lowest, highest), above 0 and at most {top:g}")


def _check_features(config: ml_collections.ConfigDict, augment: AugmentConfig) -> None:
    """Features are computed once: nothing may be set that would make them other ones each time."""
    if not config.train.feature_views:
        return
    for wanted, fits in (
        ('train.freeze="backbone"', config.train.freeze == "backbone"),
        ("model.norm_frozen=True", config.model.norm_frozen),
        ("model.drop_path=0.0", not config.model.drop_path),
        ("every augment.* off", augment.is_off),
    ):
        if not fits:
            raise ValueError(
                f"train.feature_views={config.train.feature_views} trains on features that are computed once, which "
                f"needs {wanted}; or set train.feature_views=0"
            )


def _range_text(low: float, high: float) -> str:
    low_text = "above 0" if low == _TINY else f"at least {low:g}"
    if high == math.inf:
        return low_text
    return f"{low_text} and " + ("below 1" if high == 1.0 - _TINY else f"at most {high:g}")


def _steps(config: ml_collections.ConfigDict, pair: tuple[str, str], steps_per_epoch: float) -> float | None:
    """The duration in steps, or None where neither unit is given."""
    flat = dict(_leaves(config))
    epochs, steps = (flat[path] for path in pair)
    if steps is not None:
        return steps
    return None if epochs is None else epochs * steps_per_epoch


def num_parts(config: ml_collections.ConfigDict, device_batch: int) -> int:
    """Into how many equal parts the step splits a device's batch: the fewest that the two fields allow."""
    largest = config.train.part_size or device_batch
    return fewest_parts(device_batch, max(config.train.accumulate_steps, device_batch / largest))


def fewest_parts(device_batch: int, least: float) -> int | None:
    """The smallest divisor of `device_batch` that is at least `least`; None where there is none."""
    return next((n for n in range(math.ceil(least), device_batch + 1) if device_batch % n == 0), None)


def derive(config: ml_collections.ConfigDict, info: "DatasetInfo", num_devices: int) -> RunPlan:
    """Resolves a validated config for a data set and the number of devices of the whole run.

    Raises:
      ValueError: if the batch does not divide over the devices, or the warm-up is longer than the run.
    """
    batch, parts = config.train.batch_size, config.train.accumulate_steps
    if batch % (num_devices * parts):
        fit = max(1, round(batch / (num_devices * parts))) * num_devices * parts
        raise ValueError(
            f"train.batch_size={batch} does not divide into {num_devices} devices x {parts} accumulation steps: "
            f"try --config.train.batch_size={fit}"
        )
    steps_per_epoch = info.num_train / batch
    durations = {pair[0]: _steps(config, pair, steps_per_epoch) for pair in DURATIONS}
    total_steps = max(1, round(durations["train.num_epochs"]))
    warmup_steps = round(durations["schedule.warmup_epochs"] or 0)
    if warmup_steps >= total_steps and warmup_steps > 0:
        raise ValueError(
            f"the warm-up of {warmup_steps} steps leaves nothing of a run of {total_steps} steps: shorten it"
        )
    checkpoint_steps = durations["checkpoint.every_epochs"]
    return RunPlan(
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=warmup_steps,
        decay_steps=max(1, round(durations["schedule.decay_epochs"] or 1)),
        peak_lr=config.schedule.lr_per_256 * batch / 256,
        eval_steps=max(1, durations["eval.every_epochs"] or steps_per_epoch),
        checkpoint_steps=None if checkpoint_steps is None else max(1, checkpoint_steps),
        log_steps=config.log.every_steps,
        num_devices=num_devices,
        device_batch=batch // num_devices,
        num_parts=num_parts(config, batch // num_devices),
        eval_device_batch=math.ceil(min(config.eval.batch_size, info.num_eval) / num_devices),
        image_size=image_size(config),
    )
