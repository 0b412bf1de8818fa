"""The order of examples, as a function of (seed, epoch), and the randomness of each, of (seed, epoch, index).

Nothing here has state: a run that resumes at any step asks for the same numbers again.
"""

from collections.abc import Iterator

import numpy as np

# SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators"): the increment, and its finaliser's
# rounds of (shift, factor).
STEP = 0x9E3779B97F4A7C15
ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31

_ORDER, _CROP, _SHUFFLE = 1, 2, 3  # what a hash is for: keeps the random numbers of one epoch independent


def hash64(*words: int | np.ndarray) -> np.ndarray:
    """Returns a hash of integers, or of arrays of them that broadcast, uint64.

    SplitMix64's finaliser, chained. Written out here because NumPy's generators may change their streams between
    versions and an order must not. `croppers.uniform` is the same in tensorflow.
    """
    state = np.zeros(1, np.uint64)
    for word in words:
        z = (state ^ np.atleast_1d(word).astype(np.uint64)) + np.uint64(STEP)
        for shift, factor in ROUNDS:
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        state = z ^ (z >> np.uint64(LAST_SHIFT))
    return state


def permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Returns the order of an epoch: int64 [num_examples], each index once."""
    return np.argsort(hash64(_ORDER, seed, epoch, np.arange(num_examples)), kind="stable")


def crop_key(seed: int, epochs: int | np.ndarray) -> np.ndarray:
    """Returns the random key of epochs, int64; (key, index) is the seed of an example's crop and flip."""
    return hash64(_CROP, seed, epochs).view(np.int64)


def shuffle_seed(seed: int, epoch: int) -> np.ndarray:
    """Returns the seed of an epoch's shuffle buffer, int64."""
    return hash64(_SHUFFLE, seed, epoch).view(np.int64)


def train_indices(
    seed: int, num_examples: int, batch_size: int, start_step: int, process_index: int, process_count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (index, crop key), both int64 [batch_size], of one process's batches from `start_step` on, for ever.

    All processes walk one endless stream of whole epochs together: step s takes its next `batch_size * process_count`
    examples, and each process its own part of them, so a step's examples do not depend on the number of processes.
    """
    orders: dict[int, np.ndarray] = {}
    step = start_step
    while True:
        first = (step * process_count + process_index) * batch_size
        epochs, offsets = np.divmod(np.arange(first, first + batch_size), num_examples)
        wanted = range(int(epochs[0]), int(epochs[-1]) + 1)
        orders = {e: orders[e] if e in orders else permutation(seed, e, num_examples) for e in wanted}
        index = np.concatenate([orders[e][offsets[epochs == e]] for e in wanted])
        yield index, crop_key(seed, epochs)
        step += 1


def share(num_examples: int, process_index: int, process_count: int) -> tuple[int, int]:
    """Returns the part [start, stop) of a split that one process reads; parts differ by one example at most."""
    return num_examples * process_index // process_count, num_examples * (process_index + 1) // process_count
