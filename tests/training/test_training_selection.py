"""What is best, and early stopping as a function of the evaluations."""

import pytest

from mnet_jax.tasks.task import Metric
from mnet_jax.training.selection import Patience, best, score

TOP1, LOSS = Metric("top1", "top-1"), Metric("loss", "loss", percent=False, higher_is_better=False)


def test_the_best_is_by_the_metric_then_by_the_loss_then_the_later():
    found = {
        10: {"top1": 0.8, "loss": 0.9},
        20: {"top1": 0.9, "loss": 2.0},
        30: {"top1": 0.9, "loss": 1.5},
        40: {"top1": 0.9, "loss": 1.5},
    }
    assert best(found.items(), TOP1) == 40
    assert best(found.items(), LOSS) == 10
    assert best([], TOP1) is None
    assert best([(10, {"loss": 1.0})], TOP1) is None


def test_patience_counts_evaluations_since_the_best():
    found = [(0.5, 1.0), (0.7, 0.9), (0.7, 0.8), (0.6, 0.1), (0.7, 0.81), (0.7, 0.79)]
    patience, counts = Patience(2, TOP1), []
    for top1, loss in found:
        patience.add({"top1": top1, "loss": loss})
        counts.append(patience.exhausted)
    assert counts == [False, False, False, False, True, False]
    assert not Patience(None, TOP1).exhausted
    assert score({"top1": 0.9, "loss": 2.0}, LOSS) < score({"top1": 0.1, "loss": 1.0}, LOSS)


@pytest.mark.parametrize("cut", range(1, 13))
def test_patience_after_a_restart_is_where_it_was(cut):
    """Evaluations each 2.5 steps; a run that starts again after any step counts on as if it had not stopped."""
    found = {2: 0.5, 5: 0.7, 7: 0.6, 10: 0.65, 12: 0.6}
    whole = Patience(3, TOP1)
    for step in [step for step in found if step <= cut]:
        whole.add({"top1": found[step], "loss": 1.0})
    seen = [step for step in found if step <= cut]
    best = max(seen, key=found.__getitem__, default=None)
    again = Patience(3, TOP1)
    again.resume(None if best is None else (best, {"top1": found[best], "loss": 1.0}), cut, 2.5, 12)
    assert again.exhausted == whole.exhausted
    for patience in (whole, again):
        patience.add({"top1": 0.1, "loss": 1.0})
    assert again.exhausted == whole.exhausted
