"""Milliseconds of one dilated depthwise convolution on this machine's CPU, XLA's own form and ours in turn.

    python tests/scripts/dilated_depthwise.py [--batch_size 4] [--rounds 10]

A line a layer: forward, gradient of the input, gradient of the kernel, and all three; medians.
"""

import argparse
import os
from collections.abc import Callable

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from dense_conv import in_turn

from mnet_jax import runtime
from mnet_jax.models.ops.depthwise import FORMS
from mnet_jax.models.sizes import explicit_padding

# px of the map, channels, kernel, dilation: V3-Large at output stride 16 and 512 px, and at 8; V2 at 8 and 513 px; V1.
LAYERS = (
    (32, 672, 5, 2),
    (32, 960, 5, 2),
    (64, 960, 5, 4),
    (65, 576, 3, 2),
    (65, 960, 3, 4),
    (32, 1024, 3, 2),
)


def main() -> None:
    """Prints a line a layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    runtime.keep_memory()  # as train.py does
    generator = np.random.default_rng(0)
    for size, channels, window, dilation in LAYERS:
        padding = (explicit_padding("same", size, window, 1, dilation),) * 2
        shapes = (args.batch_size, size, size, channels), (window, window, 1, channels)
        x, kernel = (jax.device_put(generator.standard_normal(shape, np.float32)) for shape in shapes)
        dy = jax.device_put(generator.standard_normal(shapes[0], np.float32))
        line, totals = [f"{size} px, {channels} channels, {window} x {window}, dilation {dilation}:"], np.zeros(2)
        theirs, ours = (parts(FORMS[backend], padding, dilation) for backend in ("gpu", "cpu"))  # "gpu": XLA's own
        for name in ours:
            compiled = [jax.jit(form[name]).lower(x, kernel, dy).compile() for form in (theirs, ours)]
            times = np.array(in_turn(compiled, (x, kernel, dy), args.rounds))
            totals += times
            line.append(f"{name} XLA {times[0]:.1f}, ours {times[1]:.1f} ms ({times[0] / times[1]:.1f}x)")
        line.append(f"all {totals[0] / totals[1]:.1f}x")
        print("  ".join(line), flush=True)


def parts(forms: dict[str, Callable], padding: tuple, dilation: int) -> dict[str, Callable]:
    """Functions of x, kernel and dy."""
    return {
        "forward": lambda x, kernel, dy: forms["convolve"](x, kernel, 1, padding, dilation),
        "input gradient": lambda x, kernel, dy: forms["input_gradient"](dy, kernel, 1, padding, x.shape[1:3], dilation),
        "kernel gradient": lambda x, kernel, dy: forms["kernel_gradient"](
            x, dy, 1, padding, kernel.shape[:2], dilation
        ),
    }


if __name__ == "__main__":
    main()
