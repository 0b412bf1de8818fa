"""Compares the catalogue of published weights with the installed timm: PYTHONPATH=. PEERS/bin/python this_file.

Says which of timm's MobileNets, architectures and published names, the tables and the catalogue lack, and every field
in which an entry differs from timm's default_cfg. Ends with 1 where there is any such thing.
"""

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


def architectures() -> list[str]:
    """What is wrong with our architectures: not among ours, or with other numbers of parameters and statistics."""
    faults = []
    for name in timm.list_models("*mobilenet*"):
        if name in timm_rows.TIMM_UNSUPPORTED:
            continue
        if name not in timm_rows.TIMM_ARCHITECTURES:
            faults.append(f"{name}: timm {timm.__version__} has this architecture, we have not")
            continue
        model, width = timm_rows.TIMM_ARCHITECTURES[name]
        _, totals = summarize(resolve(SPECS[model], num_classes=1000, width=width, width_rule="timm"), 224)
        theirs = timm.create_model(name)
        parameters = sum(value.numel() for value in theirs.parameters())
        statistics = sum(value.numel() for key, value in theirs.named_buffers() if "running" in key)
        epsilon = next(module.eps for module in theirs.modules() if isinstance(module, torch.nn.BatchNorm2d))
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
        if name.partition(".")[0] in timm_rows.TIMM_UNSUPPORTED:
            continue
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
            "num_classes": (source.num_classes, theirs.num_classes),
        }
        faults += different(name, pairs)
    ours = [name.removeprefix("timm/") for name in sources.CATALOGUE if name.startswith("timm/")]
    return faults + [f"{name}: timm {timm.__version__} publishes no such weights" for name in ours if name not in names]


def different(name: str, pairs: dict[str, tuple]) -> list[str]:
    return [f"{name}: {field} {ours}, timm has {theirs}" for field, (ours, theirs) in pairs.items() if ours != theirs]


def main() -> None:
    faults = architectures() + published()
    left_out = ", ".join(timm_rows.TIMM_UNSUPPORTED)
    known = sum(name.startswith("timm/") for name in sources.CATALOGUE)
    print(f"timm {timm.__version__}: {len(timm_rows.TIMM_ARCHITECTURES)} architectures and {known} published names")
    print(f"left out: {left_out}")
    print("\n".join(faults) or "all as timm has them")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
