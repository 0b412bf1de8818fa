"""Checkpoints: written beside the running step, complete or absent, each with all that is needed to use it alone.

The only file with Orbax. A checkpoint directory `<workdir>/checkpoints/<step>` holds `state` (the whole TrainState as
arrays) and `about` (JSON: the config, the data set's classes and statistics, the metrics of the evaluation then).
Arrays are saved as NumPy, so the files are the same whether 1 or 256 chips wrote them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from mnet_jax.config import from_json, to_json
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.trained import Trained
from mnet_jax.training.state import Tree

FOLDER = "checkpoints"


def score(metrics: Mapping[str, float], metric: str) -> tuple[float, ...]:
    """Higher is better. Of two evaluations with the same accuracy the one with the lower loss is better.

    On a few hundred images equal accuracies are common.
    """
    return (-metrics["loss"],) if metric == "loss" else (metrics[metric], -metrics["loss"])


@dataclasses.dataclass(frozen=True)
class _Best(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the best checkpoint, the later of equals.

    Orbax's own BestN forgets the metrics when a run starts again, and with them the best checkpoint.
    """

    scores: dict[int, tuple[float, ...]]  # of all checkpoints that were evaluated, by step

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """One answer a checkpoint."""
        known = [info.step for info in checkpoints if info.step in self.scores]
        best = max(known, key=lambda step: (self.scores[step], step), default=None)
        return [info.step == best for info in checkpoints]


class Checkpoints:
    """The checkpoints of one run: the newest `keep`, and the best by `best_metric` besides."""

    def __init__(self, workdir: str, *, keep: int, best_metric: str):
        policies = ocp.checkpoint_managers
        self._folder, self._metric = _absolute(workdir) / FOLDER, best_metric
        self._scores = {}
        for step in _steps(self._folder):
            metrics = _read(self._folder / str(step) / "about", ocp.JsonCheckpointHandler())["metrics"]
            if metrics is not None:
                self._scores[step] = score(metrics, best_metric)
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_names=("state", "about"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(keep),
                        _Best(self._scores),
                    ]
                ),
                save_decision_policy=policies.FixedIntervalPolicy(1),
                cleanup_tmp_directories=True,  # what a killed process left half-written
            ),
        )

    def latest_step(self) -> int | None:
        """The newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def best(self) -> tuple[int, dict[str, float]] | None:
        """(step, metrics) of the best evaluation of the run, by the metric of its config; None if there was none."""
        steps = _steps(self._folder)
        if not steps:
            return None
        step = _best(self._folder, steps)
        metrics = _read(self._folder / str(step) / "about", ocp.JsonCheckpointHandler())["metrics"]
        return None if metrics is None else (step, metrics)

    def save(
        self,
        step: int,
        state: Tree,
        config: ml_collections.ConfigDict,
        info: DatasetInfo,
        metrics: dict[str, float] | None,
    ) -> None:
        """Starts to write `state` (NumPy arrays that nobody changes); returns before the files are there.

        Raises:
          FloatingPointError: if the state has a value that is not finite. Nothing is written then.
        """
        for path, leaf in _flat(state).items():
            if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
                raise FloatingPointError(f"{path} is not finite after step {step}: no checkpoint is written")
        about = {"config": to_json(config), "data": dataclasses.asdict(info), "metrics": metrics, "step": step}
        if metrics is not None:
            self._scores[step] = score(metrics, self._metric)
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about)),
            metrics=metrics,
        )

    def restore(self, step: int, like: Tree) -> Tree:
        """The state saved after `step`, as NumPy arrays in the structure of `like`."""
        empty = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
        return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(empty))).state

    def reached_preemption(self, step: int) -> bool:
        """Whether the machines of this run of several processes are about to be taken; the same answer on all."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Returns once everything is written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the directory."""
        self._manager.close()


def _flat(tree: Tree) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def load(path: str, *, ema: bool = True, step: int | str | None = None) -> Trained:
    """Reads a trained model: `path` is a run's directory, its `checkpoints` directory, or one checkpoint in it.

    Args:
      path: local or in a bucket.
      ema: the averaged weights, if the run kept any; otherwise those of the last step.
      step: completed updates, "best", or "latest" (as None).

    Raises:
      ValueError: if there is no such checkpoint; says which ones there are.
    """
    directory = _find(path, step)
    about = _read(directory / "about", ocp.JsonCheckpointHandler())
    data = {name: tuple(value) if isinstance(value, list) else value for name, value in about["data"].items()}
    state = _read(directory / "state", ocp.StandardCheckpointHandler())
    weights = state["ema"] if ema and state["ema"] is not None else state
    return Trained(
        variables={"params": weights["params"], "batch_stats": weights["batch_stats"]},
        config=from_json(about["config"]),
        info=DatasetInfo(**data),
        step=about["step"],
        metrics=about["metrics"],
        path=str(directory),
    )


def _read(directory: epath.Path, handler: Any) -> Any:
    with ocp.Checkpointer(handler) as checkpointer:
        return checkpointer.restore(directory)


def _absolute(path: str) -> epath.Path:
    """Orbax takes absolute paths only; one in a bucket is."""
    return epath.Path(path) if "://" in str(path) else epath.Path(path).expanduser().absolute()


def saved_steps(workdir: str) -> list[int]:
    """The steps whose checkpoints are complete, in order."""
    return _steps(_absolute(workdir) / FOLDER)


def _steps(folder: epath.Path) -> list[int]:
    # Orbax writes beside, under a longer name, and moves into place: a name that is a number is a complete checkpoint.
    return sorted(int(child.name) for child in folder.iterdir() if child.name.isdigit()) if folder.exists() else []


def _find(path: str, step: int | str | None) -> epath.Path:
    root = _absolute(path)
    if (root / "about").exists():
        if step is not None and str(step) != root.name:
            raise ValueError(f"{path} is one checkpoint (step {root.name}): leave out step={step!r}")
        return root
    folder = root / FOLDER if (root / FOLDER).exists() else root
    there = _steps(folder)
    if not there:
        raise ValueError(f"no checkpoint in {path}: give the directory of a run (--workdir of train.py)")
    if step in (None, "latest"):
        return folder / str(there[-1])
    if step == "best":
        return folder / str(_best(folder, there))
    if str(step).isdigit() and int(step) in there:
        return folder / str(step)
    raise ValueError(f"no checkpoint {step!r} in {path}: choose best, latest or one of {', '.join(map(str, there))}")


def _best(folder: epath.Path, steps: list[int]) -> int:
    """The step with the best metric by its own config; the latest one where nothing was evaluated."""
    scores = {}
    for step in steps:
        about = _read(folder / str(step) / "about", ocp.JsonCheckpointHandler())
        if about["metrics"] is not None:
            scores[step] = score(about["metrics"], from_json(about["config"]).checkpoint.best_metric)
    return max(scores, key=lambda step: (scores[step], step)) if scores else steps[-1]
