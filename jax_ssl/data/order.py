"""In which order samples come: global sample number -> (epoch, record), with nothing to remember between steps."""

import functools

import numpy as np


@functools.lru_cache(maxsize=4)  # a batch can touch two epochs, and a second pipeline may be open
def permutation(seed: int, epoch: int, total: int) -> np.ndarray:
    """The order of one epoch: int64 (total,), read-only. RandomState, because NumPy has frozen its stream (NEP 19)."""
    words = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, epoch]
    order = np.random.RandomState(words).permutation(total).astype(np.int64)
    order.setflags(write=False)  # the cache hands out the same array again
    return order


def sample_ids(seed: int, first: int, count: int, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Epoch and record of the global samples first ... first + count - 1: two int64 arrays (count,).

    Every epoch visits each of the `total` records exactly once; a batch may reach over the end of an epoch.
    """
    epoch, rank = np.divmod(np.arange(first, first + count, dtype=np.int64), total)
    sample = np.empty(count, np.int64)
    for number in np.unique(epoch):
        inside = epoch == number
        sample[inside] = permutation(seed, int(number), total)[rank[inside]]
    return epoch, sample
