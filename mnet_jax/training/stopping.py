"""Early stopping: a run ends when it gets no better.

What is remembered is a function of the evaluations so far, so that a run that resumes stops where it would have.
"""

from collections.abc import Mapping

from mnet_jax.training.checkpoint import score
from mnet_jax.training.run_plan import due


class Patience:
    """Counts the evaluations since the best one."""

    def __init__(self, evaluations: int | None, best_metric: str):
        """`evaluations`: how many without a better one are enough; None: never stop early."""
        self._enough, self._metric = evaluations, best_metric
        self._best: tuple[float, ...] | None = None
        self._since = 0

    def resume(self, best: tuple[int, Mapping[str, float]] | None, step: int, every: float, total_steps: int) -> None:
        """Takes up a run after `step`: `best` is its best evaluation so far, (step, metrics), of those each `every`."""
        if best is not None:
            best_step, metrics = best
            self._best = score(metrics, self._metric)
            self._since = sum(due(s, every, total_steps) for s in range(best_step + 1, step + 1))

    def saw(self, metrics: Mapping[str, float]) -> None:
        """One more evaluation. One as good as the best counts as better, as for the best checkpoint."""
        found = score(metrics, self._metric)
        if self._best is None or found >= self._best:
            self._best, self._since = found, 0
        else:
            self._since += 1

    @property
    def exhausted(self) -> bool:
        """Whether to stop."""
        return self._enough is not None and self._since >= self._enough
