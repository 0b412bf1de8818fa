"""KerasHub's presets -> trained models: networks of timm's, whose images are prepared as the preset says."""

import dataclasses
import pathlib
from collections.abc import Callable

from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import find_spec
from mnet_jax.pretrained import build, convert, sources
from mnet_jax.pretrained.layouts import TIMM
from mnet_jax.pretrained.readers import keras_hub
from mnet_jax.trained import Trained

# By the kind of a preset and how many blocks its stages have; of V3 the first block is no stage of its own.
_MODELS = {
    (keras_hub.V3, (2, 3, 2, 3)): "v3_small",
    (keras_hub.V3, (2, 3, 4, 2, 3)): "v3_large",
    (keras_hub.V5, (3, 5, 37, 39)): "v5_300m",
    (keras_hub.V5, (3, 5, 16, 15)): "v5_base",
}

_TOP = ("conv_head.", "classifier.")  # timm's names of the hidden layer and of the classifier


def find(path: pathlib.Path) -> pathlib.Path | None:
    """Returns the directory of the preset that `path` is, or is a file of; None: it is something else."""
    directory = path.parent if path.name in (keras_hub.WEIGHTS, keras_hub.TASK_WEIGHTS) else path
    return directory if keras_hub.is_preset(directory) else None


def load_preset(
    path: pathlib.Path,
    known: sources.Source | None,
    name: str,
    model: str | None,
    width: float | None,
    log: Callable[[str], None],
) -> Trained:
    """Loads the directory of a preset.

    Args:
      path: the directory.
      known: whose images they are, for a preset without a layer that prepares them; None: the preset's own.
      name: what to call it.
      model: the architecture that it must be; None: whichever it is.
      width: the same of the width multiplier.
      log: is told of what was left out, a line each.

    Raises:
      ValueError: one line that says what is wrong.
    """
    preset = keras_hub.read(path)
    if preset.preparation is None and known is None:
        raise ValueError(
            f"{name} does not say how its images are prepared: it lacks {keras_hub.CONVERTER}. Say whose weights "
            "it has (--like NAME, a name of `mnet weights`)"
        )
    stages = tuple(preset.config["stackwise_num_blocks"])
    found = _MODELS.get((preset.kind, stages))
    if found is None:
        there, ours = ", ".join(map(str, stages)), ", ".join(_MODELS.values())
        raise ValueError(f"{name} has stages of {there} blocks, which none of {ours} has")
    if model not in (None, found):
        raise ValueError(f"{name} is {found}, not {model}")
    if known is not None:
        width = known.width if width is None else width
    backbone = {place: array for place, array in preset.arrays.items() if not place.startswith(_TOP)}
    converted = convert.convert(backbone, TIMM, origin=name, model=found, width=width, log=log)
    plan = resolve(find_spec(found), width=converted.width, width_rule=TIMM.width_rule)
    keras_hub.check_config(preset, plan, name)
    hidden = preset.arrays.get("conv_head.weight")
    if hidden is not None and plan.head is not None and hidden.shape[0] != plan.head.features:
        theirs, ours = hidden.shape[0], plan.head.features
        log(f"Left out of {name}: its classifier, which has {theirs:,} hidden features where {found} has {ours:,}")
    elif len(backbone) < len(preset.arrays):
        whole = {"model": found, "width": converted.width}
        converted = convert.convert(preset.arrays, TIMM, origin=name, **whole, log=log)
    v3 = preset.kind == keras_hub.V3
    source = sources.Source(
        name=name,
        layout=TIMM.name,
        model=converted.model,
        width=converted.width,
        num_classes=converted.num_classes,
        padding="symmetric" if v3 else "same",
        norm_epsilon=1e-5 if v3 else 1e-6,
        norm_decay=0.9 if v3 else None,
        statistics="imagenet",
    )
    if preset.preparation is None:
        assert known is not None
        fields = ("image_size", "statistics", "eval_crop", "interpolation")
        prepared = {field: getattr(known, field) for field in fields}
        return build.build_trained(dataclasses.replace(source, **prepared), TIMM.width_rule, converted, None, name, log)
    prepared = dataclasses.asdict(preset.preparation)
    pixels = (prepared.pop("mean"), prepared.pop("std"))
    source = dataclasses.replace(source, **prepared)
    return build.build_trained(source, TIMM.width_rule, converted, None, name, log, pixels=pixels)
