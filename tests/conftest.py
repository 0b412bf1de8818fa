"""Shared set-up: eight fake CPU devices, strict rank promotion, and the real data where it exists."""

import contextlib
import fcntl
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Not the user's own cache of compiled programs; kept between runs of the suite.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "mnet_jax_tests_compiled"))

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list) -> None:
    """The files that take longest first: last, they would keep one core busy while the other waits."""
    longest = ("test_training_resume", "test_data_pipeline", "test_training_finetune")
    items.sort(
        key=lambda item: next((place for place, name in enumerate(longest) if name in item.nodeid), len(longest))
    )


@pytest.fixture
def mnet(capsys):
    """The command in this process, with its eight devices: arguments -> exit code, stdout, stderr."""
    from mnet_jax.commands.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse, for --help and mistakes
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Directory of the real sample data (`MNET_DATA` or ../shared/data); skips with a reason where there is none."""
    for candidate in (os.environ.get("MNET_DATA"), ROOT.parent / "shared" / "data"):
        if candidate and (pathlib.Path(candidate) / "prepare.py").exists():
            return pathlib.Path(candidate)
    pytest.skip("needs the real sample data: set MNET_DATA to a directory with prepare.py, or put it in ../shared/data")


@pytest.fixture(scope="session")
def unpacked(real_data) -> Callable[..., pathlib.Path]:
    """Function from parts of the real data, as prepare.py names them, to a directory with them, made once a machine."""

    def unpack(*parts: str) -> pathlib.Path:
        out = pathlib.Path(tempfile.gettempdir()) / f"mnet_jax_real_{'_'.join(parts)}"
        if not out.exists():
            with tempfile.TemporaryDirectory() as place:
                made = pathlib.Path(place) / "data"
                command = [sys.executable, real_data / "prepare.py", "--out", made, "--only", *parts]
                subprocess.run(command, check=True, capture_output=True)
                with contextlib.suppress(OSError):  # another test process was faster
                    made.rename(out)
        return out

    return unpack


@pytest.fixture(scope="session")
def imagenet_sample(unpacked) -> pathlib.Path:
    """TFDS directory that holds imagenet2012 (1,000 training and 300 validation images)."""
    return unpacked("imagenet") / "tfds"


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory, worker_id) -> pathlib.Path:
    """Directory of a short run on one device: three epochs of digits, three checkpoints. One for all processes."""
    place = tmp_path_factory.getbasetemp()
    place = (place if worker_id == "master" else place.parent) / "digits_run"
    place.mkdir(exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the second process waits for the first
        if not (place / "done").exists():
            _train_digits(place)
            (place / "done").touch()
    return place / "run"


def _train_digits(place: pathlib.Path) -> None:
    from mnet_jax.config import load as load_config
    from mnet_jax.training import loop

    config = load_config("digits")
    config.model.name, config.model.width = "v1", 0.25  # the quickest to compile
    config.data.data_dir = str(place / "data")
    config.train.num_epochs = 3.0
    config.optimizer.name = "sgd"  # learns something in so few steps
    config.schedule.lr_per_256 = 0.4
    config.ema.decay = 0.9
    config.train.num_devices = 1
    config.schedule.warmup_epochs = 0.5
    config.eval.every_epochs = 1.0
    loop.train(config, str(place / "run"))
