"""The command line of train.py and of `mnet train`: flags in, one clear line out where something is wrong."""

import os
import re
import sys
from collections.abc import Callable, Sequence

import ml_collections

from mnet_jax import config, runtime
from mnet_jax.errors import did_you_mean
from mnet_jax.files import printable

USAGE = """Usage: python train.py [--config FILE] [--workdir DIR] [--config.FIELD=VALUE ...] [--traceback]
                       [--coordinator HOST:PORT --num_processes N --process_id I]
       mnet train      [the same]

  --config FILE          the run: a file of yours, or the name of one in configs/ such as v3_large
                         (default: digits, real digits, offline, a minute or two)
  --workdir DIR          where the run lives, local or gs:// (default: runs/<name of the config>); the same command
                         again resumes it
  --config.FIELD=VALUE   override a field; mnet_jax/schema.py explains them all. None is written as None
  --traceback            show where an error came from, not only what it is
  --coordinator HOST:PORT, --num_processes N, --process_id I
                         one of N processes of a run: where the first one listens, and which this is, from 0. Not needed
                         on TPU VMs, under Slurm and Open MPI; docs/reliability.md has Kubernetes

Exit codes: 0 trained; 75 to be started again: asked to stop (SIGTERM) and saved, or another process of the run is gone;
2 an error, told in one line; 130 Ctrl-C.

Examples:
  python train.py
  python train.py --config configs/v3_large.py --workdir gs://BUCKET/run --config.data.data_dir=gs://BUCKET/tfds
  python train.py --config configs/finetune.py --config.init.checkpoint=runs/v3_large --config.data.folder=photos
"""
DEFAULT = "digits"
_LIBRARIES = ("tensorflow", "jaxlib", "jax", "orbax", "etils", "tensorstore", "google")  # whose errors are one line too
_MOST_TEXT = 300  # letters of such an error
_PLACE = ("coordinator", "num_processes", "process_id")
_OPTIONS = ("config", "workdir", *_PLACE, "traceback", "help")


def main(argv: Sequence[str] | None = None, name: str = "train.py") -> int:
    """Trains; returns 0 trained, 2 an error that one line explains, 130 Ctrl-C.

    Asked to stop (SIGTERM) it saves and ends the process with 75. `name` is what the command is called in messages.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"--help", "-h"} & set(argv):
        print(USAGE, end="")
        return 0
    traceback = "--traceback" in argv
    try:
        run, workdir, place = parse([arg for arg in argv if arg != "--traceback"])
    except (ValueError, OSError, SyntaxError, ImportError) as error:
        if traceback:
            raise
        print(f"{name}: {_line(error)}", file=sys.stderr)
        return 2
    with runtime.StopSignal() as signal:
        try:
            _train(run, workdir, place, signal, name, lambda error: _explain(error, traceback))
        except BaseException as error:
            explained = _explain(error, traceback)
            if explained is None:
                raise
            print(f"{name}: {explained[0]}", file=sys.stderr)
            return explained[1]
        if signal.stopped:  # at once: a program that is still being compiled would be waited for
            sys.stdout.flush()
            os._exit(runtime.STOPPED)
    return 0


def _train(
    run: ml_collections.ConfigDict,
    workdir: str,
    place: dict[str, str | None],
    signal: runtime.StopSignal,
    name: str,
    explain: Callable[[BaseException], tuple[str, int] | None],
) -> None:
    runtime.keep_memory()
    from absl import logging

    from mnet_jax.pod import members  # jax is slow to import: only once the flags are right

    logging.set_verbosity(logging.WARNING)
    with members.joining(place, signal, name, explain):
        runtime.cache_compilations()
        from mnet_jax.training import loop

        loop.train(run, workdir, signal)


def parse(argv: Sequence[str]) -> tuple[ml_collections.ConfigDict, str, dict[str, str | None]]:
    """Returns the config with its overrides applied, the run's directory, and which of its processes this is.

    Raises:
      ValueError, and what reading a Python file can raise: one for each way to mistype.
    """
    given, overrides, rest = {"config": DEFAULT, "workdir": None, **dict.fromkeys(_PLACE)}, [], list(argv)
    while rest:
        arg = rest.pop(0)
        match = re.fullmatch(r"--?([A-Za-z_]+)(?:=(.*))?", arg, flags=re.DOTALL)
        if match is None or match[1] not in given:
            if match is not None:
                raise ValueError(
                    f"unknown option {arg!r}.{did_you_mean(match[1], _OPTIONS)} See python train.py --help"
                )
            overrides.append(arg)
            if re.fullmatch(r"--?config\.[\w.]+", arg) and rest and not rest[0].startswith("-"):
                overrides.append(rest.pop(0))  # its value
            continue
        if match[2] is None and not rest:
            raise ValueError(f"--{match[1]} needs a value; see python train.py --help")
        given[match[1]] = rest.pop(0) if match[2] is None else match[2]
    for arg in overrides:
        if not arg.startswith("-"):
            raise ValueError(f"unexpected argument {arg!r}: every option starts with --; see python train.py --help")
    name = os.path.basename(given["config"]).removesuffix(".py")
    workdir = given["workdir"] or os.path.join("runs", name)
    return config.load(given["config"], overrides), workdir, {flag: given[flag] for flag in _PLACE}


def _explain(error: BaseException, traceback: bool) -> tuple[str, int] | None:
    """Returns the line that says what went wrong and the exit code; None where the traceback is to be shown."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped; the same command goes on from the last checkpoint", 130
    if traceback or not isinstance(error, Exception):
        return None
    if isinstance(error, ValueError | FloatingPointError | OSError):
        return _line(error), 2
    if type(error).__module__.partition(".")[0] in _LIBRARIES:
        return _line(error, " (--traceback shows where)"), 2
    return None


def _line(error: Exception, hint: str = "") -> str:
    said = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    text = re.sub(r"\\n|\s+", " ", said)
    text = text if not hint or len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}..."
    return f"{printable(text) or type(error).__name__}{hint}"
