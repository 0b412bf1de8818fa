"""The files of a run: lines that stay whole, TensorBoard events, copies in a bucket."""

import contextlib
import json
import math
import os
import pathlib
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping

from mnet_jax.files import write_whole

_FLUSH_SECONDS = 10.0  # TensorBoard files are synced to disk this often


def read_rows(path: str | os.PathLike) -> list[dict]:
    """Returns the rows of a metrics.jsonl, none where there is no file; a line that is no row is left out.

    Such a line was torn by a kill, or damaged. Of a row whose value is no number, that value is None.
    """
    path = pathlib.Path(path)
    rows = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("kind"), str) and type(row.get("step")) is int:
                plain = {name: value if name == "kind" else _number(value) for name, value in row.items()}
                rows.append({**plain, **{name: plain.get(name) or 0.0 for name in ("epoch", "time", "elapsed")}})
    return rows


def _number(value: object) -> float | int | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None


class LineFile:
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
        self._lock = threading.Lock()  # the watch of a run writes from a thread of its own

    def write(self, line: str) -> None:
        """Appends `line`; OSError when it has to wait."""
        with self._lock:
            self._write(line)

    def _write(self, line: str) -> None:
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


class EventFile:
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


class Bucket:
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


def drop_rows_after(path: pathlib.Path, start_step: int) -> list[dict]:
    """Keeps the rows of a metrics.jsonl up to `start_step` (none for a fresh start); returns them."""
    rows = [row for row in read_rows(path) if start_step and row["step"] <= start_step]
    if path.exists():
        write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def plain_number(value: float) -> float | int | None:
    """Returns a Python number of any scalar (NumPy's, a device's); None for NaN and the infinities."""
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
