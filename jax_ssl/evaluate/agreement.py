"""How far two partitions of the same images agree: clusters with classes. Exact, in double precision, on the host.

All functions take the table of counts of `contingency`, C classes x K clusters. They are scikit-learn's definitions;
NMI and AMI divide by the arithmetic mean of the two entropies, which is scikit-learn's default since 0.22.
"""

import numpy as np

TINY = np.finfo(np.float64).eps


def contingency(classes, clusters, shape: tuple[int, int]) -> np.ndarray:
    """How many images of each class are in each cluster: int64 (C, K). classes, clusters: int (N,), from 0."""
    table = np.zeros(shape, np.int64)
    np.add.at(table, (np.asarray(classes), np.asarray(clusters)), 1)
    return table


def entropy(counts) -> float:
    """Entropy in nats of a partition with these numbers of images in its parts."""
    counts = np.asarray(counts, np.float64)
    share = counts[counts > 0] / counts.sum()
    return float(-np.sum(share * np.log(share)))


def mutual_information(table) -> float:
    """What one partition tells of the other, in nats."""
    return max(entropy(table.sum(1)) + entropy(table.sum(0)) - entropy(table.ravel()), 0.0)


def normalised_mutual_information(table) -> float:
    """NMI: mutual information over the mean of the entropies, 0 to 1. It rises with K even for random clusters."""
    mean = (entropy(table.sum(1)) + entropy(table.sum(0))) / 2
    return mutual_information(table) / mean if mean > TINY else 1.0


def adjusted_mutual_information(table) -> float:
    """AMI: NMI less what random clusters of the same sizes would get: 0 for random ones at any K, 1 for equal ones.

    Vinh, Epps & Bailey 2010, https://jmlr.org/papers/v11/vinh10a.html, with the mean of the entropies.
    """
    expected, mean = expected_information(table), (entropy(table.sum(1)) + entropy(table.sum(0))) / 2
    if mean <= TINY or (np.count_nonzero(table, axis=0).max() <= 1 and np.count_nonzero(table, axis=1).max() <= 1):
        return 1.0  # equal partitions: the quotient below would be 0 / 0 where each image is a part of its own
    room = mean - expected
    return (mutual_information(table) - expected) / (min(room, -TINY) if room < 0 else max(room, TINY))


def expected_information(table) -> float:
    """Mutual information, in nats, expected of random partitions with the same numbers in their parts.

    Counts of an overlap are hypergeometric. Parts of equal size give equal terms, so each pair of sizes is done once.
    """
    from scipy.special import gammaln  # as below: half of what importing jax takes, and `train` imports this file

    total = int(table.sum())
    logs = gammaln(np.arange(total + 1) + 1.0)  # log n!
    (rows, row_times), (columns, column_times) = (
        np.unique(side[side > 0], return_counts=True) for side in (table.sum(1), table.sum(0))
    )
    expected = 0.0
    for a, times in zip(rows.tolist(), row_times.tolist(), strict=True):
        n, b = np.arange(1, a + 1)[:, None], columns[None]
        possible = (n <= b) & (a + b - n <= total)
        rest, others = np.where(possible, b - n, 0), np.where(possible, total - a - b + n, 0)
        chance = logs[a] + logs[b] + logs[total - a] + logs[total - b]
        chance = chance - logs[total] - logs[n] - logs[a - n] - logs[rest] - logs[others]
        chance = np.exp(np.where(possible, chance, -np.inf))
        term = n / total * (np.log(total) + np.log(n) - np.log(a) - np.log(b)) * chance
        expected += times * float(np.sum(term * column_times))
    return expected


def adjusted_rand(table) -> float:
    """ARI: share of pairs of images on which the partitions agree, less what is expected by chance.

    Hubert & Arabie 1985.
    """
    pairs = lambda counts: float(np.sum(counts.astype(np.float64) * (counts - 1)) / 2)
    both, rows, columns = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    expected, mean = rows * columns / max(pairs(np.array([table.sum()])), 1.0), (rows + columns) / 2
    return (both - expected) / (mean - expected) if mean != expected else 1.0


def one_to_one(table) -> np.ndarray:
    """The class of each cluster where no two share one, so that most images are right: int (K,), -1 = without a class.

    Kuhn 1955 (the Hungarian method). With more clusters than classes some stay without.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(table, maximize=True)
    found = np.full(table.shape[1], -1)
    found[columns] = rows
    return found


def majority(table) -> np.ndarray:
    """The most frequent class in each cluster: int (K,). Empty clusters get none, -1.

    The share of images that this gets right on the images it was counted on is the purity, which is 1 when each image
    is a cluster: count on training images, and score on others.
    """
    return np.where(table.sum(0) > 0, table.argmax(0), -1)


def accuracy(table, classes_of_clusters) -> float:
    """Share of images whose cluster has their class. classes_of_clusters: int (K,), as of `one_to_one`."""
    clusters = np.flatnonzero(classes_of_clusters >= 0)
    return float(table[classes_of_clusters[clusters], clusters].sum() / table.sum())
