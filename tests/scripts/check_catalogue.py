"""Compares the catalogue of published weights with the installed libraries: PYTHONPATH=. PEERS/bin/python this_file.

Says which of timm's MobileNets, architectures and published names, the tables and the catalogue lack, and every field
in which an entry differs from timm's default_cfg; which names of torchvision's, Keras applications' and KerasHub's
MobileNets are neither in the catalogue nor said to be unsupported. A library that is not installed is named as untried.
Ends with 1 where there is any such thing.
"""

import importlib.util
import pathlib
import runpy
import sys

import torch

_OPS = torch.library.Library("torchvision", "DEF")  # torchvision's own library does not load without them
for _op in ("nms", "qnms"):
    _OPS.define(f"{_op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

# ruff: noqa: E402
import timm

from mnet_jax.models.count import summarize
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.pretrained import sources, timm_rows
from mnet_jax.pretrained.unsupported import UNSUPPORTED

_NORMS = (torch.nn.BatchNorm2d, timm.layers.RmsNorm2d)


def architectures() -> list[str]:
    """What is wrong with our architectures: not among ours, or with other numbers of parameters and statistics."""
    faults = []
    for name in timm.list_models("*mobilenet*"):
        if name not in timm_rows.TIMM_ARCHITECTURES:
            faults.append(f"{name}: timm {timm.__version__} has this architecture, we have not")
            continue
        model, width = timm_rows.TIMM_ARCHITECTURES[name]
        with torch.device("meta"):
            theirs = timm.create_model(name)
        plan = resolve(SPECS[model], num_classes=theirs.num_classes or None, width=width, width_rule="timm")
        _, totals = summarize(plan, 224)
        parameters = sum(value.numel() for value in theirs.parameters())
        statistics = sum(value.numel() for key, value in theirs.named_buffers() if "running" in key)
        epsilon = next(module.eps for module in theirs.modules() if isinstance(module, _NORMS))
        source = sources.timm_source(name, name, statistics="imagenet")
        pairs = {
            "parameters": (totals.params, parameters),
            "statistics": (totals.batch_statistics, statistics),
            "norm epsilon": (source.norm_epsilon, epsilon),
        }
        faults += different(name, pairs)
    return faults


def published() -> list[str]:
    """What is wrong with the catalogue: names that it lacks, fields that differ, names that timm has no longer."""
    names = timm.list_pretrained("*mobilenet*")
    faults = []
    for name in names:
        source = sources.CATALOGUE.get(f"timm/{name}")
        if source is None:
            faults.append(f"{name}: timm {timm.__version__} publishes these weights, the catalogue lacks them")
            continue
        theirs = timm.models.get_pretrained_cfg(name)
        mean, std = (tuple(round(255 * v, 4) for v in channel) for channel in (theirs.mean, theirs.std))
        pairs = {
            "image_size": (source.image_size, theirs.input_size[1]),
            "statistics": (sources.STATISTICS[source.statistics], (mean, std)),
            "eval_crop": (source.eval_crop, sources.timm_crop(theirs.input_size[1], theirs.crop_pct)),
            "interpolation": (source.interpolation, theirs.interpolation),
            "crop_mode": ("center", theirs.crop_mode),
            "num_classes": (source.num_classes, theirs.num_classes),
        }
        faults += different(name, pairs)
    ours = [name.removeprefix("timm/") for name in sources.CATALOGUE if name.startswith("timm/")]
    return faults + [f"{name}: timm {timm.__version__} publishes no such weights" for name in ours if name not in names]


def torchvision_names() -> list[str]:
    """The names of all weights of its MobileNets, detectors and segmenters on them too."""
    from torchvision import models

    return [
        f"torchvision/{name}.{weights.name}"
        for name in models.list_models()
        if "mobilenet" in name
        for weights in models.get_model_weights(name)
    ]


def keras_names() -> list[str]:
    """The names of Keras applications' V3 files as the catalogue has them; of V1 and V2 Keras has no list."""
    from keras import applications
    from keras.src.applications import mobilenet_v3

    known = {"MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small", "NASNetMobile"}
    names = [f"keras/{name}" for name in dir(applications) if "Mobile" in name and name not in known]
    for key in mobilenet_v3.WEIGHTS_HASHES:  # large_minimalistic_224_1.0_float
        kind, size, width, _ = key.rsplit("_", 3)
        names.append(f"keras/mobilenet_v3_{kind}_{width}_{size}")
    return names


def keras_hub_names() -> list[str]:
    """The presets of KerasHub's MobileNets, read without importing it."""
    (folder,) = importlib.util.find_spec("keras_hub").submodule_search_locations
    files = pathlib.Path(folder).glob("src/models/mobilenet*/mobilenet*_presets.py")
    return [f"keras_hub/{name}" for file in files for name in runpy.run_path(str(file))["backbone_presets"]]


LIBRARIES = {"torchvision": torchvision_names, "keras": keras_names, "keras_hub": keras_hub_names}


def other_libraries() -> list[str]:
    """What is wrong with the names of the libraries beside timm."""
    faults = []
    for library, names in LIBRARIES.items():
        if importlib.util.find_spec(library) is None:
            print(f"{library}: not installed, untried")
            continue
        found = names()
        print(f"{library}: {len(found)} names")
        faults += [
            f"{name}: published, and neither in the catalogue nor said to be unsupported"
            for name in found
            if name not in sources.CATALOGUE and name not in UNSUPPORTED
        ]
        ours = [name for name in UNSUPPORTED if name.startswith(f"{library}/") and name not in found]
        faults += [f"{name}: said to be unsupported, and not published" for name in ours]
    return faults


def different(name: str, pairs: dict[str, tuple]) -> list[str]:
    return [f"{name}: {field} {ours}, timm has {theirs}" for field, (ours, theirs) in pairs.items() if ours != theirs]


def main() -> None:
    faults = architectures() + published() + other_libraries()
    known = sum(name.startswith("timm/") for name in sources.CATALOGUE)
    print(f"timm {timm.__version__}: {len(timm_rows.TIMM_ARCHITECTURES)} architectures and {known} published names")
    print("\n".join(faults) or "all as timm has them")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
