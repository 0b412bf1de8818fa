"""`mnet benchmark infer`: logits of normalised float32 images on one device, the variables as arguments."""

import argparse
import time
from typing import TextIO

from mnet_jax.commands import benchmark_setup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the mode."""
    benchmark_setup.add_arguments(parser, batch_size=1)


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Compiles the model, times it and prints the figures."""
    setup = benchmark_setup.prepare(args, num_devices=1)
    import jax

    from mnet_jax.measuring import clock

    variables = jax.device_put(setup.variables)
    images = setup.task.eval_inputs({"image": setup.batch["image"][0]})
    start = time.perf_counter()
    compiled = jax.jit(setup.model.apply).lower(variables, images).compile()
    compile_seconds = time.perf_counter() - start
    times = clock.timings(lambda: compiled(variables, images), warmup=args.warmup, seconds=args.seconds)
    result = benchmark_setup.describe(args, setup) | {
        "compile_seconds": compile_seconds,
        **benchmark_setup.figures(compiled, times, args, setup),
    }
    benchmark_setup.report(result, out, as_json=args.json)
    return 0
