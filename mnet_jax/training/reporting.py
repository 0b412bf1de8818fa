"""What a person sees of a run: progress, train.log, metrics.jsonl, TensorBoard files, curves.png and a summary.

A row of metrics.jsonl is one JSON object on one line:

    {"kind": "train" or "eval", "step": completed updates, "epoch": float, "time": Unix seconds,
     "elapsed": seconds up to here over all starts of the run, ...the metrics}

Accuracies are shares in 0..1. A number that is not finite is written as null, so that every line is strict JSON.
"""

import contextlib
import importlib.util
import json
import math
import os
import pathlib
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType

_FLUSH_SECONDS = 10.0  # TensorBoard files are synced to disk this often
_BUCKET_SECONDS = 60.0  # and buckets receive copies this often
WAIT_WORTH_MENTION = 0.2  # share of the time that steps waited for data
_TENSORBOARD_SKIPS = ("num_images",)


def read_rows(path: str | os.PathLike) -> list[dict]:
    """Rows of a metrics.jsonl; none where there is no file. A torn line (a kill while writing) is left out."""
    path = pathlib.Path(path)
    rows = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and "kind" in row and "step" in row:
                rows.append(row)
    return rows


def summary_lines(
    rows: list[dict], *, workdir: str | os.PathLike, total_steps: int, batch_size: int | None = None
) -> list[str]:
    """The closing block: what was reached, in how much time, where it lies and what to type next."""
    place = shlex.quote(os.fspath(workdir))
    last = max(rows, key=lambda row: row["step"], default={"step": 0, "epoch": 0.0, "elapsed": 0.0})
    step, done = last["step"], last["step"] >= total_steps
    lines = [
        f"{'Finished' if done else 'Stopped'}: step {step:,} of {total_steps:,}, epoch {last['epoch']:.4g}, "
        f"in {_duration(last['elapsed'])}"
    ]
    evals = [row for row in rows if row["kind"] == "eval" and row.get("top1") is not None]
    if evals:
        best = max(evals, key=lambda row: (row["top1"], -(row.get("loss") or math.inf), row["step"]))
        lines.append(_accuracy_line("best", best))
        lines.append(_accuracy_line("final", evals[-1]))
    speeds = [row["images_per_second"] for row in rows if row["kind"] == "train" and row.get("images_per_second")]
    seen = [f"{step * batch_size:,} images"] if batch_size else []
    seen += [f"{statistics.median(speeds):,.0f} images/s"] if speeds else []
    if seen:
        lines.append(f"  seen   {', '.join(seen)}")
    waits = [row["data_wait"] for row in rows if row["kind"] == "train" and row.get("data_wait") is not None]
    wait = statistics.median(waits) if waits else 0.0
    if wait > WAIT_WORTH_MENTION:
        lines.append(
            f"  waited {100 * wait:.0f} % of the time for data: `mnet prepare` stores the set with small images,"
        )
        lines.append("         --config.data.cache_mb keeps it in memory, `mnet benchmark input` says what binds")
    lines.append(f"  files  {place}: curves.png, metrics.jsonl, train.log, tensorboard/, checkpoints/")
    lines.append("Next:")
    if not done:
        lines.append("  the same command again continues from the last checkpoint")
    which = " --step best" if evals and best["step"] < evals[-1]["step"] else ""
    lines.append(f"  mnet evaluate --checkpoint {place}{which}")
    lines.append(f"  mnet predict --checkpoint {place}{which} IMAGE...")
    if importlib.util.find_spec("tensorboard"):
        lines.append(f"  tensorboard --logdir {place}")
    else:
        lines.append(f"  pip install tensorboard && tensorboard --logdir {place}")
    lines.append(f"  python train.py --config configs/finetune.py --config.init.checkpoint={place}")
    return lines


class Reporter:
    """Writes a run's progress. A process that is not the main one writes nothing.

    Trouble with the terminal, the disk or TensorBoard never stops a run: it is said once and training goes on.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        total_steps: int,
        start_step: int = 0,
        is_main: bool = True,
        steps_per_epoch: float = 1.0,
        batch_size: int | None = None,
    ) -> None:
        """Opens the files of `workdir`, local or in a bucket (gs://...).

        `batch_size` (images a step over all devices) is for the summary's count of images; None leaves it out.
        """
        self._is_main = is_main
        if not is_main:
            return
        self._workdir = os.fspath(workdir)
        self._total_steps = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._batch_size = batch_size
        self._closed = False
        self._warned: set[str] = set()

        self._bucket = _Bucket(self._workdir) if "://" in self._workdir else None
        self._dir = self._bucket.local if self._bucket else pathlib.Path(self._workdir)
        self._dir.mkdir(parents=True, exist_ok=True)
        self._log = _LineFile(self._dir / "train.log")
        rows = _drop_rows_after(self._dir / "metrics.jsonl", start_step)
        self._metrics = _LineFile(self._dir / "metrics.jsonl")
        self._events = _EventFile(self._dir / "tensorboard", start_step)
        self._best = max((row.get("top1") or 0.0 for row in rows if row["kind"] == "eval"), default=0.0)

        self._earlier_seconds = rows[-1].get("elapsed", 0.0) if rows else 0.0
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
        parts = [self._position("step", step), *_train_parts(metrics)]
        left = self._seconds_left(step)
        if left is not None:
            parts.append(f"{_duration(left)} left")
        line = "  ".join(parts)
        self._to_log(line)
        if self._bar is None:
            self._to_terminal(line)
            return
        self._postfix = _bar_postfix(metrics) | {k: v for k, v in self._postfix.items() if k == "eval"}
        self._show_postfix()

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """One pass over the evaluation split: a line everywhere, metrics.jsonl, TensorBoard."""
        if not self._is_main:
            return
        metrics = self._record("eval", step, metrics)
        parts = [self._position("eval", step), *_eval_parts(metrics)]
        top1 = metrics.get("top1")
        if top1 is not None:
            if top1 > self._best:
                self._best = top1
                parts.append("best so far")
            self._postfix["eval"] = f"{100 * top1:.1f}%"
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
            from mnet_jax.training import curves

            curves.draw_curves(path, self._dir / "curves.png")
        except Exception as error:  # hours of training must not end in a traceback for want of a picture
            self.info(f"curves.png was not drawn: {type(error).__name__}: {error}")
        for line in summary_lines(
            read_rows(path), workdir=self._workdir, total_steps=self._total_steps, batch_size=self._batch_size
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


class _LineFile:
    """A file that holds whole lines only, also after a full disk or a kill.

    Lines that cannot be written (no space) wait in memory and go out with the next that can.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._end = os.fstat(self._file).st_size
        if self._end and os.pread(self._file, 1, self._end - 1) != b"\n":  # torn by a kill
            tail = os.pread(self._file, self._end, 0)
            self._end = tail.rfind(b"\n") + 1
            os.ftruncate(self._file, self._end)
        self._waiting = b""

    def write(self, line: str) -> None:
        """Appends `line`; OSError when it has to wait."""
        self._waiting += line.encode(errors="replace") + b"\n"
        written = 0
        try:
            while written < len(self._waiting):
                written += os.pwrite(self._file, self._waiting[written:], self._end + written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise
        self._end += written
        self._waiting = b""

    def close(self) -> None:
        os.close(self._file)


class _EventFile:
    """TensorBoard scalars, written in this thread: SummaryWriter hangs when its own thread meets a full disk."""

    def __init__(self, directory: pathlib.Path, start_step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event, self._summary = event_pb2, summary_pb2
        directory.mkdir(parents=True, exist_ok=True)
        resumed = any(directory.iterdir())
        # the process id keeps two starts within one second apart
        self._writer = EventsWriter(os.fspath(directory / "events"), f".{os.getpid()}.{start_step}")
        self._last_flush = 0.0
        if resumed:  # TensorBoard hides what earlier starts wrote at this step and later
            purge_step = start_step + 1 if start_step else 0
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.write_event(event_pb2.Event(wall_time=time.time(), step=purge_step, session_log=start))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._writer is None:
            return
        values = [self._summary.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        summary = self._summary.Summary(value=values)
        self._writer.write_event(self._event.Event(wall_time=time.time(), step=int(step), summary=summary))
        if time.monotonic() - self._last_flush > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()
            self._last_flush = time.monotonic()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def give_up(self) -> None:
        """After a failed write the file may end in half a record; what would follow could not be read."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError, ValueError):
                writer.close()


class _Bucket:
    """A run's directory in a bucket. Objects there cannot grow: files live in a temporary directory, copied whole."""

    def __init__(self, workdir: str) -> None:
        from etils import epath

        self._remote = epath.Path(workdir)
        self.local = pathlib.Path(tempfile.mkdtemp(prefix="mnet_report_"))
        self._last_copy = time.monotonic()
        for name in ("metrics.jsonl", "train.log"):
            if (self._remote / name).exists():
                (self.local / name).write_bytes((self._remote / name).read_bytes())
        if (
            self._remote / "tensorboard"
        ).exists():  # earlier event files stay where they are; a marker says there are some
            (self.local / "tensorboard").mkdir()
            (self.local / "tensorboard" / ".earlier").touch()

    def copy(self, at_most_every: float = 0.0) -> None:
        if time.monotonic() - self._last_copy < at_most_every:
            return
        self._last_copy = time.monotonic()
        for file in self.local.rglob("[!.]*"):
            if file.is_file():
                remote = self._remote / file.relative_to(self.local).as_posix()
                try:
                    remote.parent.mkdir(parents=True, exist_ok=True)
                    remote.write_bytes(file.read_bytes())
                except Exception as error:  # each storage client has error classes of its own
                    raise OSError(f"{remote}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        self.copy()
        shutil.rmtree(self.local)


def _drop_rows_after(path: pathlib.Path, start_step: int) -> list[dict]:
    """Keeps the rows up to `start_step` (none for a fresh start), moved into place as a whole; returns them."""
    rows = [row for row in read_rows(path) if start_step and row["step"] <= start_step]
    if path.exists():
        beside = path.with_name(path.name + ".new")
        beside.write_text("".join(json.dumps(row) + "\n" for row in rows))
        beside.replace(path)
    return rows


def plain_number(value: float) -> float | int | None:
    """A Python number of any scalar (NumPy's, a device's); None for NaN and the infinities."""
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _train_parts(metrics: Mapping[str, float | None]) -> Iterable[str]:
    formats = {
        "loss": lambda value: f"loss {value:8.4f}",
        "top1": lambda value: f"top-1 {100 * value:6.2f} %",
        "learning_rate": lambda value: f"lr {value:8.2e}",
        "images_per_second": lambda value: f"{value:8,.0f} images/s",
        "data_wait": lambda value: f"data wait {100 * value:3.0f} %",
    }
    return [show(metrics[name]) for name, show in formats.items() if metrics.get(name) is not None]


def _eval_parts(metrics: Mapping[str, float | None]) -> Iterable[str]:
    formats = {
        "loss": lambda value: f"loss {value:8.4f}",
        "top1": lambda value: f"top-1 {100 * value:6.2f} %",
        "top5": lambda value: f"top-5 {100 * value:6.2f} %",
        "num_images": lambda value: f"{value:,.0f} images",
    }
    return [show(metrics[name]) for name, show in formats.items() if metrics.get(name) is not None]


def _bar_postfix(metrics: Mapping[str, float | None]) -> dict[str, str]:
    formats = {
        "images_per_second": ("images_per_second", lambda value: f"{value:,.0f} img/s"),
        "loss": ("loss", lambda value: f"{value:.3f}"),
        "top1": ("top-1", lambda value: f"{100 * value:.1f}%"),
        "learning_rate": ("lr", lambda value: f"{value:.2g}"),
        "data_wait": ("data wait", lambda value: f"{100 * value:.0f}%"),
    }
    return {label: show(metrics[name]) for name, (label, show) in formats.items() if metrics.get(name) is not None}


def _accuracy_line(word: str, row: Mapping[str, float]) -> str:
    top5 = f"   top-5 {100 * row['top5']:6.2f} %" if row.get("top5") is not None else ""
    images = f" on {row['num_images']:,.0f} images" if row.get("num_images") is not None else ""
    return f"  {word:<6} top-1 {100 * row['top1']:6.2f} %{top5}   at step {row['step']:,}{images}"


def _duration(seconds: float) -> str:
    """Two units at most: '42 s', '1 min 32 s', '3 h 05 min', '2 d 04 h'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600:02d} h"
