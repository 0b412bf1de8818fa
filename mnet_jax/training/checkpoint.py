"""Checkpoints: written beside the running step, complete or absent, each with all that is needed to use it alone.

A checkpoint directory `<workdir>/checkpoints/<step>` holds `state` (the whole TrainState as
arrays) and `about` (JSON: the config, the data set's classes and statistics, the metrics of the evaluation then, and a
sum of each array and of `about` itself, by which damage is found). Arrays are saved as NumPy, so the files are the same
whether 1 or 256 chips wrote them. `saved.py` reads one; docs/reliability.md says what happens to a damaged one.
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import itertools
from collections.abc import Callable, Iterator

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from mnet_jax.config import to_json
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.tasks.task import Metric
from mnet_jax.trained import Trained, build_task
from mnet_jax.training import saved, selection
from mnet_jax.training.saved import DamagedError, Saved
from mnet_jax.training.state import Tree

FOLDER = "checkpoints"
DAMAGED = "damaged"  # beside it: where damaged checkpoints are moved to
_ATTEMPTS = 5  # to read the newest or best checkpoint of a run that goes on, and deletes old ones, at the same time


class Checkpoints:
    """The checkpoints of one run: the newest `keep`, and the best by `metric` besides.

    None is deleted before a newer one is there, whole, and its files were read back.
    """

    def __init__(self, workdir: str, *, keep: int, metric: Metric, newest: Saved | None = None):
        """Opens the directory; `newest` is what `newest_whole` returned, the one that the run goes on from."""
        self._workdir, self._folder = workdir, _absolute(workdir) / FOLDER
        self._keep, self._metric, self._newest = keep, metric, newest
        self._latest = newest.step if newest else None
        self._evaluations = _evaluations(self._folder)
        saved.hush_event_loop()
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_names=("state", "about"),
            options=ocp.CheckpointManagerOptions(
                save_decision_policy=ocp.checkpoint_managers.FixedIntervalPolicy(1),
                cleanup_tmp_directories=True,  # what a killed process left half-written
            ),
        )
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._saving: concurrent.futures.Future | None = None

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint that was verified, or None."""
        return self._latest

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
          OSError: if the save before failed.
        """
        self.wait()
        sums = {}
        for name, array in saved.flat(state).items():
            if np.issubdtype(array.dtype, np.floating) and not saved.is_finite(array):
                raise FloatingPointError(f"{name} is not finite after step {step}: no checkpoint is written")
            sums[name] = saved.array_sum(array)
        about = {"config": to_json(config), "data": dataclasses.asdict(info), "metrics": metrics, "step": step}
        about = saved.signed({**about, "arrays": sums})
        if metrics is not None:
            self._evaluations[step] = metrics
        with self._failing(step):
            if not self._folder.exists():  # Orbax would make it again, without what was in it
                raise FileNotFoundError(errno.ENOENT, "the directory was moved or removed")
            self._manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about)),
                metrics=metrics,
            )
        self._saving = self._thread.submit(self._finish, step)

    def _finish(self, step: int) -> None:
        """Waits for the files, seals them, and only then deletes what need not be kept; in a thread."""
        with self._failing(step):
            self._manager.wait_until_finished()
            if jax.process_index() == 0:
                saved.seal(self._folder / str(step))
        self._latest = step
        if jax.process_index() == 0:
            best, there = self.best(), _steps(self._folder)
            for old in there[: -self._keep]:
                if best is None or old != best[0]:
                    _remove(self._folder / str(old))

    @contextlib.contextmanager
    def _failing(self, step: int) -> Iterator[None]:
        """Turns whatever a failed save raises into an OSError of one line."""
        try:
            yield
        except Exception as error:  # each file system has errors of its own
            raise OSError(
                f"the checkpoint of step {step} could not be written to {self._workdir}: {saved.reason(error)}. "
                + (f"Step {self._latest} is saved" if self._latest else "No step is saved yet")
                + ": mend this, and the same command goes on from there"
            ) from error

    def add_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Adds the metrics of an evaluation to the checkpoint of its step, which was saved without."""
        self._evaluations[step] = metrics
        if jax.process_index() == 0:
            saved.write_late_metrics(self._folder / str(step), metrics)

    def was_evaluated(self, step: int) -> bool:
        """Returns whether the checkpoint of a step has metrics."""
        return step in self._evaluations

    def restore(self, step: int, like: Tree) -> Tree:
        """Returns the state saved after `step`, as NumPy arrays in the structure of `like`.

        Raises:
          ValueError: if it is damaged, or that of another model.
        """
        newest, self._newest = self._newest, None  # read already, at the start; let go of it
        directory = self._folder / str(step)
        found = newest if newest is not None and newest.step == step else saved.read(directory)
        return saved.fitted(found.arrays, like, directory)

    def check(self) -> None:
        """Raises the OSError of a save that has failed meanwhile; costs nothing."""
        if self._saving is not None and self._saving.done():
            self.wait()

    def wait(self) -> None:
        """Returns once everything is written and verified.

        Raises:
          OSError: if it could not be written.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """Waits and lets go of the directory. That a save failed is told by `check` or `wait`, if they are called."""
        self._thread.shutdown()
        with contextlib.suppress(Exception):
            self._manager.close()


def newest_whole(workdir: str, log: Callable[[str], None]) -> Saved | None:
    """Returns the newest checkpoint of a run that is what was written; None if the run has no checkpoint at all.

    Damaged ones are moved to `<workdir>/damaged`, and `log` is told; none is deleted. Old ones are looked at only so
    far as the run needs them: for their metrics. Call it from one process.

    Raises:
      ValueError: if there are some and none is whole. Nothing is moved then.
    """
    folder = _absolute(workdir) / FOLDER
    damaged, found = {}, None
    for step in reversed(_steps(folder)):
        try:
            if found is None:
                found = _read_twice(folder / str(step))
            else:
                saved.read_about(folder / str(step))
        except DamagedError as error:
            damaged[step] = str(error)
    if damaged and found is None:
        raise ValueError(
            f"no checkpoint of {workdir} is whole: {'; '.join(damaged.values())}. There is nothing to go on from: "
            f"begin anew with another --workdir, or remove {folder}"
        )
    for step, what in damaged.items():
        aside = _set_aside(folder / str(step))
        used = f"the run goes on from step {found.step}; {step - found.step} steps are trained again"
        log(f"warning: {what}. It is now in {aside}; {used if step > found.step else 'it was not needed'}")
    return found


def read_step(workdir: str, step: int) -> Saved:
    """Returns the checkpoint of a step of a run, verified."""
    return saved.read(_absolute(workdir) / FOLDER / str(step))


def _read_twice(directory: epath.Path) -> Saved:
    try:
        return saved.read(directory)
    except DamagedError:  # a bucket that stutters is not damage
        return saved.read(directory)


def _set_aside(directory: epath.Path) -> epath.Path:
    """Moves a checkpoint out of the way and returns where it is."""
    room = directory.parent.parent / DAMAGED
    room.mkdir(parents=True, exist_ok=True)
    names = itertools.chain([directory.name], (f"{directory.name}.{number}" for number in itertools.count(2)))
    return directory.rename(next(room / name for name in names if not (room / name).exists()))


def _remove(directory: epath.Path) -> None:
    """Deletes a checkpoint; on a file system it disappears at once, whatever happens then."""
    if "://" not in str(directory):
        directory = directory.rename(directory.parent / f".{directory.name}.deleted")
    directory.rmtree(missing_ok=True)


def load(path: str, *, ema: bool = True, step: int | str | None = None) -> Trained:
    """Returns a trained model: `path` is a run's directory, its `checkpoints` directory, or one checkpoint in it.

    Args:
      path: local or in a bucket.
      ema: the averaged weights, if the run kept any; otherwise those of the last step.
      step: completed updates, "best", or "latest" (as None).

    Raises:
      ValueError: if there is no such checkpoint; says which ones there are.
    """
    for attempt in range(_ATTEMPTS):
        directory = None
        try:
            directory = _find(path, step)
            return _trained(saved.read(directory), ema, directory)
        except DamagedError as error:
            if attempt == _ATTEMPTS - 1 and directory is None:
                raise
            if attempt == _ATTEMPTS - 1 or (directory is not None and directory.exists()):
                raise ValueError(f"{error}{_other_steps(directory)}") from error
            # otherwise the run that goes on there has deleted it meanwhile, and there is a newer one
    raise AssertionError


def _other_steps(directory: epath.Path) -> str:
    """Returns what to type in place of a damaged checkpoint."""
    others = [str(step) for step in _steps(directory.parent) if str(step) != directory.name]
    if not others:
        return ", and it is the only one"
    return f": type --step with another one ({', '.join(others)}), or give {directory.parent / others[-1]}"


def _trained(found: Saved, ema: bool, directory: epath.Path) -> Trained:
    ema = ema and any(name.startswith("ema/") for name in found.arrays)
    scopes = {name: f"ema/{name}" if ema else name for name in ("params", "batch_stats")}
    return Trained(
        variables={name: saved.nested(found.arrays, scope) for name, scope in scopes.items()},
        config=found.config,
        info=found.info,
        step=found.step,
        metrics=found.about["metrics"],
        path=str(directory),
    )


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


def _evaluations(folder: epath.Path) -> dict[int, dict[str, float]]:
    """Returns the metrics of all checkpoints that were evaluated, by step; damaged ones have none."""
    found = {}
    for step in _steps(folder):
        with contextlib.suppress(DamagedError):
            metrics = saved.read_about(folder / str(step))["metrics"]
            if metrics is not None:
                found[step] = metrics
    return found


def _best(folder: epath.Path, steps: list[int]) -> int:
    """Returns the step of the best evaluation by the run's own config; the latest one where nothing was evaluated."""
    evaluations = _evaluations(folder)
    if not evaluations:
        return steps[-1]
    about = Saved(steps[-1], saved.read_about(folder / str(max(evaluations))), {})
    metric = build_task(about.config, about.info).metric(about.config.checkpoint.best_metric)
    best = selection.best(evaluations.items(), metric)
    return steps[-1] if best is None else best
