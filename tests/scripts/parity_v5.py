"""Compares MobileNetV5 with timm's, map by map, and prints a Markdown table: PYTHONPATH=. PEERS/bin/python this_file.

Needs torch and timm beside mnet_jax's own dependencies; the test suite never runs it. Weights are random, by the rule
of `random_weights.py`, and go through a .safetensors file and `load_pretrained`. A relative error is the largest
absolute difference of a map (after each block) over the largest absolute value in it, and the same of the fused map.

    parity_v5.py mobilenetv5_300m_enc 256 192x320 768
    parity_v5.py --golden                              # what the suite compares narrow networks with
"""

# ruff: noqa: E402
import argparse
import dataclasses
import functools
import json
import pathlib
import sys
import tempfile
import time

import flax.linen as nn
import jax
import numpy as np
import torch

_OPS = torch.library.Library("torchvision", "DEF")  # torchvision's own library does not load without them
for _op in ("nms", "qnms"):
    _OPS.define(f"{_op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import safetensors.torch
import timm

HERE = pathlib.Path(__file__).parents[1] / "pretrained"
sys.path.insert(0, str(HERE))
import random_weights

from mnet_jax.models.blocks.modules import MODULES
from mnet_jax.models.compute import Compute
from mnet_jax.models.fusion import Fusion
from mnet_jax.models.layers import Conv, Shared
from mnet_jax.models.plans import ModelPlan
from mnet_jax.models.resolve import resolve_section
from mnet_jax.pretrained.load import load_pretrained


@functools.partial(jax.jit, static_argnums=0)
def apply(module: nn.Module, params: dict, x: jax.Array | list[jax.Array]) -> jax.Array:
    """One module; two blocks that differ in their names alone are compiled once."""
    return module.apply({"params": params}, x, train=False)


def run_ours(plan: ModelPlan, params: dict, images: np.ndarray) -> dict[str, np.ndarray]:
    """Every block's map and the fused one, each of our own map before it."""
    shared, found = Shared.of(plan, Compute()), {}
    x = apply(Conv(plan.stem, shared), params["stem"], images)
    for block in plan.blocks:
        module = MODULES[type(block)](dataclasses.replace(block, name="block"), shared)
        x = found[block.name] = apply(module, params[block.name], x)
    maps = [found[name] for name in plan.fusion.blocks]
    found["fusion"] = apply(Fusion(plan.fusion, shared), params["fusion"], maps)
    return {name: np.asarray(value) for name, value in found.items()}


def peer(name: str, **options) -> torch.nn.Module:
    """timm's network with weights by rule."""
    model = timm.create_model(name, **options).eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            value.copy_(torch.from_numpy(random_weights.draw(key, tuple(value.shape))))
    return model


def run_peer(model: torch.nn.Module, images: np.ndarray, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Every block's map and the fused one, NHWC."""
    found: dict[str, np.ndarray] = {}

    def keep(name):
        return lambda module, args, out: found.update({name: out.permute(0, 2, 3, 1).numpy()})

    blocks = [name for name, _ in model.named_modules() if name.count(".") == 2 and name.startswith("blocks.")]
    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in (*blocks, "msfa")]
    with torch.no_grad():
        out = model.to(dtype)(torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype))
    for hook in hooks:
        hook.remove()
    return found | ({} if out.ndim == 4 else {"logits": out.numpy()})


def save(model: torch.nn.Module, name: str, folder: pathlib.Path) -> pathlib.Path:
    """The file that timm would publish."""
    known = {"input_size": [3, 768, 768], "mean": [0.0] * 3, "std": [1.0] * 3, "crop_pct": 1.0}
    about = {"architecture": name, "num_classes": 0, "pretrained_cfg": known | {"interpolation": "bicubic"}}
    (folder / "config.json").write_text(json.dumps(about))
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def compare(name: str, sizes: list[tuple[int, int]], double: bool) -> None:
    model = peer(name, num_classes=0)
    with tempfile.TemporaryDirectory() as folder:
        trained = load_pretrained(save(model, name, pathlib.Path(folder)), log=lambda line: None)
    plan = resolve_section(trained.config.model)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trained.variables))
    assert parameters == sum(value.numel() for value in model.parameters())
    for size in sizes:
        images = random_weights.images(size)[:1]
        theirs = run_peer(model, images, torch.float32)
        theirs.pop("logits", None)  # of a network without classes the pooled map
        start = time.perf_counter()
        ours = run_ours(plan, trained.variables["params"], images)
        errors = [error(*pair) for pair in zip(ours.values(), theirs.values(), strict=True)]
        seconds = time.perf_counter() - start
        text = "{} x {}".format(*size)
        line = f"| timm | {name} | {parameters:,} | {text} | {len(errors) - 1} | {max(errors[:-1]):.1e} | "
        line += f"{np.median(errors[:-1]):.1e} | {errors[-1]:.1e} |"
        print(line, flush=True)
        print(f"{seconds:.0f} s with compiling; largest values {largest(theirs)}", file=sys.stderr)
        if double:
            exact = {key: map_ for key, map_ in run_peer(model, images, torch.float64).items() if key in theirs}
            model.to(torch.float32)
            ours_off = max(error(*pair) for pair in zip(ours.values(), exact.values(), strict=True))
            theirs_off = max(error(theirs[key], exact[key]) for key in exact)
            print(f"of float64: timm {theirs_off:.1e}, ours {ours_off:.1e}", flush=True)
    jax.clear_caches()


def largest(maps: dict[str, np.ndarray]) -> str:
    return f"{max(float(np.abs(x).max()) for x in maps.values()):.0f}"


def golden() -> None:
    """Stores what the suite compares with."""
    kept = dict(np.load(HERE / "golden_logits.npz"))
    for (library, variant), size in random_weights.GOLDEN_V5.items():
        name, width = variant.split(" x")
        model = peer(name, channel_multiplier=float(width), pad_type="same", num_classes=10)
        found = run_peer(model, random_weights.images(size), torch.float32)
        kept[f"{library} {variant}"] = found["logits"]
        kept[f"{library} {variant} fused"] = found["msfa"][:, ::5, ::5, ::64]
    np.savez(HERE / "golden_logits.npz", **kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", help="an architecture of timm's MobileNetV5")
    parser.add_argument("sizes", nargs="*", help="pixels: 256, or height x width, 192x320")
    parser.add_argument("--float64", action="store_true", help="also how far both are off PyTorch in float64")
    parser.add_argument("--golden", action="store_true")
    args = parser.parse_args()
    if args.golden:
        golden()
        return
    jax.config.update("jax_default_matmul_precision", "highest")
    sides = [tuple(map(int, size.split("x"))) for size in args.sizes]
    print(
        "| source | architecture | parameters | pixels | maps compared | worst map | median map | fused |", flush=True
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    compare(args.name, [side if len(side) == 2 else side * 2 for side in sides], args.float64)


if __name__ == "__main__":
    main()
