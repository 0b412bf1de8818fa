"""The command line of train.py: flags in, one clear line out where something is wrong."""

import os
import pathlib
import re
import sys

import ml_collections
from absl import flags, logging
from ml_collections import config_flags

from mnet_jax.training import host_memory

USAGE = """Usage: python train.py [--config FILE] [--workdir DIR] [--config.FIELD=VALUE ...] [--traceback]

  --config FILE          the run, a file in configs/ (default: configs/digits.py, real digits, offline, a minute or two)
  --workdir DIR          where the run lives, local or gs:// (default: runs/<name of the config file>); the same command
                         again resumes it
  --config.FIELD=VALUE   override a field; configs/default.py explains them all. None is written as None
  --traceback            show where an error came from, not only what it is

Examples:
  python train.py
  python train.py --config configs/v3_large.py --workdir gs://BUCKET/run --config.data.data_dir=gs://BUCKET/tfds
  python train.py --config configs/finetune.py --config.init.checkpoint=runs/v3_large --config.data.folder=photos
"""
ROOT = pathlib.Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "configs" / "digits.py"


def main(argv: list[str] | None = None) -> int:
    """Runs `train.py`. Exit status: 0 trained or saved on request, 2 an error that one line explains, 130 Ctrl-C."""
    if {"--help", "-h", "--helpshort", "--helpfull"} & set(sys.argv if argv is None else argv):
        print(USAGE, end="")
        return 0
    try:
        config, workdir = parse(list(sys.argv if argv is None else argv), flags.FLAGS)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError, ImportError) as error:
        return _fail(error)
    logging.set_verbosity(logging.WARNING)
    try:
        host_memory.keep()
        from mnet_jax.training import parallel  # jax is slow to import: only once the flags are right

        parallel.join_pod()
        parallel.cache_compilations()
        from mnet_jax.training import loop

        loop.train(config, workdir)
    except (ValueError, FloatingPointError, OSError) as error:
        if flags.FLAGS.traceback:
            raise
        return _fail(error)
    except KeyboardInterrupt:
        print("train.py: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def parse(argv: list[str], values: flags.FlagValues) -> tuple[ml_collections.ConfigDict, str]:
    """The config with its overrides applied, and the run's directory; `values` gets the flags and must have none yet.

    Raises:
      ValueError, flags.Error and what reading a Python file can raise: one for each way to mistype.
    """
    # config_flags cannot set a field of type int, float or str to None; here `--config.FIELD=None` always means None.
    nones = [match[1] for match in map(re.compile(r"--?config\.([\w.]+)=None").fullmatch, argv) if match]
    argv = [arg for arg in argv if not re.fullmatch(r"--?config\.[\w.]+=None", arg)]
    _check_config_file(argv)
    previous, sys.argv = sys.argv, argv  # where config_flags looks for overrides
    try:
        config_flag = config_flags.DEFINE_config_file("config", str(DEFAULT), "see USAGE", values)
        flags.DEFINE_string("workdir", None, "see USAGE", values)
        flags.DEFINE_bool("traceback", False, "see USAGE", values)
        rest = values(argv)[1:]
    finally:
        sys.argv = previous
    if rest:
        raise ValueError(f"unexpected argument {rest[0]!r}: every option starts with --; see python train.py --help")
    config = config_flag.value
    for path in nones:
        section = config
        *parents, key = path.split(".")
        for parent in parents:
            section = section[parent]
        section[key] = None
    name = pathlib.Path(config_flags.get_config_filename(values["config"])).stem
    return config, values.workdir or os.path.join("runs", name)


def _check_config_file(argv: list[str]) -> None:
    for arg, following in zip(argv, [*argv[1:], ""], strict=True):
        match = re.fullmatch(r"--?config(?:=(.*))?", arg)
        if not match:
            continue
        path = pathlib.Path(match[1] if match[1] is not None else following)
        if not path.is_file():
            there = sorted(file.stem for file in DEFAULT.parent.glob("[!_]*.py"))
            raise ValueError(f"no config file {str(path)!r}: there are configs/NAME.py with NAME {', '.join(there)}")


def _fail(error: Exception) -> int:
    text = error.args[0] if isinstance(error, KeyError | AttributeError) and error.args else error
    text = re.sub(r"\\n|\s+", " ", str(text).strip("'\""))
    print(f"train.py: {text or type(error).__name__}", file=sys.stderr)
    return 2
