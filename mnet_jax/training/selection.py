"""Which of a run's evaluations is the best: the only definition of it, for checkpoints, early stopping and reports."""

from collections.abc import Iterable, Mapping

from mnet_jax.tasks.task import Metric
from mnet_jax.training.run_plan import due


def score(metrics: Mapping[str, float], metric: Metric) -> tuple[float, ...]:
    """Returns what evaluations are compared by, higher is better: the metric, then the loss where there is one.

    On a few hundred images equal accuracies are common: of two the one with the lower loss is better.
    """
    value = metrics[metric.name] if metric.higher_is_better else -metrics[metric.name]
    return (value,) if metric.name == "loss" or metrics.get("loss") is None else (value, -metrics["loss"])


def best(evaluations: Iterable[tuple[int, Mapping[str, float]]], metric: Metric) -> int | None:
    """Returns the step of the best of the (step, metrics), the later of equals; None if none has the metric."""
    scores = {step: score(found, metric) for step, found in evaluations if found.get(metric.name) is not None}
    return max(scores, key=lambda step: (scores[step], step), default=None)


class Patience:
    """Early stopping: counts the evaluations since the best one.

    What is counted is a function of the evaluations so far, so a run that resumes stops where it would have.
    """

    def __init__(self, evaluations: int | None, metric: Metric):
        """`evaluations`: how many without a better one are enough; None: never stop early."""
        self._enough, self._metric = evaluations, metric
        self._best: tuple[float, ...] | None = None
        self._since = 0

    def resume(self, best: tuple[int, Mapping[str, float]] | None, step: int, every: float, total_steps: int) -> None:
        """Continues after `step`; `best` is (step, metrics) of the best evaluation, of those each `every` steps."""
        if best is not None:
            best_step, metrics = best
            self._best = score(metrics, self._metric)
            self._since = sum(due(s, every, total_steps) for s in range(best_step + 1, step + 1))

    def add(self, metrics: Mapping[str, float]) -> bool:
        """Counts an evaluation; returns whether it is the best so far. One as good as the best counts as better."""
        found = score(metrics, self._metric)
        if self._best is None or found >= self._best:
            self._best, self._since = found, 0
            return True
        self._since += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether to stop."""
        return self._enough is not None and self._since >= self._enough
