"""What a person reads of a run: lines of progress and the closing summary."""

import importlib.util
import os
import shlex
import statistics
from collections.abc import Mapping

from mnet_jax.tasks.task import Metric, Task
from mnet_jax.training import selection

WAIT_WORTH_MENTION = 0.2  # share of the time that steps waited for data


def summary_lines(
    rows: list[dict],
    task: Task,
    best_by: Metric,
    *,
    workdir: str | os.PathLike,
    total_steps: int,
    batch_size: int | None = None,
) -> list[str]:
    """Returns the closing block: what was reached, in how much time, where it lies and what to type next."""
    place = shlex.quote(os.fspath(workdir))
    last = max(rows, key=lambda row: row["step"], default={"step": 0, "epoch": 0.0, "elapsed": 0.0})
    step, done = last["step"], last["step"] >= total_steps
    lines = [
        f"{'Finished' if done else 'Stopped'}: step {step:,} of {total_steps:,}, epoch {last['epoch']:.4g}, "
        f"in {duration(last['elapsed'])}"
    ]
    evals = {row["step"]: row for row in rows if row["kind"] == "eval" and row.get(best_by.name) is not None}
    final, best_step = max(evals, default=0), selection.best(evals.items(), best_by)
    if evals:
        lines.append(_metrics_line("best", evals[best_step], task))
        lines.append(_metrics_line("final", evals[final], task))
        count = evals[final].get("num_images") or 0
        if trust := best_by.interval(evals[final][best_by.name], count):
            low, high = (100 * share for share in trust)
            lines.append(
                f"         {count:,.0f} images say that {best_by.label} is {low:.1f} to {high:.1f} % (95 % interval)"
            )
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
    which = " --step best" if evals and best_step < final else ""
    lines.append(f"  mnet evaluate --checkpoint {place}{which}")
    lines.append(f"  mnet predict --checkpoint {place}{which} IMAGE...")
    if importlib.util.find_spec("tensorboard"):
        lines.append(f"  tensorboard --logdir {place}")
    else:
        lines.append(f"  pip install tensorboard && tensorboard --logdir {place}")
    if task.finetune:
        lines.append(f"  python train.py --config configs/{task.finetune} --config.init.checkpoint={place}")
    return lines


def train_parts(metrics: Mapping[str, float | None], task: Task) -> list[str]:
    """Returns the parts of a line of training: loss, the task's own, learning rate, speed and the wait for data."""
    own = [(metric.name, lambda value, metric=metric: _labelled(metric, value)) for metric in _train_metrics(task)]
    formats = [
        ("loss", lambda value: f"loss {value:8.4f}"),
        *own,
        ("learning_rate", lambda value: f"lr {value:8.2e}"),
        ("images_per_second", lambda value: f"{value:8,.0f} images/s"),
        ("data_wait", lambda value: f"data wait {100 * value:3.0f} %"),
    ]
    return [show(metrics[name]) for name, show in formats if metrics.get(name) is not None]


def eval_parts(metrics: Mapping[str, float | None], task: Task) -> list[str]:
    """Returns the parts of a line of evaluation: the loss where there is one, the other metrics, the images."""
    ordered = sorted(task.metrics, key=lambda metric: metric.name != "loss")
    parts = [_labelled(metric, metrics[metric.name]) for metric in ordered if metrics.get(metric.name) is not None]
    count = metrics.get("num_images")
    return parts if count is None else [*parts, f"{count:,.0f} images"]


def bar_postfix(metrics: Mapping[str, float | None], task: Task) -> dict[str, str]:
    """Returns what stands behind the terminal's bar, by its label."""
    own = [(m.name, m.label, lambda value, m=m: short(m, value)) for m in _train_metrics(task)]
    formats = [
        ("images_per_second", "images_per_second", lambda value: f"{value:,.0f} img/s"),
        ("loss", "loss", lambda value: f"{value:.3f}"),
        *own,
        ("learning_rate", "lr", lambda value: f"{value:.2g}"),
        ("data_wait", "data wait", lambda value: f"{100 * value:.0f}%"),
    ]
    return {label: show(metrics[name]) for name, label, show in formats if metrics.get(name) is not None}


def short(metric: Metric, value: float) -> str:
    """Returns a metric in few letters: "97.5%" or "0.123"."""
    return f"{100 * value:.1f}%" if metric.percent else f"{value:.3f}"


def _train_metrics(task: Task) -> list[Metric]:
    return [metric for metric in task.metrics if metric.name in task.train_metrics]


def _labelled(metric: Metric, value: float) -> str:
    return f"{metric.label} {100 * value:6.2f} %" if metric.percent else f"{metric.label} {value:8.4f}"


def _metrics_line(word: str, row: Mapping[str, float], task: Task) -> str:
    shown = [m for m in task.metrics if row.get(m.name) is not None and (m.name != "loss" or len(task.metrics) == 1)]
    images = f" on {row['num_images']:,.0f} images" if row.get("num_images") is not None else ""
    return f"  {word:<6} {'   '.join(_labelled(m, row[m.name]) for m in shown)}   at step {row['step']:,}{images}"


def duration(seconds: float) -> str:
    """Returns two units at most: '42 s', '1 min 32 s', '3 h 05 min', '2 d 04 h'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600:02d} h"
