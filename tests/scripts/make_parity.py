"""Compares our networks with the libraries whose weights we load, block by block, and prints a Markdown table.

    PYTHONPATH=. PEERS/bin/python tests/scripts/make_parity.py [--only WORD] [--golden]

Needs torch, torchvision, timm, keras and tensorflow beside mnet_jax's own dependencies; the test suite never runs it.
Weights and batch statistics are random, by the rule of `random_weights.py`, and go through a file of each library's own
format and through `load_pretrained`, as real ones do. A relative error is the largest absolute difference of a map (or
of the logits) over the largest absolute value in it. With --golden the logits of the small cases are stored for the
suite.
"""

# ruff: noqa: E402
import argparse
import dataclasses
import json
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import numpy as np
import torch

_OPS = torch.library.Library("torchvision", "DEF")  # torchvision's own library does not load without them
for _op in ("nms", "qnms"):
    _OPS.define(f"{_op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import keras
import safetensors.torch
import timm
import torchvision

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "pretrained"))
import random_weights

from mnet_jax.pretrained.load import load_pretrained
from mnet_jax.trained import build_model

HERE = pathlib.Path(__file__).parents[1] / "pretrained"
CLASSES = 10
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # compile time, not run time


@dataclasses.dataclass(frozen=True)
class Case:
    """One network of one library."""

    library: str
    variant: str
    size: int | tuple[int, int] = 64  # pixels: of a side, or height and width
    format: str = ".pth"
    calm: bool = False  # statistics near those of the images: deep networks with others explode, torch's as well

    @property
    def golden(self) -> bool:
        return random_weights.GOLDEN.get((self.library, self.variant)) == self.size


CASES = (
    Case("torchvision", "mobilenet_v2 x1.0"),
    Case("torchvision", "mobilenet_v2 x0.35"),
    Case("torchvision", "mobilenet_v3_large x1.0"),
    Case("torchvision", "mobilenet_v3_large x0.75"),
    Case("torchvision", "mobilenet_v3_small x1.0"),
    Case("torchvision", "mobilenet_v3_small x0.75"),
    *(
        Case("timm", name, size, format=".safetensors")
        for name, size in (
            ("mobilenetv1_100", 64),
            ("mobilenetv1_125", 64),
            ("mobilenetv2_035", 64),
            ("mobilenetv2_050", 64),
            ("mobilenetv2_075", 64),
            ("mobilenetv2_100", 64),
            ("mobilenetv2_140", 64),
            ("mobilenetv3_large_075", 64),
            ("mobilenetv3_large_100", 64),
            ("mobilenetv3_small_050", 64),
            ("mobilenetv3_small_075", 64),
            ("mobilenetv3_small_100", 64),
            ("tf_mobilenetv3_large_075", 64),
            ("tf_mobilenetv3_large_100", 64),
            ("tf_mobilenetv3_large_minimal_100", 64),
            ("tf_mobilenetv3_small_075", 64),
            ("tf_mobilenetv3_small_100", 64),
            ("tf_mobilenetv3_small_minimal_100", 64),
            ("mobilenetv4_conv_small_035", 64),
            ("mobilenetv4_conv_small_050", 64),
            ("mobilenetv4_conv_small", 64),
            ("mobilenetv4_conv_medium", 64),
            ("mobilenetv4_conv_large", 64),
            ("mobilenetv4_hybrid_medium", 96),
            ("mobilenetv4_hybrid_large", 96),
        )
    ),
    # What only timm has, at two sizes; averages round down where strides round up, which an odd size shows.
    *(
        Case("timm", name, size, format=".safetensors", calm=name.endswith("d"))
        for name in (
            "mobilenetv1_100h",
            "mobilenetv2_110d",
            "mobilenetv2_120d",
            "mobilenetv3_large_150d",
            "mobilenetv3_rw",
            "mobilenetv4_conv_aa_medium",
            "mobilenetv4_conv_aa_large",
            "mobilenetv4_conv_blur_medium",
            "mobilenet_edgetpu_100",
            "mobilenet_edgetpu_v2_xs",
            "mobilenet_edgetpu_v2_s",
            "mobilenet_edgetpu_v2_m",
            "mobilenet_edgetpu_v2_l",
        )
        for size in (64, (75, 97))
    ),
    *(Case("keras", f"MobileNet x{width}", format=".h5") for width in (0.25, 0.5, 0.75, 1.0)),
    *(Case("keras", f"MobileNetV2 x{width}", format=".weights.h5") for width in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)),
    *(
        Case("keras", f"MobileNetV3{size} x{width}", format=".keras")
        for size in ("Large", "Small")
        for width in (0.75, "1.0", "1.0 minimalistic")
    ),
)


# --- The peers: logits and the output of every block, NHWC ---


def torch_model(case: Case) -> tuple[torch.nn.Module, list[str]]:
    """The model, and the names of the modules that end its stem, blocks and last convolution."""
    if case.library == "timm":
        model = timm.create_model(case.variant, num_classes=CLASSES)
        blocks = [name for name, _ in model.named_modules() if name.count(".") == 2 and name.startswith("blocks.")]
        return model, blocks
    name, width = case.variant.split(" x")
    model = getattr(torchvision.models, name)(width_mult=float(width), num_classes=CLASSES)
    return model, [f"features.{number}" for number in range(1, len(model.features))]


def run_torch(case: Case, images: np.ndarray, folder: pathlib.Path) -> tuple[pathlib.Path, np.ndarray, list]:
    model, names = torch_model(case)
    state = {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}
    arrays = {name: random_weights.draw(name, tuple(tensor.shape)) for name, tensor in state.items()}
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)
    if case.calm:
        settle(model, images)
    model.eval()
    maps = []
    modules = dict(model.named_modules())
    for name in names:
        modules[name].register_forward_hook(lambda module, args, out: maps.append(out.permute(0, 2, 3, 1).numpy()))
    with torch.no_grad():
        logits = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    path = folder / ("model" + case.format)
    if case.format == ".safetensors":
        safetensors.torch.save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization="large" in case.variant)
    return path, logits, maps


def settle(model: torch.nn.Module, images: np.ndarray) -> None:
    """Sets the statistics of all norms to those of the images, changed at random."""
    norms = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.BatchNorm2d)}
    many = np.random.default_rng(0).standard_normal((30, *images.shape[1:]), np.float32)  # the last maps are small
    for layer in norms.values():
        layer.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.from_numpy(np.concatenate([images, many])).permute(0, 3, 1, 2))
    for name, layer in norms.items():
        shape = tuple(layer.running_mean.shape)
        noise = (torch.from_numpy(random_weights.draw(f"{name}.{leaf}", shape)) for leaf in ("running_mean", "bias"))
        shift, stretch = noise
        layer.running_mean += 0.2 * shift * layer.running_var.sqrt()
        layer.running_var *= torch.exp(stretch)


def keras_model(case: Case) -> keras.Model:
    name, width, *kind = case.variant.replace(" x", " ").split()
    extra = {"minimalistic": bool(kind), "include_preprocessing": False} if "V3" in name else {}
    return getattr(keras.applications, name)(
        input_shape=(case.size, case.size, 3),
        alpha=float(width),
        weights=None,
        classes=CLASSES,
        classifier_activation=None,
        **extra,
    )


def run_keras(case: Case, images: np.ndarray, folder: pathlib.Path) -> tuple[pathlib.Path, np.ndarray, list]:
    model = keras_model(case)
    for layer in model.layers:
        layer.set_weights(
            [random_weights.draw(f"{layer.name}/{weight.name}", tuple(weight.shape)) for weight in layer.weights]
        )
    names = [layer.name for layer in model.layers]
    ends = [name for name in names if name.lower().endswith("project_bn")]
    ends = [add if (add := end[: -len("project_bn")] + "add") in names else end for end in ends]
    ends = ends or [f"conv_pw_{number}_relu" for number in range(1, 14)]
    taps = keras.Model(model.inputs, [model.get_layer(end).output for end in ends] + [model.outputs[0]])
    *maps, logits = (np.asarray(out) for out in taps(images))
    path = folder / ("model" + case.format)
    (model.save_weights if case.format == ".weights.h5" else model.save)(path)
    return path, logits, maps


# --- Ours ---


def run_ours(case: Case, path: pathlib.Path, images: np.ndarray) -> tuple[np.ndarray, list]:
    if case.library == "timm":
        write_config(case, path)
    trained = load_pretrained(path, log=lambda line: None)
    model = build_model(trained.config, trained.info)
    names = {block.name for block in model.plan.blocks} | {"last_conv"}

    def run(variables: dict, images: jax.Array) -> tuple:
        wanted = {"capture_intermediates": lambda module, method: module.name in names and method == "__call__"}
        return model.apply(variables, images, **wanted, mutable=["intermediates"])

    logits, state = jax.jit(run, compiler_options=FAST)(trained.variables, images)
    found = {name: value["__call__"][0] for name, value in state["intermediates"].items()}
    ordered = [np.asarray(found[name]) for name in sorted(found) if name != "last_conv"]
    if "last_conv" in found:
        ordered.append(np.asarray(found["last_conv"]))
    return np.asarray(logits), ordered


def write_config(case: Case, path: pathlib.Path) -> None:
    about = {
        "architecture": case.variant,
        "num_classes": CLASSES,
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "crop_pct": 0.875,
            "interpolation": "bicubic",
        },
    }
    path.with_name("config.json").write_text(json.dumps(about))


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose library or variant contains this")
    parser.add_argument(
        "--golden", action="store_true", help="store the logits of the suite's cases; with --only of those alone"
    )
    args = parser.parse_args()
    golden = {}
    print("| source | variant | file | pixels | maps compared | worst map | median map | logits |", flush=True)
    print("|---|---|---|---|---|---|---|---|")
    worst = 0.0
    jax.config.update("jax_default_matmul_precision", "highest")
    for case in CASES:
        if args.only not in f"{case.library} {case.variant}" or (args.golden and not case.golden):
            continue
        images = random_weights.images(case.size)
        with tempfile.TemporaryDirectory() as folder:
            run = run_keras if case.library == "keras" else run_torch
            path, logits, maps = run(case, images, pathlib.Path(folder))
            ours, our_maps = run_ours(case, path, images)
        our_maps = our_maps[: len(maps)]
        assert len(our_maps) == len(maps) > 10, (len(our_maps), len(maps))
        errors = [error(a, b) for a, b in zip(our_maps, maps, strict=True)]
        last = error(ours, logits)
        worst = max(worst, last, *errors)
        pixels = case.size if isinstance(case.size, int) else "{} x {}".format(*case.size)
        print(
            f"| {case.library} | {case.variant} | {case.format} | {pixels} | {len(maps)} | {max(errors):.1e} | "
            f"{np.median(errors):.1e} | {last:.1e} |",
            flush=True,
        )
        if case.golden:
            golden[f"{case.library} {case.variant}"] = logits
        keras.backend.clear_session()
        jax.clear_caches()
    print(f"\nworst of all: {worst:.1e}")
    if args.golden:
        kept = np.load(HERE / "golden_logits.npz") if args.only else {}
        np.savez(HERE / "golden_logits.npz", **{**kept, **golden})


if __name__ == "__main__":
    main()
