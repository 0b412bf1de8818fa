"""A training run from its first step to its last checkpoint. What comes before the first step is in `setup.py`."""

import contextlib
import time
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from mnet_jax import tasks
from mnet_jax.pod import members
from mnet_jax.runtime import StopSignal
from mnet_jax.training import evaluation, setup
from mnet_jax.training.parallel import fetch, memory_errors
from mnet_jax.training.reporting.reporter import Watch
from mnet_jax.training.run_plan import due
from mnet_jax.training.setup import Run, Started


def train(config: ml_collections.ConfigDict, workdir: str, signal: StopSignal | None = None) -> dict[str, float] | None:
    """Trains, or goes on with, the run in `workdir`.

    Args:
      config: the run.
      workdir: its directory, local or in a bucket.
      signal: what asks it to stop, where the caller has entered one; `signal.stopped` says afterwards whether it did.

    Returns:
      The metrics of its last evaluation; None where it was asked to stop before the first one.

    Raises:
      ValueError: for anything in the config or the data that the user can mend.
      FloatingPointError: if the loss is not finite any more.
      OSError: if a checkpoint could not be written.
    """
    if signal is None:
        with StopSignal() as signal:
            return train(config, workdir, signal)
    run = setup.prepare(config, workdir)
    run_plan, reporter, checkpoints = run.run_plan, run.reporter, run.checkpoints
    with (
        contextlib.closing(run.lock),
        contextlib.closing(checkpoints),
        reporter,
        Watch(reporter.info) as watch,
        members.leaving(),
        memory_errors(run_plan),  # what a step raises may come up steps later, wherever its results are waited for
    ):
        asked = _asked(signal, run.devices.process_count)
        for line in (_headline(run), *run.notes):
            reporter.info(line)
        if run.first_step:
            reporter.info(f"Going on from step {run.first_step} of {run_plan.total_steps}")
        watch.waits_for("the programs and the first batch")
        started = setup.start(run)
        state, patience, metrics, step = started.state, started.patience, None, run.first_step

        def leaves_evaluation() -> bool:
            watch.waits_for(f"the next batch of the evaluation after step {step}")
            return asked()

        if started.to_evaluate:
            # nothing is unsaved: who is asked to stop here leaves at once
            metrics = started.evaluator(state.variables(ema=True), lambda: leaves_evaluation() and False)
            reporter.evaluation(step, metrics)
            patience.add(metrics)
            checkpoints.add_metrics(step, metrics)
        finished = started.finished or patience.exhausted
        window = Window(run.config.train.batch_size, run.task.train_metrics)
        batches = run.devices.feed(
            started.source.train(
                batch_size=run_plan.device_batch * len(run.devices.local),
                start_step=run.first_step,
                process_index=run.devices.process_index,
                process_count=run.devices.process_count,
            )
        )
        for step in range(run.first_step + 1, run_plan.total_steps + 1) if not finished else ():
            before = time.perf_counter()
            watch.waits_for(f"the batch of step {step}")
            batch = next(batches)
            wait = time.perf_counter() - before
            watch.waits_for(f"step {step}")
            state, step_metrics = started.stages.at(step)(state, batch)
            signal.hold()
            window.add(step, step_metrics, wait)
            reporter.advance(step)
            checkpoints.check()
            stop = asked()
            evaluate = due(step, run_plan.eval_steps, run_plan.total_steps) and not stop
            save = evaluate or stop or due(step, run_plan.checkpoint_steps, run_plan.total_steps)
            if save or due(step, run_plan.log_steps, run_plan.total_steps):
                reporter.train(step, window.report())  # refuses to go on with a loss that is not finite
            found = started.evaluator(state.variables(ema=True), leaves_evaluation) if evaluate else None
            if found is not None:
                metrics = found
                reporter.evaluation(step, metrics)
                patience.add(metrics)
            elif evaluate:
                stop = True  # in the evaluation: the next start makes up for it
            if save:
                watch.waits_for(f"the checkpoint of step {step}")
                checkpoints.save(step, fetch(state), run.saved_config, run.dataset.info, found)
                window.restart()
            if stop:
                checkpoints.wait()
                signal.stopped = True
                reporter.info(f"Asked to stop: saved step {step}. The same command goes on from there.")
                reporter.close()  # without pictures and a summary: the machine is about to go
                break
            if patience.exhausted and step < run_plan.total_steps:
                reporter.ends_at(step)
                reporter.info(f"Stopped early: no better evaluation in {run.config.train.patience} (train.patience)")
                break
        watch.waits_for("the last checkpoint")
        checkpoints.wait()
        signal.release()
        watch.waits_for("the last evaluation and the report")
        if finished:
            reporter.ends_at(step)
            reporter.info(f"This run is finished: {step} of {run_plan.total_steps} steps in {workdir}")
            metrics = metrics or started.evaluator(state.variables(ema=True))
        if not signal.stopped and run.config.eval.report and (patience.exhausted or step == run_plan.total_steps):
            _report(run, started)
    return metrics


def _asked(signal: StopSignal, process_count: int) -> Callable[[], bool]:
    """Returns what says, between two steps or two batches, whether this run was asked to stop (SIGTERM).

    Several processes agree on the place; those that were joined by other means than `members.joining` are not told.
    """
    if members.joined() is not None:
        return members.joined().stops
    return lambda: signal.asked and process_count == 1


class Window:
    """Metrics since the last report. They stay on the devices until then; two steps may be under way at most."""

    def __init__(self, batch_size: int, train_metrics: tuple[str, ...]):
        self._batch_size, self._train_metrics = batch_size, train_metrics
        self.restart()

    def restart(self) -> None:
        """Begins anew; called after an evaluation too, whose time is not the step's."""
        self._metrics: list[tuple[int, dict[str, jax.Array]]] = []
        self._wait, self._start = 0.0, time.perf_counter()

    def add(self, step: int, metrics: dict[str, jax.Array], wait: float) -> None:
        """Takes the metrics of a step, which waited so many seconds for its batch."""
        self._metrics.append((step, metrics))
        self._wait += wait
        if len(self._metrics) > 2:
            jax.block_until_ready(self._metrics[-3][1])

    def report(self) -> dict[str, float]:
        """Returns the means since the last call.

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
        means = {name: sum(row[name] for row in rows) / count for name in self._train_metrics}
        means |= {
            "loss": sum(row["objective"] for row in rows) / len(rows),
            "gradient_norm": sum(row["gradient_norm"] for row in rows) / len(rows),
            "learning_rate": rows[-1]["learning_rate"],
            "images_per_second": len(rows) * self._batch_size / max(seconds, 1e-9),
            "data_wait": min(1.0, self._wait / max(seconds, 1e-9)),
        }
        self.restart()
        return means


def _report(run: Run, started: Started) -> None:
    """Lets the task show what the best checkpoint gets right and wrong; a failure costs the files, not the run."""
    face = tasks.face(run.config.task.name, "report")
    log, info = run.reporter.info, run.dataset.info
    refusal = face.refusal(run.task, info)
    if refusal is not None:
        log(refusal)
        return
    step, _ = run.checkpoints.best()
    try:
        variables = run.restore(step).variables(ema=True)
    except ValueError as error:
        log(f"warning: the report was not written: {error}")
        return
    if not run.is_main:
        return
    batches = started.source.evaluation(
        batch_size=run.run_plan.eval_device_batch * len(run.devices.local), process_index=0, process_count=1
    )
    outputs = evaluation.outputs(started.learner, run.task, variables, batches, run.devices)
    try:
        for line in face.report(run.task, outputs, run.dataset, run.workdir, step=step):
            log(line)
    except (OSError, ValueError) as error:
        log(f"warning: the report was not written: {error}")


def _headline(run: Run) -> str:
    config, info, run_plan = run.config, run.dataset.info, run.run_plan
    sizes = ", then ".join(f"{height}x{width}" for _, (height, width) in run_plan.image_sizes)
    return (
        f"{config.model.name} x{config.model.width:g} on {info.name}: {info.num_train:,} images, "
        f"{info.num_classes} classes, {sizes} px; {run_plan.total_steps:,} steps of "
        f"{config.train.batch_size} images ({run_plan.epoch(run_plan.total_steps):.4g} epochs) "
        f"on {run.devices.count} x {run.devices.local[0].device_kind}"
        + (
            f", a device's {run_plan.device_batch} images in {run_plan.num_parts} parts"
            if run_plan.num_parts > 1
            else ""
        )
    )
