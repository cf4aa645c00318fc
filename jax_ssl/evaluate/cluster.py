"""Do the features fall into clusters that are the classes? k-means on unit features, and its agreement with labels.

Protocol `cluster`. Features are made unit length. k-means with greedy k-means++ (Arthur & Vassilvitskii 2007) starts
ten times on the training features; a start ends when no image changes its cluster. Test images go to their nearest
centre. NMI, AMI and ARI are of the test images. Accuracies give each cluster a class by the labels of the *training*
images: `one_to_one`, each class to one cluster at most (the Hungarian method), and `majority`. Each number is the mean
over the starts, and `_std` their deviation.

Letters: N features, D their width, K clusters.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jax_ssl.errors import UserError
from jax_ssl.evaluate import agreement, rules
from jax_ssl.losses import unit

NEEDS = ("labels",)
DECIDES = "one_to_one"
SHOWN = ("one_to_one", "one_to_one_std", "majority", "nmi", "ami", "ari")
STARTS = 10
ITERATIONS = 100  # of one start, at most
BLOCK = 4096  # rows whose distances to all centres are in memory at a time
SAMPLE = 256  # rows a cluster among which first centres are chosen, at most
HIGHEST = jax.lax.Precision.HIGHEST


def measure(case, seed, *, clusters=(0,), starts=10) -> tuple[dict, dict]:
    """The scores at each number of `clusters`, 0 = that of the classes; of others as "nmi@50", and the protocol."""
    sides = case.train.features, case.train.labels, case.test.features, case.test.labels
    numbers = {}
    for count in clusters:
        found = scores(*sides, clusters=count or None, starts=starts, seed=seed)
        numbers |= {f"{name}@{count}" if count else name: value for name, value in found.items()}
    protocol = {
        "name": "cluster", "features": "unit", "algorithm": "k-means", "first_centres": "greedy k-means++",
        "clusters": [count or "classes" for count in clusters], "starts": starts, "iterations": ITERATIONS,
        "value": "mean over starts", "classes_of_clusters": "by training labels", "nmi": "arithmetic mean of entropies",
    }  # fmt: skip
    return numbers, protocol


def scores(train, train_labels, test, test_labels, clusters=None, starts=STARTS, seed=0) -> dict[str, float]:
    """How well clusters are classes: {nmi, ami, ari, one_to_one, majority and the _std of each}, from 0 to 1.

    train (N, D), test (Q, D): features; labels: int. clusters: K, the number of classes of the training images by
    default. Raises UserError for features that can't be measured, and for K above N.
    """
    rules.check("Clustering", train, train_labels, test)
    names, train_labels = np.unique(np.asarray(train_labels), return_inverse=True)
    clusters = clusters or len(names)
    known = np.isin(np.asarray(test_labels), names)
    if not known.all():
        raise UserError(
            f"Clustering gives clusters the classes of training images, and {np.sum(~known):,} test images are of "
            "classes that these do not have: leave them out, or add training images of those classes."
        )
    test_labels = np.searchsorted(names, test_labels)
    each = [
        _agree(*(
            agreement.contingency(labels, assign(x, centres), (len(names), clusters))
            for x, labels in ((train, train_labels), (test, test_labels))
        ))
        for centres in fit(train, clusters, starts, seed)
    ]  # fmt: skip
    return {
        name + ending: float(value)
        for name in each[0]
        for ending, value in (("", np.mean([one[name] for one in each])), ("_std", np.std([one[name] for one in each])))
    }


def _agree(train, test) -> dict[str, float]:
    """The scores of one start, by the tables of training and of test images."""
    return {
        "nmi": agreement.normalised_mutual_information(test),
        "ami": agreement.adjusted_mutual_information(test),
        "ari": agreement.adjusted_rand(test),
        "one_to_one": agreement.accuracy(test, agreement.one_to_one(train)),
        "majority": agreement.accuracy(test, agreement.majority(train)),
    }


def fit(features, clusters: int, starts: int = STARTS, seed: int = 0, devices=None) -> np.ndarray:
    """k-means of features (N, D), made unit here, from `starts` starts: the centres of each, (starts, K, D).

    They depend on the seed alone: each device does whole starts, so they are the same on any number of devices.
    devices: this process's by default. Raises UserError for K above N or below 2, and for features all the same.
    """
    if not 2 <= clusters <= len(features):
        raise UserError(
            f"k-means needs 2 clusters at least and a feature for each: {clusters:,} clusters of {len(features):,} "
            "features can't be found; take another number of clusters, or more images."
        )
    rules.check_features("k-means", features)
    devices = jax.local_devices() if devices is None else devices
    devices = devices[:starts]
    keys = jax.random.split(jax.random.key(rules.seed32(seed)), starts)
    # Devices do equally many starts: what is over is done for nothing.
    keys = keys[jnp.arange(-(-starts // len(devices)) * len(devices)) % starts]
    found = _fit(jnp.asarray(features), keys, clusters=clusters, mesh=Mesh(np.array(devices), ("starts",)))
    return np.asarray(found)[:starts]


@partial(jax.jit, static_argnames=("clusters", "mesh"))
def _fit(features, keys, clusters, mesh):
    def several(x, keys):
        return jax.lax.map(lambda key: lloyd(x, first_centres(x, clusters, key)), keys)

    shared = jax.shard_map(several, mesh=mesh, in_specs=(P(), P("starts")), out_specs=P("starts"), check_vma=False)
    return shared(unit(features), keys)


def first_centres(x, clusters: int, key):
    """Centres by greedy k-means++: (K, D). x: (N, D).

    Each is drawn with a chance in proportion to its squared distance to the nearest so far; of 2 + log K candidates the
    one is kept that leaves the smallest sum of distances. With many rows, of SAMPLE * K of them.
    """
    choose, first, draw = jax.random.split(key, 3)
    if len(x) > SAMPLE * clusters:
        x = x[jax.random.permutation(choose, len(x))[: SAMPLE * clusters]]
    trials = 2 + int(math.log(clusters))

    def distances(rows):
        return jnp.maximum(_squares(x)[:, None] + _squares(rows) - 2 * _products(x, rows), 0.0)

    def add(carry, key):
        nearest, centres, number = carry
        heap = jnp.cumsum(nearest)
        drawn = jnp.searchsorted(heap, jax.random.uniform(key, (trials,)) * heap[-1], side="right")
        drawn = jnp.minimum(drawn, len(x) - 1)
        left = jnp.minimum(nearest[:, None], distances(x[drawn]))
        best = jnp.argmin(jnp.sum(left, axis=0))
        return (left[:, best], centres.at[number].set(x[drawn[best]]), number + 1), None

    start = x[jax.random.randint(first, (), 0, len(x))]
    centres = jnp.zeros((clusters, x.shape[1]), x.dtype).at[0].set(start)
    carry = distances(start[None])[:, 0], centres, 1
    return jax.lax.scan(add, carry, jax.random.split(draw, clusters - 1))[0][1]


def lloyd(x, centres):
    """k-means of x (N, D) from given centres (K, D): the centres where it ends, (K, D).

    Lloyd 1982. A cluster that becomes empty gets the row that is farthest from its centre, as in scikit-learn.
    """

    def go_on(carry):
        return carry[3] & (carry[2] < ITERATIONS)

    def one(carry):
        centres, before, count, _ = carry
        labels, distance, sums, sizes = _assigned(x, centres)
        empty = sizes == 0
        sums, sizes = jax.lax.cond(jnp.any(empty), _refill, lambda *same: same[-2:], x, labels, distance, sums, sizes)
        return sums / jnp.maximum(sizes, 1)[:, None], labels, count + 1, jnp.any(labels != before)

    start = centres, jnp.full(len(x), -1, jnp.int32), 0, True
    return jax.lax.while_loop(go_on, one, start)[0]


def _refill(x, labels, distance, sums, sizes):
    """Sums and sizes of the clusters, where each empty one has got one of the farthest rows from another."""
    empty = sizes == 0
    farthest = jax.lax.top_k(distance, len(sizes))[1]
    given = farthest[jnp.maximum(jnp.cumsum(empty) - 1, 0)]  # of each cluster, if it is empty
    rows = jnp.where(empty[:, None], x[given], 0.0)
    sums = sums.at[labels[given]].add(-rows) + rows
    return sums, sizes.at[labels[given]].add(-empty.astype(sizes.dtype)) + empty


def _assigned(x, centres):
    """Each row's nearest centre (N,), its squared distance (N,), and sums (K, D) and numbers (K,) of the rows there."""
    size = min(BLOCK, len(x))
    padded = jnp.pad(x, ((0, -len(x) % size), (0, 0))).reshape(-1, size, x.shape[1])
    real = (jnp.arange(padded.shape[0] * size) < len(x)).reshape(-1, size)
    squares = _squares(centres)

    def block(carry, inputs):
        rows, real = inputs
        away = squares - 2 * _products(rows, centres)  # less the square of the row, which is the same for all centres
        labels = jnp.argmin(away, axis=1).astype(jnp.int32)
        distance = jnp.maximum(jnp.min(away, axis=1) + _squares(rows), 0.0)
        # A product with zeros and ones: sums by scattered additions are of no fixed order on a GPU.
        member = jax.nn.one_hot(labels, len(centres)) * real[:, None]
        sums = carry[0] + jnp.matmul(member.T, rows, precision=HIGHEST)
        return (sums, carry[1] + jnp.sum(member, axis=0).astype(jnp.int32)), (labels, distance)

    start = jnp.zeros(centres.shape), jnp.zeros(len(centres), jnp.int32)
    (sums, sizes), (labels, distance) = jax.lax.scan(block, start, (padded, real))
    return labels.ravel()[: len(x)], distance.ravel()[: len(x)], sums, sizes


@jax.jit
def assign(features, centres):
    """The nearest of the centres (K, D) of each feature (N, D), made unit here: int32 (N,)."""
    return _assigned(unit(jnp.asarray(features)), jnp.asarray(centres))[0]


def _products(rows, columns):
    # At a lower precision distances would be off by more than centres differ.
    return jnp.matmul(rows, columns.T, precision=HIGHEST)


def _squares(x):
    return jnp.sum(x * x, axis=1)
