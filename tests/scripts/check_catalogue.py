"""Compares the catalogue of published weights with the installed timm: PYTHONPATH=. PEERS/bin/python this_file.

Says which of timm's MobileNets the catalogue lacks, and every field in which an entry differs from timm's default_cfg.
"""

import torch

_OPS = torch.library.Library("torchvision", "DEF")  # torchvision's own library does not load without them
for _op in ("nms", "qnms"):
    _OPS.define(f"{_op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

# ruff: noqa: E402
import timm

from mnet_jax.pretrained import sources


def main() -> None:
    faults, count = [], 0
    for name in [
        *timm.list_models("mobilenetv*", pretrained=True),
        *timm.list_models("tf_mobilenetv*", pretrained=True),
    ]:
        architecture = name.partition(".")[0]
        if architecture in sources.TIMM_UNSUPPORTED:
            continue
        source = sources.CATALOGUE.get(f"timm/{name}")
        if source is None:
            faults.append(f"{name}: not in the catalogue")
            continue
        count += 1
        theirs = timm.models.get_pretrained_cfg(name)
        mean, std = (tuple(round(255 * v, 4) for v in channel) for channel in (theirs.mean, theirs.std))
        pairs = {
            "image_size": (source.image_size, theirs.input_size[1]),
            "statistics": (sources.STATISTICS[source.statistics], (mean, std)),
            "eval_crop": (source.eval_crop, sources.timm_crop(theirs.input_size[1], theirs.crop_pct)),
            "interpolation": (source.interpolation, theirs.interpolation),
            "num_classes": (source.num_classes, theirs.num_classes),
        }
        faults += [
            f"{name}: {field} {ours}, timm has {those}" for field, (ours, those) in pairs.items() if ours != those
        ]
    print("\n".join(faults) or f"{count} entries, all as in timm {timm.__version__}")


if __name__ == "__main__":
    main()
