"""Every epoch visits every record once, in an order of its own, and a batch is a pure function of its number."""

import numpy as np
import pytest

from jax_ssl.data.order import permutation, sample_ids


@pytest.mark.parametrize(("total", "batch"), [(100, 10), (100, 32), (7, 20), (1, 4)])
def test_every_epoch_visits_every_record_once(total, batch):
    steps = -(-3 * total // batch)
    epochs, samples = zip(*(sample_ids(0, step * batch, batch, total) for step in range(steps)), strict=True)
    epochs, samples = np.concatenate(epochs), np.concatenate(samples)
    np.testing.assert_array_equal(epochs, np.arange(steps * batch) // total)
    for epoch in range(3):
        visited = samples[epochs == epoch]
        np.testing.assert_array_equal(np.sort(visited), np.arange(total))
        np.testing.assert_array_equal(visited, permutation(0, epoch, total))


def test_the_cut_into_batches_does_not_matter():
    whole = sample_ids(1, 0, 300, 77)
    for first, count in ((0, 5), (70, 20), (76, 1), (77, 77), (130, 170)):
        part = sample_ids(1, first, count, 77)
        for ours, theirs in zip(part, whole, strict=True):
            assert ours.dtype == np.int64
            np.testing.assert_array_equal(ours, theirs[first : first + count])


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [permutation(seed, epoch, 1000) for seed in (0, 1, 2**32, 2**40) for epoch in (0, 1, 2)]
    agreement = [np.mean(a == b) for i, a in enumerate(orders) for b in orders[:i]]
    assert max(agreement) < 0.01  # one fixed point in a thousand is expected
    assert np.mean(orders[0] == np.arange(1000)) < 0.01


def test_the_order_is_frozen():
    """Recorded with NumPy 2: a change would make old runs resume on other images."""
    np.testing.assert_array_equal(permutation(0, 0, 8), [2, 6, 0, 4, 1, 3, 5, 7])


def test_the_cached_order_cannot_be_spoiled():
    with pytest.raises(ValueError, match="read-only"):
        permutation(0, 0, 8)[0] = 1
