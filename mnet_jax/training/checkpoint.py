"""Checkpoints: written beside the running step, complete or absent, each with all that is needed to use it alone.

The only file with Orbax. A checkpoint directory `<workdir>/checkpoints/<step>` holds `state` (the whole TrainState as
arrays) and `about` (JSON: the config, the data set's classes and statistics, the metrics of the evaluation then).
Arrays are saved as NumPy, so the files are the same whether 1 or 256 chips wrote them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from mnet_jax.config import from_json, to_json
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.tasks.task import Metric
from mnet_jax.trained import Trained, build_task
from mnet_jax.training import selection
from mnet_jax.training.state import Tree

FOLDER = "checkpoints"


@dataclasses.dataclass(frozen=True)
class _Best(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the best checkpoint.

    Orbax's own BestN forgets the metrics when a run starts again, and with them the best checkpoint.
    """

    evaluations: dict[int, dict[str, float]]  # of all checkpoints that were evaluated, by step
    metric: Metric

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Returns one answer a checkpoint."""
        known = [(info.step, self.evaluations[info.step]) for info in checkpoints if info.step in self.evaluations]
        best = selection.best(known, self.metric)
        return [info.step == best for info in checkpoints]


class Checkpoints:
    """The checkpoints of one run: the newest `keep`, and the best by `metric` besides."""

    def __init__(self, workdir: str, *, keep: int, metric: Metric):
        policies = ocp.checkpoint_managers
        self._folder, self._metric = _absolute(workdir) / FOLDER, metric
        self._evaluations = _evaluations(self._folder)
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_names=("state", "about"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(keep),
                        _Best(self._evaluations, metric),
                    ]
                ),
                save_decision_policy=policies.FixedIntervalPolicy(1),
                cleanup_tmp_directories=True,  # what a killed process left half-written
            ),
        )

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def best(self) -> tuple[int, dict[str, float]] | None:
        """Returns (step, metrics) of the run's best evaluation that has a checkpoint; None if there was none."""
        there = set(_steps(self._folder))
        step = selection.best(((s, m) for s, m in self._evaluations.items() if s in there), self._metric)
        return None if step is None else (step, self._evaluations[step])

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
            self._evaluations[step] = metrics
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about)),
            metrics=metrics,
        )

    def restore(self, step: int, like: Tree) -> Tree:
        """Returns the state saved after `step`, as NumPy arrays in the structure of `like`."""
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
    """Returns a trained model: `path` is a run's directory, its `checkpoints` directory, or one checkpoint in it.

    Args:
      path: local or in a bucket.
      ema: the averaged weights, if the run kept any; otherwise those of the last step.
      step: completed updates, "best", or "latest" (as None).

    Raises:
      ValueError: if there is no such checkpoint; says which ones there are.
    """
    directory = _find(path, step)
    about = _about(directory)
    state = _read(directory / "state", ocp.StandardCheckpointHandler())
    weights = state["ema"] if ema and state["ema"] is not None else state
    return Trained(
        variables={"params": weights["params"], "batch_stats": weights["batch_stats"]},
        config=from_json(about["config"]),
        info=_info(about),
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
    """Returns the steps whose checkpoints are complete, in order."""
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


def _about(directory: epath.Path) -> dict[str, Any]:
    return _read(directory / "about", ocp.JsonCheckpointHandler())


def _evaluations(folder: epath.Path) -> dict[int, dict[str, float]]:
    """Returns the metrics of all checkpoints that were evaluated, by step."""
    found = {step: _about(folder / str(step))["metrics"] for step in _steps(folder)}
    return {step: metrics for step, metrics in found.items() if metrics is not None}


def _best(folder: epath.Path, steps: list[int]) -> int:
    """Returns the step of the best evaluation by the run's own config; the latest one where nothing was evaluated."""
    about = _about(folder / str(steps[-1]))
    config = from_json(about["config"])
    metric = build_task(config, _info(about)).metric(config.checkpoint.best_metric)
    best = selection.best(_evaluations(folder).items(), metric)
    return steps[-1] if best is None else best


def _info(about: dict[str, Any]) -> DatasetInfo:
    return DatasetInfo(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in about["data"].items()}
    )
