"""A run of `train.py` that is small enough to be started a hundred times: its command line, and what it has written."""

import json
import os
import pathlib
import sys
from collections.abc import Mapping

import numpy as np
import orbax.checkpoint as ocp

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIELDS = {
    "model.name": "v1",
    "model.width": 0.25,
    "model.stem_stride": 4,
    "data.image_size": 32,
    "augment.brightness": 0.2,
    "augment.cutmix_alpha": 1.0,
    "train.batch_size": 8,
    "train.num_epochs": None,
    "train.num_devices": 1,
    "schedule.warmup_epochs": None,
    "schedule.warmup_steps": 5,
    "schedule.lr_per_256": 0.016,
    "eval.every_epochs": None,
    "log.every_steps": 1,
}


def command(
    place: pathlib.Path, name: str, fields: Mapping[str, object], *, compiled: str = "compiled"
) -> tuple[list[str], dict[str, str]]:
    """Returns the command line and the environment of a run on digits in `place / name`.

    Args:
      place: a directory for runs, data and compiled programs.
      name: of the run.
      fields: of its config, besides and above `FIELDS`.
      compiled: directory in `place` of compiled programs.
    """
    flags = [f"--config.{path}={value}" for path, value in {**FIELDS, **fields}.items()]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(place / compiled), "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, str(ROOT / "train.py"), "--config=digits", f"--workdir={place / name}"]
    return [*line, f"--config.data.data_dir={place / 'data'}", *flags], environment


def rows(workdir: pathlib.Path) -> list[dict]:
    """Returns the rows of a run's metrics that are whole."""
    path, found = workdir / "metrics.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:  # being written
            continue
    return found


def last_step(workdir: pathlib.Path) -> int:
    """Returns the last step that a run has reported."""
    return max((row["step"] for row in rows(workdir)), default=0)


def is_saving(workdir: pathlib.Path) -> bool:
    """Returns whether a checkpoint is being written, or is written and not yet sealed."""
    try:
        names = os.listdir(workdir / "checkpoints")
    except FileNotFoundError:
        return False
    numbers = [name for name in names if name.isdigit()]
    if any("tmp" in name for name in names):
        return True
    return bool(numbers) and not (workdir / "checkpoints" / max(numbers, key=int) / "files.json").exists()


def arrays(workdir: pathlib.Path, step: int) -> dict[str, bytes]:
    """Returns the bits of each array of a checkpoint, as Orbax alone reads it."""
    import jax

    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        leaves, _ = jax.tree_util.tree_flatten_with_path(reader.restore(workdir / "checkpoints" / str(step) / "state"))
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
