"""The `mnet` command: what it accepts and how it ends. The work is in one file a subcommand, imported when it runs.

Results go to stdout, everything else to stderr. Exit codes: 0 done; 1 done, but not for every image (predict),
or something is damaged (doctor);
2 an error that the user can mend, told in one line; 130 interrupted; 141 nobody reads the output any more.
"""

import argparse
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn, TextIO

from mnet_jax import runtime
from mnet_jax.errors import check_choice
from mnet_jax.files import printable

# name -> (purpose, module): the module has `add_arguments(parser)` and `run(args, out) -> exit code`, and imports what
# is heavy inside `run`.
COMMANDS = {
    "train": ("train a config, or go on with a run; the same as train.py", "mnet_jax.training.command"),
    "models": ("list the models with their sizes", "mnet_jax.commands.models"),
    "weights": ("list the published weights that can be loaded", "mnet_jax.commands.weights"),
    "summary": ("show a model block by block: shapes, parameters, multiply-adds", "mnet_jax.commands.summary"),
    "evaluate": ("measure a checkpoint on a data set, counting every image once", "mnet_jax.commands.evaluate"),
    "predict": ("name what is on images, with probabilities", "mnet_jax.commands.predict"),
    "export": ("write a model for a phone, a browser or a server", "mnet_jax.commands.export"),
    "verify-export": ("compare an exported file with its model, on images", "mnet_jax.commands.verify_export"),
    "features": ("write what a network sees in the images of a folder as arrays", "mnet_jax.commands.features"),
    "probe": ("judge frozen features by a linear probe and nearest neighbours", "mnet_jax.commands.probe"),
    "chart": ("draw accuracy against multiply-adds, parameters and latency", "mnet_jax.commands.chart"),
    "tpu-check": (
        "compile a config's train step for a TPU slice, without a TPU: memory, speed, the dearest operations",
        "mnet_jax.commands.tpu_check",
    ),
    "prepare": ("store a data set once with small images, for faster input", "mnet_jax.commands.prepare"),
    "doctor": ("say what a run, a folder or an exported file holds, and what is damaged", "mnet_jax.commands.doctor"),
    "benchmark": ("measure speed: train, infer, input, step-breakdown", "mnet_jax.commands.benchmark"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code."""
    runtime.quiet_libraries()
    runtime.settle_libtpu()
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["train"]:  # its flags are those of train.py
        from mnet_jax.training import command

        return command.main(argv[1:], name="mnet train")
    traceback = "--traceback" in argv
    try:
        command, args = _parse(argv)
        # libraries that print go to stderr: stdout holds the result only
        out = sys.stdout
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="backslashreplace")  # a file or class name that this terminal cannot show
        with contextlib.redirect_stdout(sys.stderr):
            code = command.run(args, _Printable(out))
        out.flush()
    except BrokenPipeError:
        # `| head` has left; what Python still holds for stdout goes nowhere instead of failing again at exit
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("mnet: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if traceback:
            raise
        print(f"mnet: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    return code


class _Printable:
    """A stream that writes out what a terminal would obey: names come from files and from their contents."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text to the stream, its lines as `printable` has them."""
        return self._stream.write("\n".join(map(printable, text.split("\n"))))

    def flush(self) -> None:
        """Hands on what the stream holds."""
        self._stream.flush()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of a page of usage."""
        self.exit(2, f"mnet: {message}; see {self.prog} --help\n")


def _parse(argv: Sequence[str]) -> tuple[ModuleType, argparse.Namespace]:
    """Returns the module of the subcommand, the only one that is imported, and its arguments."""
    if not argv or argv[0].startswith("-"):
        parser = _Parser(prog="mnet", description="MobileNet v1 to v5 in JAX.", allow_abbrev=False)
        commands = parser.add_subparsers(metavar="COMMAND", required=True)
        for name, (purpose, _) in COMMANDS.items():
            commands.add_parser(name, help=purpose)
        parser.parse_args(argv)  # ends here: help, or what is wrong
    check_choice("command", argv[0], tuple(COMMANDS))
    purpose, module = COMMANDS[argv[0]]
    description = f"{purpose[0].upper()}{purpose[1:]}."
    parser = _Parser(prog=f"mnet {argv[0]}", description=description, allow_abbrev=False)
    command = importlib.import_module(module)
    command.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from, not only what it is")
    overrides = [arg for arg in argv[1:] if arg.startswith("--config.")]  # a config's fields, as train.py takes them
    args = parser.parse_args([arg for arg in argv[1:] if arg not in overrides])
    if overrides and getattr(args, "config", None) is None:
        parser.error(f"{overrides[0]} overrides a field of --config FILE, which is not given or not known here")
    args.overrides = overrides
    return command, args


if __name__ == "__main__":
    sys.exit(main())
