"""Says which is nearer to float64, a torch network or ours, logits and maps: PYTHONPATH=. PEERS/bin/python this_file.

    parity_float64.py torchvision mobilenet_v3_large --size 160 --classes 5
    parity_float64.py timm mobilenetv3_large_150d --size 64

Weights and statistics are random, by the rule of `random_weights.py`, in a file of the library's own format. A relative
error is the largest absolute difference over the largest absolute value of the peer's float64 result.
"""

# ruff: noqa: E402
import argparse
import json
import pathlib
import sys
import tempfile

import jax
import numpy as np
import torch

_OPS = torch.library.Library("torchvision", "DEF")  # torchvision's own library does not load without them
for _op in ("nms", "qnms"):
    _OPS.define(f"{_op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import safetensors.torch
import timm
import torchvision

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "pretrained"))
import random_weights

from mnet_jax.pretrained.load import load_pretrained
from mnet_jax.trained import build_model


def peer(library: str, name: str, classes: int) -> torch.nn.Module:
    make = timm.create_model if library == "timm" else torchvision.models.get_model
    model = make(name, num_classes=classes).eval()
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            value.copy_(torch.from_numpy(random_weights.draw(key, tuple(value.shape))))
    return model


def save(model: torch.nn.Module, library: str, name: str, folder: pathlib.Path) -> pathlib.Path:
    if library == "torchvision":
        torch.save(model.state_dict(), folder / "model.pth")
        return folder / "model.pth"
    known = {"input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.875}
    about = {"architecture": name, "pretrained_cfg": known | {"interpolation": "bicubic"}}
    (folder / "config.json").write_text(json.dumps(about))
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def run(model: torch.nn.Module, images: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    with torch.no_grad():
        return model.to(dtype)(torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype)).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=("timm", "torchvision"))
    parser.add_argument("name")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--classes", type=int, default=10)
    args = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", "highest")
    model, images = peer(args.library, args.name, args.classes), random_weights.images(args.size)
    with tempfile.TemporaryDirectory() as folder:
        trained = load_pretrained(save(model, args.library, args.name, pathlib.Path(folder)), log=lambda line: None)
    network = build_model(trained.config, trained.info)
    ours = np.asarray(jax.jit(network.apply)(trained.variables, images))
    single, double = (run(model, images, dtype) for dtype in (torch.float32, torch.float64))
    largest = np.abs(double).max()
    for what, left, right in (("ours - theirs", ours, single), ("theirs", single, double), ("ours", ours, double)):
        off = "" if "-" in what else ", off float64"
        print(f"{args.library} {args.name} {args.size} px, {what}{off}: {np.abs(left - right).max() / largest:.1e}")


if __name__ == "__main__":
    main()
