"""`mnet benchmark MODE`: how fast. Each mode is a module of its own, imported when it runs."""

import argparse
import importlib
from typing import TextIO

# name -> (purpose, module with add_arguments(parser) and run(args, out) -> exit code)
MODES = {
    "train": ("time training steps of a model", "mnet_jax.commands.benchmark_train"),
    "infer": ("time inference of a model", "mnet_jax.commands.benchmark_infer"),
    "step-breakdown": ("show where the time of a training step goes", "mnet_jax.commands.benchmark_breakdown"),
    "input": (
        "time the input of a data set: reading, decoding, resizing, copying",
        "mnet_jax.commands.benchmark_input",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the modes, each with its own options."""
    modes = parser.add_subparsers(dest="mode", metavar="MODE", required=True)
    for name, (purpose, module) in MODES.items():
        description = f"{purpose[0].upper()}{purpose[1:]}."
        mode = modes.add_parser(name, help=purpose, description=description, allow_abbrev=False)
        importlib.import_module(module).add_arguments(mode)
        # as `mnet` itself declares them: here they may follow the mode
        mode.add_argument("--json", action="store_true", help="print one JSON document")
        mode.add_argument("--traceback", action="store_true", help="show where an error came from")
        mode.set_defaults(benchmark=module)


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Runs the mode that was asked for."""
    return importlib.import_module(args.benchmark).run(args, out)
