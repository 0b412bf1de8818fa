"""Milliseconds of one convolution over all channels on this machine's CPU, XLA's own form and ours in turn.

    python tests/scripts/dense_conv.py [--batch_size 16] [--rounds 20]

A line a layer: forward, gradient of the input (of a stem's, the image's: not needed), gradient of the kernel; medians.
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from mnet_jax import runtime
from mnet_jax.models.ops import conv, conv_cpu
from mnet_jax.models.sizes import explicit_padding

# px, input channels, features, stride; 3 x 3. Stems of V3, V1 and a wide V2; V4's first blocks; one at stride 1.
LAYERS = (
    (224, 3, 16, 2),
    (224, 3, 32, 2),
    (224, 3, 64, 2),
    (112, 32, 32, 2),
    (56, 32, 96, 2),
    (56, 32, 32, 1),
)


def main() -> None:
    """Prints a line a layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    runtime.keep_memory()  # as train.py does
    generator = np.random.default_rng(0)
    for size, channels, features, stride in LAYERS:
        options = {"stride": stride, "padding": (explicit_padding("same", size, 3, stride),) * 2, "dilation": 1}
        shapes = (args.batch_size, size, size, channels), (3, 3, channels, features)
        x, kernel = (jax.device_put(generator.standard_normal(shape, np.float32)) for shape in shapes)
        dy = conv._convolve(x, kernel, **options)
        xla = parts(conv._convolve, conv._gradients, options)
        ours = parts(conv_cpu.convolve, conv_cpu.gradients, options)
        line = [f"{size} px, {channels} to {features}, stride {stride}:"]
        for name in xla:
            if name == "input gradient" and channels == 3:
                continue
            compiled = [jax.jit(form[name]).lower(x, kernel, dy).compile() for form in (xla, ours)]
            theirs, mine = in_turn(compiled, (x, kernel, dy), args.rounds)
            line.append(f"{name} XLA {theirs:.1f}, ours {mine:.1f} ms ({theirs / mine:.2f}x)")
        print("  ".join(line), flush=True)


def parts(convolve: Callable, gradients: Callable, options: dict) -> dict[str, Callable]:
    """Functions of x, kernel and dy."""
    convolve, gradients = (functools.partial(function, **options) for function in (convolve, gradients))
    return {
        "forward": lambda x, kernel, dy: convolve(x, kernel),
        "input gradient": lambda *arrays: gradients(*arrays)[0],
        "kernel gradient": lambda *arrays: gradients(*arrays)[1],
    }


def in_turn(functions: list, arrays: tuple, rounds: int) -> list[float]:
    """Median milliseconds of each function, after two calls of each to warm up."""
    times = [[] for _ in functions]
    for round_ in range(rounds + 2):
        for function, seen in zip(functions, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(function(*arrays))
            if round_ >= 2:
                seen.append(1000 * (time.perf_counter() - start))
    return [statistics.median(seen) for seen in times]


if __name__ == "__main__":
    main()
