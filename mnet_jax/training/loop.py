"""A training run from its config to its last checkpoint: wiring only, no arithmetic."""

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator

import jax
import ml_collections
import numpy as np
from etils import epath

from mnet_jax.config import difference, from_json, to_json, validate
from mnet_jax.data import catalog, folder, views
from mnet_jax.tasks.classification import report
from mnet_jax.tasks.classification.task import balanced_weights
from mnet_jax.trained import build_model, build_task
from mnet_jax.training import device_memory, initial, photos
from mnet_jax.training.batches import ImageBatches, image_shapes
from mnet_jax.training.checkpoint import Checkpoints
from mnet_jax.training.embeddings import CachedBatches, ClassifierOnly, Extractor
from mnet_jax.training.evaluation import Evaluator
from mnet_jax.training.optimizer import make_optimizer, make_schedule
from mnet_jax.training.parallel import AXIS, Devices, fetch
from mnet_jax.training.reporting import Reporter
from mnet_jax.training.run_plan import RunPlan, derive, due
from mnet_jax.training.state import TrainState, new_state
from mnet_jax.training.step import make_train_step
from mnet_jax.training.stopping import Patience

# What may change between two starts of one run: nothing of it touches the weights.
FREE_FIELDS = (
    "data.data_dir",
    "data.manifest",
    "train.embedding_dir",
    "train.num_devices",
    "checkpoint.every_epochs",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "log.every_steps",
)


def claim(workdir: str, config: ml_collections.ConfigDict, *, is_main: bool) -> None:
    """Writes the config into the run's directory, or checks that the run there has the same one.

    Raises:
      ValueError: with the differences, if another run lives there.
    """
    path = epath.Path(workdir) / "config.json"
    if path.exists():
        lines = difference(config, from_json(path.read_text()))
        lines = [line for line in lines if not line.startswith(FREE_FIELDS)]
        if lines:
            raise ValueError(
                f"{workdir} holds a run with another config ({'; '.join(lines)}): give another --workdir or delete it"
            )
    if is_main:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".json.part")
        beside.write_text(to_json(config))
        beside.replace(path)


class Preemption:
    """Whether this run was asked to stop (SIGTERM); processes of one run agree on the step."""

    def __init__(self, checkpoints: Checkpoints, process_count: int):
        self._checkpoints, self._single = checkpoints, process_count == 1
        self._asked = False

    def __enter__(self) -> "Preemption":
        if self._single:  # with several processes jax's own handler tells all of them
            self._previous = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *unused: object) -> None:
        if self._single:
            signal.signal(signal.SIGTERM, self._previous)

    def _ask(self, *unused: object) -> None:
        self._asked = True

    def reached(self, step: int) -> bool:
        """Whether to save and leave after `step`."""
        return self._asked if self._single else self._checkpoints.reached_preemption(step)


class Window:
    """Metrics since the last report. They stay on the devices until then; two steps may be under way at most."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        """Begins anew; called after an evaluation too, whose time is not the step's."""
        self._metrics: list[tuple[int, dict[str, jax.Array]]] = []
        self._wait, self._start = 0.0, time.perf_counter()

    def add(self, step: int, metrics: dict[str, jax.Array], wait: float) -> None:
        """`wait`: seconds that the step waited for its batch."""
        self._metrics.append((step, metrics))
        self._wait += wait
        if len(self._metrics) > 2:
            jax.block_until_ready(self._metrics[-3][1])

    def report(self) -> dict[str, float]:
        """Means since the last call.

        Raises:
          FloatingPointError: if a loss or gradient was not finite; says at which step.
        """
        values = [
            (step, {name: float(np.asarray(x)) for name, x in metrics.items()}) for step, metrics in self._metrics
        ]
        seconds = time.perf_counter() - self._start
        for step, metrics in values:
            for name in ("objective", "gradient_norm"):
                if not np.isfinite(metrics[name]):
                    raise FloatingPointError(
                        f"the {'loss' if name == 'objective' else 'gradient'} is not finite at step {step} "
                        f"(learning rate {metrics['learning_rate']:.4g}); the last checkpoint is from before. Try a "
                        "lower --config.schedule.lr_per_256, a longer warm-up (--config.schedule.warmup_epochs) or "
                        "--config.optimizer.clip_norm=1.0"
                    )
        rows = [metrics for _, metrics in values]
        count = sum(row["count"] for row in rows)
        means = {name: sum(row[name] for row in rows) / count for name in ("top1",)}
        means |= {
            "loss": sum(row["objective"] for row in rows) / len(rows),
            "gradient_norm": sum(row["gradient_norm"] for row in rows) / len(rows),
            "learning_rate": rows[-1]["learning_rate"],
            "images_per_second": len(rows) * self._batch_size / max(seconds, 1e-9),
            "data_wait": min(1.0, self._wait / max(seconds, 1e-9)),
        }
        self.restart()
        return means


def train(config: ml_collections.ConfigDict, workdir: str) -> dict[str, float]:
    """Trains, or goes on with, the run in `workdir`, and returns the metrics of its last evaluation.

    Raises:
      ValueError: for anything in the config or the data that the user can mend.
      FloatingPointError: if the loss is not finite any more.
    """
    validate(config)
    source = initial.find_source(config, workdir)
    config = initial.adopt(config, source, workdir)
    validate(config)
    folder.forget()
    config = photos.recall(config, workdir)
    kept = photos.to_keep(config, workdir)
    devices = Devices(config.train.num_devices)
    info = catalog.describe(config.data)
    run = derive(config, info, devices.count)
    is_main = devices.process_index == 0
    model, task = build_model(config, info, axis_name=AXIS), build_task(config, info)
    if config.task.class_weights == "balanced":
        weights = balanced_weights(views.labels(config.data, info.train_split), info.num_classes)
        task = dataclasses.replace(task, class_weights=weights)
    schedule, optimizer = make_schedule(config, run), make_optimizer(config, run)
    notes = []
    variables = initial.first_variables(config, model.plan, info.class_names, source, notes.append)
    claim(workdir, kept, is_main=is_main)
    if is_main:
        photos.note(config, workdir, notes.append)
    checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep, best_metric=config.checkpoint.best_metric)
    first_step = checkpoints.latest_step() or 0
    reporter = Reporter(
        workdir,
        total_steps=run.total_steps,
        start_step=first_step,
        is_main=is_main,
        steps_per_epoch=run.steps_per_epoch,
        batch_size=config.train.batch_size,
    )
    with contextlib.closing(checkpoints), reporter, Preemption(checkpoints, devices.process_count) as preemption:
        reporter.info(_headline(config, info, run, devices))
        for note in notes:
            reporter.info(note)
        fresh = jax.jit(lambda variables: new_state(variables, optimizer, ema=config.ema.decay > 0))
        if first_step:
            reporter.info(f"Going on from step {first_step} of {run.total_steps}")
            state = checkpoints.restore(first_step, jax.eval_shape(fresh, variables))
        else:
            state = fresh(variables)
        learner, source = model, ImageBatches(config, info)
        if config.train.embedding_views:
            place = config.train.embedding_dir or os.path.join(workdir, "features")
            frozen = state.variables(ema=False)
            extract = Extractor(model, task, frozen, config, info, devices, directory=place, log=reporter.info)
            learner, source = ClassifierOnly(model), CachedBatches(extract, config, info)
        state = devices.replicate(state)
        train_step = devices.pmap(make_train_step(learner, task, optimizer, schedule, config, AXIS), donate_state=True)
        evaluator = Evaluator(learner, task, config, info, devices, run.eval_device_batch, source)
        patience = Patience(config.train.patience, config.checkpoint.best_metric)
        if first_step:
            patience.resume(checkpoints.best(), first_step, run.eval_steps, run.total_steps)
        window, metrics = Window(config.train.batch_size), None
        batches = _batches(source, run, devices, first_step)
        finished = first_step >= run.total_steps or patience.exhausted
        wait_for_program = _compile_ahead(train_step, evaluator, state, run, devices, source, finished=finished)
        for step in range(first_step + 1, run.total_steps + 1) if not finished else ():
            asked = time.perf_counter()
            batch = next(batches)
            wait = time.perf_counter() - asked
            with device_memory.advised(config, run):
                wait_for_program()
                state, step_metrics = train_step(state, batch)
            window.add(step, step_metrics, wait)
            reporter.advance(step)
            stop = preemption.reached(step)
            evaluate = due(step, run.eval_steps, run.total_steps)
            save = evaluate or stop or due(step, run.checkpoint_steps, run.total_steps)
            if save or due(step, run.log_steps, run.total_steps):
                reporter.train(step, window.report())  # refuses to go on with a loss that is not finite
            if evaluate:
                metrics = evaluator(state.variables(ema=True))
                reporter.evaluation(step, metrics)
                patience.saw(metrics)
            if save:
                checkpoints.save(step, fetch(state), kept, info, metrics if evaluate else None)
                window.restart()
            if stop and step < run.total_steps:
                checkpoints.wait()
                reporter.info(f"Asked to stop: saved step {step}. The same command goes on from there.")
                break
            if patience.exhausted and step < run.total_steps:
                reporter.ends_at(step)
                reporter.info(f"Stopped early: no better evaluation in {config.train.patience} (train.patience)")
                break
        checkpoints.wait()
        if finished:
            reporter.ends_at(first_step)
            reporter.info(f"This run is finished: {first_step} of {run.total_steps} steps in {workdir}")
            metrics = evaluator(state.variables(ema=True))
        if config.eval.report and (finished or patience.exhausted or step == run.total_steps):
            best_step, _ = checkpoints.best()
            best = checkpoints.restore(best_step, jax.eval_shape(fresh, variables)).variables(ema=True)
            if is_main:
                batches = source.evaluation(
                    batch_size=run.eval_device_batch * len(devices.local), process_index=0, process_count=1
                )
                predictions = report.predict(learner, task, best, batches, devices)
                report.report(workdir, predictions, config, info, step=best_step, log=reporter.info)
    return metrics


def _compile_ahead(
    train_step: Callable,
    evaluator: Evaluator,
    state: TrainState,
    run: RunPlan,
    devices: Devices,
    source: ImageBatches | CachedBatches,
    *,
    finished: bool,
) -> Callable[[], object]:
    """Compiles both programs for images while the first batch is read; returns what waits for the train step's.

    With cached features both are a classifier's: nothing to hide.
    """
    if isinstance(source, CachedBatches):
        return lambda: None
    images = image_shapes((len(devices.local), run.device_batch), run.image_size)
    wait = (lambda: None) if finished else devices.compile_ahead(train_step, state, images)
    evaluator.compile_ahead(state.variables(ema=True), run.image_size)
    return wait


def _batches(
    source: ImageBatches | CachedBatches, run: RunPlan, devices: Devices, first_step: int
) -> Iterator[dict[str, jax.Array]]:
    """Batches on the devices, beginning with the one that follows `first_step`."""
    return devices.feed(
        source.train(
            batch_size=run.device_batch * len(devices.local),
            start_step=first_step,
            process_index=devices.process_index,
            process_count=devices.process_count,
        )
    )


def _headline(config: ml_collections.ConfigDict, info: catalog.DatasetInfo, run: RunPlan, devices: Devices) -> str:
    height, width = run.image_size
    return (
        f"{config.model.name} x{config.model.width:g} on {info.name}: {info.num_train:,} images, "
        f"{info.num_classes} classes, {height}x{width} px; {run.total_steps:,} steps of "
        f"{config.train.batch_size} images ({run.epoch(run.total_steps):.4g} epochs) "
        f"on {devices.count} x {devices.local[0].device_kind}"
        + (f", a device's {run.device_batch} images in {run.num_parts} parts" if run.num_parts > 1 else "")
    )
