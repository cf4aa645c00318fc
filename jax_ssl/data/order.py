"""The order of the samples: global sample number -> (epoch, record), a pure function, so nothing has to be saved."""

import functools

import numpy as np


@functools.lru_cache(maxsize=4)  # a batch can span two epochs, and a second pipeline may be open
def permutation(seed: int, epoch: int, total: int) -> np.ndarray:
    """The order of one epoch: int64 (total,), read-only. RandomState, as its stream never changes (NEP 19)."""
    words = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, epoch]
    order = np.random.RandomState(words).permutation(total).astype(np.int64)
    order.setflags(write=False)  # the cache returns the same array again
    return order


def sample_ids(seed: int, first: int, count: int, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Epoch and record of the global samples first ... first + count - 1: two int64 arrays (count,).

    Every epoch visits each of the `total` records exactly once; a batch may span the end of an epoch.
    """
    epoch, rank = np.divmod(np.arange(first, first + count, dtype=np.int64), total)
    sample = np.empty(count, np.int64)
    for number in np.unique(epoch):
        inside = epoch == number
        sample[inside] = permutation(seed, int(number), total)[rank[inside]]
    return epoch, sample
