"""Compares KerasHub's MobileNets with ours, and prints a Markdown table: PYTHONPATH=. PEERS/bin/python this_file.

Needs keras_hub on Keras' backend jax beside mnet_jax's own dependencies; the test suite never runs it. Presets are
built live with random weights and statistics, by the rule of `random_weights.py`, saved by `save_to_preset` and read by
`load_pretrained`. A relative error is the largest absolute difference of the logits, or of what the backbone gives,
over the largest absolute value. KerasHub's MobileNetV5 has an exact GELU where Gemma 3n's has the tanh form: it is
compared with that form put in, and as it is. Where a side of the map of stride 16 is odd, it also doubles the coarser
map otherwise than timm's network does, so that only even ones are compared.

    parity_keras_hub.py               # the published sizes; of V5 x0.05 besides
    parity_keras_hub.py --golden      # what the suite compares narrow networks with
"""

# ruff: noqa: E402
import argparse
import contextlib
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import h5py
import jax
import keras
import keras_hub
import numpy as np
from keras_hub.src.utils.timm import convert_mobilenet

HERE = pathlib.Path(__file__).parents[1] / "pretrained"
sys.path.insert(0, str(HERE))
import random_weights

from mnet_jax.models import blocks
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.pretrained.load import load_pretrained
from mnet_jax.trained import build_model

CLASSES = 7
STAGES = {"v5_base": (3, 5, 16, 15), "v5_300m": (3, 5, 37, 39)}
TIMM = {("v3_small", 0.5): "mobilenetv3_small_050", ("v3_small", 1.0): "mobilenetv3_small_100"}
TIMM |= {("v3_large", 1.0): "mobilenetv3_large_100"}


def backbone(model: str, width: float) -> keras.Model:
    """KerasHub's network, of V3 by its own table, of V5 with the widths of our plan."""
    if model.startswith("v3"):
        fields = convert_mobilenet.convert_backbone_config({"architecture": TIMM[model, width]})
        return keras_hub.models.MobileNetBackbone(**fields)
    plan = resolve(SPECS[model], width=width, width_rule="timm")
    rows = [_row(block) for block in plan.blocks]
    fields, place = {}, 0
    stages = []
    for length in STAGES[model]:
        stages.append(rows[place : place + length])
        place += length
    for key in rows[0]:
        fields[f"stackwise_{key}"] = [[row[key] for row in stage] for stage in stages]
    return keras_hub.models.MobileNetV5Backbone(
        **fields,
        stackwise_num_blocks=[len(stage) for stage in stages],
        stem_size=plan.stem.features,
        num_features=plan.fusion.features,
        norm_layer="rms_norm",
        act_layer="gelu",
        use_msfa=True,
        layer_scale_init_value=1e-5,
    )


def _row(block) -> dict[str, object]:
    """A block in the words of KerasHub."""
    kinds = {
        blocks.FusedInvertedBottleneckPlan: "er",
        blocks.UniversalInvertedBottleneckPlan: "uir",
        blocks.MultiQueryAttentionPlan: "mqa",
    }
    kind = kinds[type(block)]
    start, middle, depthwise = (
        getattr(block, name, None) for name in ("start_depthwise", "middle_depthwise", "key_depthwise")
    )
    heads, key = getattr(block, "heads", 0), getattr(block, "key_features", 0)
    return {
        "block_types": kind,
        "num_filters": block.features,
        "strides": block.stride,
        "act_layers": "gelu",
        "exp_ratios": 0.0 if kind == "mqa" else block.expand.features / block.in_features,
        "se_ratios": 0.0,
        "dw_kernel_sizes": 0 if middle is None else middle.kernel,
        "dw_start_kernel_sizes": 0 if start is None else start.kernel,
        "dw_end_kernel_sizes": 0,
        "exp_kernel_sizes": 3 if kind == "er" else 0,
        "pw_kernel_sizes": 1 if kind == "er" else 0,
        "num_heads": heads,
        "key_dims": key,
        "value_dims": key,
        "kv_strides": 0 if kind != "mqa" else 1 if depthwise is None else depthwise.stride,
        "use_cpe": False,
    }


def save(model: str, width: float, folder: pathlib.Path) -> tuple[keras.Model, dict[str, dict[str, tuple[int, ...]]]]:
    """Saves a preset with weights by rule; returns its network, and the shapes in its files by their places."""
    hub = keras_hub.models
    image = {"image_size": (64, 64), "scale": [0.017, 0.0175, 0.0174], "offset": [-2.1, -2.0, -1.8]}
    image |= {"interpolation": "bicubic"}
    if model.startswith("v3"):
        prepare = hub.MobileNetImageClassifierPreprocessor(keras_hub.layers.MobileNetImageConverter(**image))
        hidden = resolve(SPECS[model], width=width, width_rule="timm").head.features
        net = hub.MobileNetImageClassifier(backbone(model, width), CLASSES, hidden, preprocessor=prepare)
    else:
        prepare = hub.MobileNetV5ImageClassifierPreprocessor(keras_hub.layers.MobileNetV5ImageConverter(**image))
        net = hub.MobileNetV5ImageClassifier(backbone(model, width), CLASSES, preprocessor=prepare)
    net.save_to_preset(str(folder))
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, part in (("model.weights.h5", net.backbone), ("task.weights.h5", None)):
        found = shapes[name] = {}
        with h5py.File(folder / name, "r+") as file:
            file.visititems(
                lambda place, item, found=found: (
                    found.update({place: item.shape})
                    if isinstance(item, h5py.Dataset) and place.startswith("layers/")
                    else None
                )
            )
            for place, shape in found.items():
                file[place][...] = random_weights.draw_hub(place, shape)
        if part is not None:
            part.load_weights(folder / name)
    net.load_task_weights(str(folder / "task.weights.h5"))
    return net, shapes


@contextlib.contextmanager
def tanh_gelu() -> Iterator[None]:
    """Gives KerasHub's MobileNetV5 the GELU that Gemma 3n's has."""
    exact = keras.activations.gelu
    keras.activations.gelu = lambda x, approximate=False: keras.ops.gelu(x, approximate=True)
    try:
        yield
    finally:
        keras.activations.gelu = exact


def run_ours(folder: pathlib.Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and what the backbone gives: V3's last convolution, V5's fused map."""
    trained = load_pretrained(folder)
    model = build_model(trained.config, trained.info)
    tap = "fusion" if trained.config.model.name.startswith("v5") else "last_conv"

    @jax.jit
    def run(variables, images):
        return model.apply(variables, images), model.apply(variables, images, (tap,), method="taps")[tap]

    logits, top = run(trained.variables, images)
    return np.asarray(logits), np.asarray(top)


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def compare(model: str, width: float, sizes: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        net, shapes = save(model, width, folder)
        count = sum(int(np.prod(shape)) for shape in shapes["model.weights.h5"].values())
        for size in sizes:
            images = random_weights.images(size)[:1]
            logits, top = run_ours(folder, images)
            with tanh_gelu() if model.startswith("v5") else contextlib.nullcontext():
                theirs, theirs_top = np.asarray(net(images)), np.asarray(net.backbone(images))
            as_it_is = error(logits, np.asarray(net(images))) if model.startswith("v5") else None
            errors = f"{error(top, theirs_top):.1e} | {error(logits, theirs):.1e} | "
            errors += "-" if as_it_is is None else f"{as_it_is:.1e}"
            print(f"| {model} x{width:g} | {count:,} | {size[0]} x {size[1]} | {errors} |", flush=True)


def golden(only: list[str]) -> None:
    """Stores what the suite compares with: logits, the JSON files of the preset, and the shapes in its .h5 files."""
    kept = dict(np.load(HERE / "golden_logits.npz"))
    for (model, width), size in random_weights.GOLDEN_HUB.items():
        if only and f"{model} x{width:g}" not in only:
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place)
            net, shapes = save(model, width, folder)
            with tanh_gelu():
                kept[f"keras_hub {model} x{width:g}"] = np.asarray(net(random_weights.images(size)))
            texts = {file.name: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
        text = json.dumps({"json": texts, "shapes": shapes}, separators=(",", ":"))
        kept[f"keras_hub {model} x{width:g} preset"] = np.frombuffer(text.encode(), np.uint8)
    np.savez_compressed(HERE / "golden_logits.npz", **kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="such as v3_small x0.5, v5_300m; default: all but v5_300m")
    parser.add_argument("--golden", action="store_true")
    args = parser.parse_args()
    if args.golden:
        golden(args.only)
        return
    jax.config.update("jax_default_matmul_precision", "highest")
    print("| network | arrays' values in KerasHub | pixels | backbone | logits | logits, its own GELU |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    cases = {**{f"{model} x{width:g}": (model, width) for model, width in TIMM}, "v5_base x0.05": ("v5_base", 0.05)}
    cases |= {"v5_300m": ("v5_300m", 1.0)} if "v5_300m" in args.only else {}
    for name, (model, width) in cases.items():
        if not args.only or name in args.only or model in args.only:
            compare(model, width, [(64, 64), (64, 96) if model.startswith("v5") else (75, 97)])


if __name__ == "__main__":
    main()
