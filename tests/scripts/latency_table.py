"""Prints the latency table of docs/deploy.md: one image through every format, in turn, and through the JAX model.

python tests/scripts/latency_table.py [MODEL]
"""

import os
import pathlib
import statistics
import sys
import tempfile

import jax

from mnet_jax.deploy import formats
from mnet_jax.deploy.formats import file_size
from mnet_jax.deploy.int8.quantize import int8_model
from mnet_jax.measuring import clock
from mnet_jax.tasks.classification.network import create_model

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "deploy"))
from networks import MEAN, STD, about, fold, normalized, random_images, random_variables

ROUNDS, SECONDS = 3, 1.0


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "v3_large"
    model = create_model(name)
    plan, size = model.plan, model.plan.image_size
    variables, images = random_variables(plan), random_images(size, 1)
    graph = fold(plan, variables, image_size=size, input="uint8", mean=MEAN, std=STD)
    cores = len(os.sched_getaffinity(0))
    calls, sizes = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for format, quantizations in formats.FORMATS.items():
            for quantize in quantizations:
                path = pathlib.Path(folder) / f"{format}_{quantize}"
                described = about(plan, size, quantize=quantize)
                if quantize == "int8":
                    path.write_bytes(int8_model(graph, described, lambda: [random_images(size, 16)]))
                else:
                    formats.write(graph, described, path, format)
                sizes[format, quantize] = file_size(path) / 1e6
                for threads in (1, cores) if formats.takes_threads(format) else (cores,):
                    runner = formats.load(path, threads=threads)
                    calls[format, quantize, threads] = lambda runner=runner: runner(images)
        apply = jax.jit(model.apply)
        placed, ready = jax.device_put(variables), jax.device_put(normalized(images))
        calls["jax", "none", cores] = lambda: apply(placed, ready)
        times = {key: [] for key in calls}
        for _ in range(ROUNDS):  # in turn: what disturbs one disturbs all
            for key, call in calls.items():
                times[key] += clock.timings(call, warmup=3, seconds=SECONDS)
    print(f"{name}, one image of {size} px, median ms\n")
    print("| runtime | quantize | threads | ms | MB |\n|---|---|---|---|---|")
    for (format, quantize, threads), values in times.items():
        size = sizes.get((format, quantize), 0)
        milliseconds = 1e3 * statistics.median(values)
        print(f"| {format} | {quantize} | {threads} | {milliseconds:.2f} | {size:.1f} |")


if __name__ == "__main__":
    main()
