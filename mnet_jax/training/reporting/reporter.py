"""A run's progress as it goes: the terminal's bar, train.log, metrics.jsonl, TensorBoard, and the end's summary."""

import json
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from mnet_jax.files import printable
from mnet_jax.tasks.task import Metric, Task
from mnet_jax.training import selection
from mnet_jax.training.reporting import text
from mnet_jax.training.reporting.run_files import (
    Bucket,
    EventFile,
    LineFile,
    drop_rows_after,
    plain_number,
    read_rows,
)

_STALLED_SECONDS = 60.0  # without progress, until it is said; then after twice that, four times that, ...
_ROOT = str(pathlib.Path(__file__).resolve().parents[2])
_BUCKET_SECONDS = 60.0  # buckets receive copies this often
_TENSORBOARD_SKIPS = ("num_images",)


class Reporter:
    """Writes a run's progress. A process that is not the main one writes nothing.

    Trouble with the terminal, the disk or TensorBoard never stops a run: it is said once and training goes on.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        task: Task,
        best_by: Metric,
        *,
        total_steps: int,
        start_step: int = 0,
        is_main: bool = True,
        steps_per_epoch: float = 1.0,
        batch_size: int | None = None,
    ) -> None:
        """Opens the files of `workdir`, local or in a bucket (gs://...).

        Args:
          workdir: of the run.
          task: whose metrics are shown.
          best_by: the metric by which the best evaluation is chosen.
          total_steps: of the whole run.
          start_step: completed before this start.
          is_main: whether this process writes.
          steps_per_epoch: passes over the training data are counted by it.
          batch_size: images a step over all devices, for the summary's count of images; None leaves it out.
        """
        self._is_main = is_main
        if not is_main:
            return
        self._workdir = os.fspath(workdir)
        self._task, self._best_by = task, best_by
        self._total_steps = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._batch_size = batch_size
        self._closed = False
        self._warned: set[str] = set()

        self._bucket = Bucket(self._workdir) if "://" in self._workdir else None
        self._dir = self._bucket.local if self._bucket else pathlib.Path(self._workdir)
        self._dir.mkdir(parents=True, exist_ok=True)
        self._log = LineFile(self._dir / "train.log")
        rows = drop_rows_after(self._dir / "metrics.jsonl", start_step)
        self._metrics = LineFile(self._dir / "metrics.jsonl")
        self._events = EventFile(self._dir / "tensorboard", start_step)
        evals = [row for row in rows if row["kind"] == "eval" and row.get(best_by.name) is not None]
        self._best = max((selection.score(row, best_by) for row in evals), default=None)

        self._earlier_seconds = (rows[-1].get("elapsed") or 0.0) if rows else 0.0
        self._start_time = time.monotonic()
        self._anchor: tuple[int, float] | None = None  # (step, time) once the first step, which compiles, is over
        self._terminal = sys.stderr
        self._bar = None
        self._postfix: dict[str, str] = {}
        if self._terminal.isatty():
            import tqdm

            self._bar = tqdm.tqdm(
                total=total_steps,
                initial=start_step,
                file=self._terminal,
                dynamic_ncols=True,
                smoothing=0,  # time left by the mean speed, or each evaluation would throw it off
                bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining} left{postfix}",
            )

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finishes after success; after an exception only closes, so that the error's own message is the last word."""
        if kind is None:
            self.finish()
        else:
            self.close()

    def info(self, line: str) -> None:
        """One line to the terminal and to train.log."""
        if not self._is_main:
            return
        line = printable(line)
        self._to_log(line)
        self._to_terminal(line)

    def advance(self, step: int) -> None:
        """Moves the bar; cheap enough for every step."""
        if not self._is_main:
            return
        if self._anchor is None:
            self._anchor = (step, time.monotonic())
            if self._bar is not None:
                self._bar.unpause()  # its clock, too, starts after the first step
        if self._bar is not None:
            self._guard("terminal", lambda: self._bar.update(step - self._bar.n))

    def train(self, step: int, metrics: Mapping[str, float]) -> None:
        """Averages since the last call: the bar, or a line where there is none; always the files."""
        if not self._is_main:
            return
        metrics = self._record("train", step, metrics)
        parts = [self._position("step", step), *text.train_parts(metrics, self._task)]
        left = self._seconds_left(step)
        if left is not None:
            parts.append(f"{text.duration(left)} left")
        line = "  ".join(parts)
        self._to_log(line)
        if self._bar is None:
            self._to_terminal(line)
            return
        self._postfix = text.bar_postfix(metrics, self._task) | {k: v for k, v in self._postfix.items() if k == "eval"}
        self._show_postfix()

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """One pass over the evaluation split: a line everywhere, metrics.jsonl, TensorBoard."""
        if not self._is_main:
            return
        metrics = self._record("eval", step, metrics)
        parts = [self._position("eval", step), *text.eval_parts(metrics, self._task)]
        if metrics.get(self._best_by.name) is not None:
            score = selection.score(metrics, self._best_by)
            if self._best is None or score >= self._best:
                self._best = score
                parts.append("best so far")
        headline = self._task.metrics[0]
        if metrics.get(headline.name) is not None:
            self._postfix["eval"] = text.short(headline, metrics[headline.name])
        self.info("  ".join(parts))
        self._show_postfix()
        self._flush()

    def ends_at(self, step: int) -> None:
        """The run is complete with `step`, before the steps that were planned."""
        if self._is_main:
            self._total_steps = step

    def finish(self) -> None:
        """Draws curves.png, says the summary and closes. Once is enough; more does nothing."""
        if not self._is_main or self._closed:
            return
        self._close_bar()
        path = self._dir / "metrics.jsonl"
        try:
            from mnet_jax.training.reporting import curves

            curves.draw_curves(path, self._dir / "curves.png", self._task, self._best_by)
        except Exception as error:  # hours of training must not end in a traceback for want of a picture
            self.info(f"curves.png was not drawn: {type(error).__name__}: {error}")
        for line in text.summary_lines(
            read_rows(path),
            self._task,
            self._best_by,
            workdir=self._workdir,
            total_steps=self._total_steps,
            batch_size=self._batch_size,
        ):
            self.info(line)
        self.close()

    def close(self) -> None:
        """Closes everything without a summary."""
        if not self._is_main or self._closed:
            return
        self._closed = True
        self._close_bar()
        self._flush()
        self._guard("tensorboard", self._events.close)
        self._metrics.close()
        self._log.close()
        if self._bucket:
            self._guard("bucket", self._bucket.close)

    def _record(self, kind: str, step: int, metrics: Mapping[str, float]) -> dict[str, float | int | None]:
        """Writes metrics.jsonl and TensorBoard; returns the metrics as plain numbers, None where not finite."""
        plain = {name: plain_number(value) for name, value in metrics.items()}
        row = {
            "kind": kind,
            "step": int(step),
            "epoch": round(step / self._steps_per_epoch, 4),
            "time": round(time.time(), 3),
            "elapsed": round(self._earlier_seconds + time.monotonic() - self._start_time, 3),
        }
        self._guard("metrics.jsonl", lambda: self._metrics.write(json.dumps(row | plain, allow_nan=False)))
        scalars = {f"{kind}/{name}": float(value) for name, value in metrics.items() if name not in _TENSORBOARD_SKIPS}
        self._guard("tensorboard", lambda: self._events.write(step, scalars))
        if self._bucket:
            self._guard("bucket", lambda: self._bucket.copy(at_most_every=_BUCKET_SECONDS))
        return plain

    def _position(self, word: str, step: int) -> str:
        width = len(str(self._total_steps))
        return f"{word} {step:>{width}}/{self._total_steps}  epoch {step / self._steps_per_epoch:>6.2f}"

    def _seconds_left(self, step: int) -> float | None:
        now = time.monotonic()
        if self._anchor is None:
            self._anchor = (step, now)
        steps, seconds = step - self._anchor[0], now - self._anchor[1]
        return (self._total_steps - step) * seconds / steps if steps > 0 else None

    def _show_postfix(self) -> None:
        if self._bar is not None:
            # images/s stands first and the evaluation last: a narrow terminal cuts the end of the line
            text = " ".join(v if k == "images_per_second" else f"{k} {v}" for k, v in self._postfix.items())
            self._guard("terminal", lambda: self._bar.set_postfix_str(text))

    def _to_log(self, line: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self._guard("train.log", lambda: self._log.write(f"{stamp}  {line}"))

    def _to_terminal(self, line: str) -> None:
        if self._bar is not None:
            self._guard("terminal", lambda: self._bar.write(line, file=self._terminal))
        elif self._terminal is not None:
            self._guard("terminal", lambda: print(line, file=self._terminal, flush=True))

    def _flush(self) -> None:
        self._guard("tensorboard", self._events.flush)

    def _close_bar(self) -> None:
        if self._bar is not None:
            bar, self._bar = self._bar, None
            self._guard("terminal", bar.close)

    def _guard(self, what: str, action: Callable[[], object]) -> None:
        """Runs an output action; a failure is said once and costs only that output (ValueError: a closed stream)."""
        try:
            action()
        except (OSError, ValueError) as error:
            if what == "terminal":
                if self._bar is not None:
                    self._bar.disable = True  # or its destructor would write once more
                self._terminal = self._bar = None
            if what == "tensorboard":
                self._events.give_up()
            if what not in self._warned:
                self._warned.add(what)
                self.info(f"warning: cannot write to {what}: {error}; training goes on")


class Watch:
    """Says it when a run does not get on: what it waits for, how long already, and where in the code that is.

    A second thread looks at what the thread that made it has noted.
    """

    def __init__(self, log: Callable[[str], None], seconds: float | None = None):
        """Watches nothing yet: enter it. `seconds`: until it is said the first time; None: a minute."""
        self._log, self._seconds = log, _STALLED_SECONDS if seconds is None else seconds
        self._watched = threading.get_ident()
        self._now = ("the first step", time.monotonic())
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._now = (self._now[0], time.monotonic())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()

    def waits_for(self, what: str) -> None:
        """Notes what is waited for from now on, such as "the batch of step 7"; costs a microsecond."""
        self._now = (what, time.monotonic())

    def _run(self) -> None:
        told, wanted = self._now, self._seconds
        while not self._left.wait(min(1.0, self._seconds / 10)):
            now = self._now
            if now != told:
                told, wanted = now, self._seconds
            what, since = now
            seconds = time.monotonic() - since
            if seconds >= wanted:
                wanted *= 2
                self._log(f"warning: the run has been waiting for {what} for {seconds:.0f} s{self._place()}")

    def _place(self) -> str:
        """Returns where the watched thread is, in words: the innermost line of ours."""
        frame = sys._current_frames().get(self._watched)
        while frame is not None and not frame.f_code.co_filename.startswith(_ROOT):
            frame = frame.f_back
        return "" if frame is None else f" ({pathlib.Path(frame.f_code.co_filename).name}, line {frame.f_lineno})"
