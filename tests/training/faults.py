"""Ways to damage the directory of a run, by their names; tests and tests/scripts/fault_table.py inject them."""

import json
import pathlib
import random
import shutil
from collections.abc import Sequence

import numpy as np

from mnet_jax import files
from mnet_jax.config import load as load_config
from mnet_jax.config import to_json
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.tasks.task import Metric
from mnet_jax.training import checkpoint as checkpoints_of_runs

METRIC = Metric("top1", "top-1", percent=True, higher_is_better=True)


def make_run(run: pathlib.Path, *, keep: int = 3, steps: Sequence[int] = (10, 20, 30)) -> None:
    """Writes the directory of a run as training leaves it: a small state, all of its checkpoints evaluated."""
    run = pathlib.Path(run)
    config, rng = load_config("digits"), np.random.default_rng(0)
    checkpoints = checkpoints_of_runs.Checkpoints(str(run), keep=keep, metric=METRIC)
    rows = []
    for step in steps:
        params = {"stem": {"kernel": rng.normal(size=(300, 100)).astype(np.float32)}}
        state = {
            "step": np.int32(step) + np.zeros((), np.int32),
            "params": params,
            "batch_stats": {"stem": {"mean": rng.normal(size=7).astype(np.float32)}},
            "opt_state": (params, {"count": np.zeros((), np.int32)}),
            "ema": {"params": params, "batch_stats": {"stem": {"mean": np.ones(7, np.float32)}}},
        }
        metrics = {"top1": 0.5 - step / 100, "loss": 2.0, "num_images": 360}
        checkpoints.save(step, state, config, DatasetInfo.made_up(10), metrics)
        rows.append({"kind": "eval", "step": step, "epoch": 0.5, "time": 1.0, "elapsed": 1.0, **metrics})
    checkpoints.wait()
    checkpoints.close()
    files.write_whole(run / "config.json", to_json(config))
    files.write_whole(run / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def checkpoint(run: pathlib.Path, place: int = -1) -> pathlib.Path:
    """Returns the newest checkpoint of a run (-1), or another one."""
    steps = sorted((run / "checkpoints").iterdir(), key=lambda path: int(path.name) if path.name.isdigit() else -1)
    return steps[place]


def largest_file(directory: pathlib.Path) -> pathlib.Path:
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path: pathlib.Path, bit: int) -> None:
    contents = bytearray(path.read_bytes())
    contents[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(contents)


def flip_somewhere(directory: pathlib.Path, seed: int) -> pathlib.Path:
    """Flips one bit of a checkpoint, each bit as likely as another; returns the file."""
    rng = random.Random(seed)
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)
    path = rng.choices(files, [path.stat().st_size for path in files])[0]
    flip(path, rng.randrange(8 * path.stat().st_size))
    return path


def cut(path: pathlib.Path, share: float = 0.5) -> None:
    contents = path.read_bytes()
    path.write_bytes(contents[: int(share * len(contents))])


# Each makes the newest checkpoint unusable: the run goes on from the one before.
NEWEST = {
    "one bit flipped in the largest file": lambda run: flip(largest_file(checkpoint(run)), 8 * 5000 + 3),
    "one bit flipped in `state/_METADATA`": lambda run: flip(checkpoint(run) / "state" / "_METADATA", 801),
    "one bit flipped in `about/metadata`": lambda run: flip(checkpoint(run) / "about" / "metadata", 801),
    "the largest file cut in half": lambda run: cut(largest_file(checkpoint(run))),
    "the largest file emptied": lambda run: largest_file(checkpoint(run)).write_bytes(b""),
    "the largest file removed": lambda run: largest_file(checkpoint(run)).unlink(),
    "the largest file replaced by zeros": lambda run: zeros(largest_file(checkpoint(run))),
    "`state/manifest.ocdbt` removed": lambda run: (checkpoint(run) / "state" / "manifest.ocdbt").unlink(),
    "`state/_METADATA` removed": lambda run: (checkpoint(run) / "state" / "_METADATA").unlink(),
    "`state/` removed": lambda run: shutil.rmtree(checkpoint(run) / "state"),
    "`about/` removed": lambda run: shutil.rmtree(checkpoint(run) / "about"),
    "`about/metadata` cut": lambda run: cut(checkpoint(run) / "about" / "metadata"),
    "`about/metadata` is binary": lambda run: (checkpoint(run) / "about" / "metadata").write_bytes(b"\xff\x00\x80"),
    "all its files removed": lambda run: empty(checkpoint(run)),
}
# The newest checkpoint is whole: nothing is lost.
OTHER = {
    "`about/metadata` of the oldest cut": lambda run: cut(checkpoint(run, 0) / "about" / "metadata"),
    "the oldest emptied": lambda run: empty(checkpoint(run, 0)),
    "one bit flipped in the oldest": lambda run: flip(largest_file(checkpoint(run, 0)), 8 * 5000 + 3),
    "`files.json` (the list of sums) cut": lambda run: cut(checkpoint(run) / "files.json"),
    "`files.json` removed": lambda run: (checkpoint(run) / "files.json").unlink(),
    "`evaluation.json` that is none": lambda run: (checkpoint(run) / "evaluation.json").write_text('{"sum": 1}'),
    "a file among the checkpoints": lambda run: (run / "checkpoints" / "notes.txt").write_text("mine"),
    "`config.json` cut": lambda run: cut(run / "config.json"),
    "`config.json` emptied": lambda run: (run / "config.json").write_bytes(b""),
    "`config.json` is binary": lambda run: (run / "config.json").write_bytes(b"\xff\x00\x80"),
    "`config.json` is a list": lambda run: (run / "config.json").write_text("[1, 2]"),
    "`config.json` removed": lambda run: (run / "config.json").unlink(),
    "`metrics.jsonl`: a text where a number belongs": lambda run: edit_row(run, loss="many"),
    "`metrics.jsonl`: `elapsed` is a text": lambda run: edit_row(run, elapsed="long"),
    "`metrics.jsonl`: `step` is a text": lambda run: edit_row(run, step="first"),
    "`metrics.jsonl`: a metric is a list": lambda run: edit_row(run, top1=[1, 2]),
    "`metrics.jsonl`: a number beyond all floats": lambda run: append(
        run, b'{"kind": "eval", "step": 1, "loss": 1e999}'
    ),
    "`metrics.jsonl`: 100,000 brackets": lambda run: append(run, b"[" * 100_000),
    "`metrics.jsonl`: a binary line": lambda run: append(run, b"\xff\x00\x80"),
    "`metrics.jsonl` removed": lambda run: (run / "metrics.jsonl").unlink(),
    "a lock that a dead process left": lambda run: (run / ".lock").write_text("process 999999 on gone since 2020"),
}
# The run cannot go on; it is refused in one line, and nothing is touched.
REFUSED = {
    "every checkpoint damaged": lambda run: [
        flip(largest_file(path), 8 * 5000 + 3) for path in (run / "checkpoints").iterdir()
    ],
    "`about/` of every checkpoint removed": lambda run: [
        shutil.rmtree(path / "about") for path in (run / "checkpoints").iterdir()
    ],
}
REFUSED["an empty directory `checkpoints/99` alone"] = lambda run: alone(run, "99")


def zeros(path: pathlib.Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def empty(directory: pathlib.Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()


def alone(run: pathlib.Path, step: str) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints" / step).mkdir(parents=True)


def edit_row(run: pathlib.Path, **values: object) -> None:
    """Changes values of the first row."""
    first, *rest = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([json.dumps({**json.loads(first), **values}), *rest]) + "\n")


def append(run: pathlib.Path, line: bytes) -> None:
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(line + b"\n")
