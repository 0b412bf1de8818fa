"""Runs in processes of their own: the command, its start, and what it leaves."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Everything random is on: crops, colour, RandAugment, erasing, mixing, dropout, drop path; and EMA. Images grow after
# the 10th of some 180 steps an epoch.
FLAGS = {
    "model.width": 0.25,
    "model.stem_stride": 4,
    "model.drop_path": 0.1,
    "data.image_size": 32,
    "train.image_sizes": "((0,24),(0.055,32))",
    "augment.brightness": 0.2,
    "augment.contrast": 0.2,
    "augment.saturation": 0.2,
    "augment.hue": 0.1,
    "augment.randaugment_layers": 1,
    "augment.erase_prob": 0.5,
    "augment.mixup_alpha": 0.2,
    "augment.cutmix_alpha": 1.0,
    "train.batch_size": 8,
    "train.num_epochs": None,
    "train.num_steps": 22,
    "schedule.warmup_epochs": None,
    "schedule.warmup_steps": 3,
    "schedule.lr_per_256": 0.1,
    "eval.every_epochs": None,
    "eval.every_steps": 12,
    "checkpoint.every_steps": 4,
    "log.every_steps": 1,
}


# For what the augmentation does not matter to: compiled in a fraction of the time.
PLAIN = {"model.name": "v1", "model.drop_path": 0, "train.image_sizes": None} | {
    path: 0 for path in FLAGS if path.startswith("augment.")
}


def command(place, name, *, fields=None, num_devices=2):
    flags = [f"--config.{path}={value}" for path, value in {**FLAGS, **(fields or {})}.items()]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices} --xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(place / "compiled"),
        "PYTHONWARNINGS": "error::UserWarning:mnet_jax",
    }
    line = [sys.executable, ROOT / "train.py", f"--config={ROOT / 'configs' / 'digits.py'}", f"--workdir={name}"]
    return [*line, f"--config.data.data_dir={place / 'data'}", *flags], env


def run(place, name, **options):
    line, env = command(place, name, **options)
    return subprocess.run(line, env=env, capture_output=True, text=True, cwd=place, timeout=280)


def last_step(workdir):
    path = workdir / "metrics.jsonl"
    steps = [int(match) for match in re.findall(r'"step": (\d+)', path.read_text())] if path.exists() else []
    return max(steps, default=0)


def checkpoint_arrays(workdir, step):
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        state = reader.restore(workdir / "checkpoints" / str(step) / "state")
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_bits(left, right):
    assert left.keys() == right.keys()
    assert [name for name in left if left[name].tobytes() != right[name].tobytes()] == []
