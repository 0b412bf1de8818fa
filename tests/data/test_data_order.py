"""The order of examples: a function of (seed, epoch) alone, on every version of NumPy and any number of hosts."""

import itertools

import numpy as np
import pytest

from mnet_jax.data import order


def take(steps, *args, **kwargs):
    pairs = list(itertools.islice(order.train_indices(*args, **kwargs), steps))
    return np.stack([index for index, _ in pairs]), np.stack([key for _, key in pairs])


def test_hash_never_changes():
    # Stored numbers: another order after an upgrade would make a resumed run differ from an uninterrupted one.
    assert order.hash64(1, 2, 3).tolist() == [15020427595393229491]
    assert order.permutation(0, 0, 10).tolist() == [3, 1, 9, 6, 2, 4, 7, 8, 0, 5]
    assert order.hash64(-1).shape == (1,)


def test_hash_of_zero_is_splitmix64():
    assert order.hash64(0).tolist() == [0xE220A8397B1DCDAF]  # the first output of the published SplitMix64 at seed 0


def test_hash_is_uniform():
    bits = np.unpackbits(order.hash64(7, np.arange(20000)).view(np.uint8)).reshape(20000, 64)
    np.testing.assert_allclose(bits.mean(0), 0.5, atol=0.02)


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_permutation_has_each_index_once(count):
    for epoch in range(3):
        assert sorted(order.permutation(5, epoch, count)) == list(range(count))


def test_permutation_differs_between_seeds_and_epochs():
    orders = {tuple(order.permutation(seed, epoch, 50)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_first_place_is_uniform():
    first = [order.permutation(0, epoch, 8)[0] for epoch in range(4000)]
    np.testing.assert_allclose(np.bincount(first, minlength=8) / 4000, 1 / 8, atol=0.02)


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (10, 10), (3, 8), (10, 3)])
def test_stream_is_whole_epochs_one_after_the_other(count, batch):
    index, _ = take(12, 1, count, batch, 0, 0, 1)
    flat = index.ravel()
    for epoch in range(len(flat) // count):
        np.testing.assert_array_equal(flat[epoch * count : (epoch + 1) * count], order.permutation(1, epoch, count))


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_step_has_the_same_examples_on_any_number_of_processes(processes):
    alone = take(5, 0, 17, 12, 0, 0, 1)
    shared = [take(5, 0, 17, 12 // processes, 0, p, processes) for p in range(processes)]
    for k in range(2):
        np.testing.assert_array_equal(np.concatenate([part[k] for part in shared], 1), alone[k])


def test_start_step_continues_the_stream():
    whole = take(20, 3, 11, 4, 0, 1, 2)
    for start in (1, 5, 13):
        rest = take(20 - start, 3, 11, 4, start, 1, 2)
        for k in range(2):
            np.testing.assert_array_equal(rest[k], whole[k][start:])


def test_far_start_step_costs_nothing():
    index, _ = take(1, 0, 1437, 64, 10**9, 0, 1)
    assert index.shape == (1, 64)


@pytest.mark.parametrize(("count", "processes"), [(300, 7), (2, 3), (0, 2), (10, 1)])
def test_shares_are_even_and_complete(count, processes):
    shares = [order.share(count, p, processes) for p in range(processes)]
    assert [start for start, _ in shares[1:]] == [stop for _, stop in shares[:-1]]
    assert (shares[0][0], shares[-1][1]) == (0, count)
    sizes = [stop - start for start, stop in shares]
    assert max(sizes) - min(sizes) <= 1
