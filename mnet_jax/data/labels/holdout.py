"""Which images are held out where an image may have several classes: a fifth by content, of each class some."""

import numpy as np

from mnet_jax.data.folder import EVAL_SHARE, held_out_bounds


def held_out(draws: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Returns which images are held out, bool [N].

    Those whose draw is below `EVAL_SHARE`; then, the rarest class first, of a class with too many held out those with
    the highest draws go back, and of one with too few those with the lowest come in, where no other class then has too
    few or too many. What is too few and too many is as for photos of one class (`folder.held_out_bounds`). That a class
    has something to learn from comes before all else.

    Args:
      draws: of each image, float64 [N] in [0, 1), from its content alone.
      has: bool [N, C], which classes it has.
    """
    held = draws < EVAL_SHARE
    has = np.concatenate([has, ~has.any(1, keepdims=True)], 1)  # images without a class are shared out too
    counts = has.sum(0)
    least, most = np.array([held_out_bounds(int(count)) for count in counts]).T
    now = has[held].sum(0)
    for number in np.argsort(counts, kind="stable"):
        members = np.flatnonzero(has[:, number])
        members = members[np.argsort(draws[members], kind="stable")]
        for may_lack in (False, True):
            for one in members[::-1]:
                if now[number] > most[number] and held[one]:
                    others = has[one] & (np.arange(len(counts)) != number)
                    if may_lack or (now[others] > least[others]).all():
                        held[one] = False
                        now -= has[one]
        for one in members:
            if now[number] < least[number] and not held[one] and (now < most)[has[one]].all():
                held[one] = True
                now += has[one]
    return held
