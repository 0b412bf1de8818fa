"""Prints the table of docs/deploy.md: every format's logits against the unfolded JAX model, and what XNNPACK runs.

python tests/scripts/parity_table.py [MODEL ...]
"""

import collections
import pathlib
import sys
import tempfile
import time

import jax
import numpy as np

from mnet_jax.deploy import formats, tflite
from mnet_jax.tasks.classification.network import create_model

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "deploy"))
from networks import MEAN, STD, about, fold, normalized, random_images, random_variables

MODELS = (
    "v1",
    "v2",
    "v3_large",
    "v3_small",
    "v3_large_minimalistic",
    "v4_conv_small",
    "v4_conv_medium",
    "v4_conv_large",
    "v4_hybrid_medium",
    "v4_hybrid_large",
)
PADDINGS = ("same", "symmetric")


def main():
    models = sys.argv[1:] or MODELS
    columns = (*formats.FORMATS, "TFLite operations", "left out by XNNPACK")
    print("|", " | ".join(("model", "padding", *columns)), "|")
    print("|---" * (len(columns) + 2) + "|")
    for name in models:
        for padding in PADDINGS:
            print("|", " | ".join((name, padding, *row(name, padding))), "|", flush=True)


def row(name, padding):
    model = create_model(name, padding=padding)
    plan = model.plan
    variables, images = random_variables(plan), random_images(plan.image_size)
    expected = np.asarray(jax.jit(model.apply)(variables, normalized(images)))
    graph = fold(plan, variables, input="uint8", mean=MEAN, std=STD)
    with tempfile.TemporaryDirectory() as folder:
        for format in formats.FORMATS:
            path = pathlib.Path(folder) / f"model.{format}"
            start = time.perf_counter()
            formats.write(graph, about(plan, plan.image_size), path, format)
            print(f"{name} {padding} {format}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
            found = formats.load(path)(images)
            yield f"{np.abs(found - expected).max() / np.abs(expected).max():.1e}"
        model = (pathlib.Path(folder) / "model.tflite").read_bytes()
    counts = collections.Counter(tflite.operations(model))
    yield ", ".join(f"{count} {operation}" for operation, count in counts.items())
    yield ", ".join(tflite.left_out(model)) or "none"


if __name__ == "__main__":
    main()
