"""`python train.py` mistyped: one clear line on stderr, exit status 2, nothing written."""

import pathlib
import subprocess
import sys

import pytest

from mnet_jax.training import command

ROOT = pathlib.Path(__file__).resolve().parents[2]

BAD = [
    (["--config=configs/v3_larg.py"], "no config file 'configs/v3_larg.py': give the path of one, or one of cifar10"),
    (["--config", "nowhere.py"], "no config file 'nowhere.py'"),
    (["--config.model.nme=v2"], "unknown config field 'model.nme'. Did you mean 'model.name'?"),
    (["--config.modl.name=v2"], "unknown config field 'modl.name'. Did you mean 'model.name'?"),
    (["--config.train.class_weights=balanced"], "train.class_weights'. It is 'task.class_weights' now."),
    (["--config.train.batch_size=many"], "train.batch_size=many: it must be a whole number"),
    (["--config.ema.decay=high"], "ema.decay=high: it must be a number"),
    (["--config.data.flip=perhaps"], "data.flip=perhaps: it must be True or False"),
    (["--wokdir=x"], "unknown option '--wokdir=x'. Did you mean 'workdir'?"),
    (["run1"], "unexpected argument 'run1'"),
    (["--config.train.num_steps=5"], "two units for one duration: set one of them to None (--config.train."),
    (["--config.model.name=v3_larg"], "v3_large"),
    (["--config.data.name=imagenet2012", "--config.data.data_dir={tmp}"], "ILSVRC2012_img_train.tar"),
    (["--config.data.name=cifar11", "--config.data.data_dir={tmp}"], "cifar1"),
    (["--config.data.eval_split=tset", "--config.data.data_dir={tmp}"], "tset"),
    (["--config.data.name=folder", "--config.data.folder={tmp}/photos"], "photos"),
    (["--config.init.checkpoint={tmp}/run"], "no checkpoint in"),
    (["--config.train.num_devices=99"], "there are 8 devices"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "line"), BAD, ids=lambda value: value[0][:40] if isinstance(value, list) else "")
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_one_clear_line(arguments, line, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    status = command.main([f"--workdir={tmp_path / 'run'}", *arguments])
    check(status, capfd.readouterr().err, line, tmp_path)


@pytest.mark.parametrize("number", [1, 13])  # a wrong flag, wrong data
def test_and_nothing_else_in_a_process_of_its_own(number, tmp_path):
    arguments, line = BAD[number]
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", f"--workdir={tmp_path / 'run'}", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment(),
    )  # fmt: skip
    check(done.returncode, done.stderr, line, tmp_path)


def check(status, errors, line, place):
    assert status == 2, errors
    assert line in errors
    assert len(errors.strip().splitlines()) == 1, errors
    assert errors.startswith("train.py: ")
    assert not (place / "run" / "checkpoints").exists()
    assert not (place / "run" / "config.json").exists()


def environment():
    import os

    return {**os.environ, "XLA_FLAGS": ""}


def test_help_names_the_flags():
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "--help"], capture_output=True, text=True, timeout=60, env=environment()
    )
    assert "--config" in done.stdout
    assert "--workdir" in done.stdout
