"""Weighted nearest-neighbour classification of frozen features, the protocol of DINO.

Letters: Q queries, N rows of the bank, D width of a feature, K neighbours, C classes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jax_ssl.errors import UserError
from jax_ssl.evaluate import rules
from jax_ssl.losses import unit

KS = (10, 20, 100, 200)


def accuracies(train, train_labels, test, test_labels, ks=KS, temperature=0.07, classes=None, **blocks):
    """Fraction of the test features that are classified right, {k: fraction}. Arguments as in `predictions`.

    Without `classes` labels may be any integers. Raises UserError for features or labels that cannot be measured.
    """
    rules.check("kNN", train, train_labels, test)
    if not classes:  # renumbered, as a label of 10^9 would need an array of as many votes
        names, places = np.unique(np.concatenate([train_labels, test_labels]), return_inverse=True)
        train_labels, test_labels, classes = places[: len(train)], places[len(train) :], len(names)
    hits = (predictions(train, train_labels, test, ks, temperature, classes, **blocks) == test_labels).sum(axis=1)
    return {k: int(right) / len(test) for k, right in zip(ks, hits)}


def classify(train, train_labels, test, k, temperature, classes, **blocks):
    """The class of each test feature by its k nearest training features, int32 (Q,). Arguments as in `predictions`."""
    return predictions(train, train_labels, test, (k,), temperature, classes, **blocks)[0]


def predictions(train, train_labels, test, ks, temperature, classes, query_block=1024, bank_block=4096):
    """Classes of the test features for each k: int32 (len(ks), Q).

    Each neighbour votes for its label with weight exp(cosine / temperature); the class with the most votes wins.
    train: (N, D) and test: (Q, D), any float type, normalised here. train_labels: (N,) int, from 0 to classes - 1.
    query_block x (bank_block + max(ks)) fp32 similarities are in memory at a time. Queries may be sharded over devices
    along their leading axis; then the work is too. Among equal similarities the earlier training row comes first.
    Raises UserError for a k below 1 or above N.
    Wu et al. 2018, https://arxiv.org/abs/1805.01978, Sec. 3.4; Caron et al. 2021 (DINO), `eval_knn.py`.
    """
    if max(ks) > len(train):
        raise UserError(f"kNN needs at least k = {max(ks)} training features, not {len(train)}; use a smaller k.")
    if min(ks) < 1:
        raise UserError(f"kNN needs k of at least 1, not {min(ks)}.")
    where = getattr(test, "sharding", None)
    return _predictions(
        train, train_labels, test, temperature, ks=tuple(ks), classes=classes, query_block=query_block,
        bank_block=min(bank_block, len(train)), sharding=where if isinstance(where, NamedSharding) else None,
    )  # fmt: skip


@partial(jax.jit, static_argnames=("ks", "classes", "query_block", "bank_block", "sharding"))
def _predictions(train, labels, test, temperature, sharding, **static):
    search = partial(_search, **static)
    if sharding is not None and sharding.spec:
        # shard_map, because the compiler alone would gather all similarities on every device before each top_k.
        rows = sharding.spec[0]
        specs = P(), P(), P(rows), P()
        search = jax.shard_map(search, mesh=sharding.mesh, in_specs=specs, out_specs=P(None, rows), check_vma=False)
    return search(train, labels.astype(jnp.int32), test, temperature)


def _search(train, labels, test, temperature, ks, classes, query_block, bank_block):
    queries = _blocks(unit(test), min(query_block, len(test)))
    real = jnp.ones(len(train), bool)
    bank = tuple(_blocks(x, bank_block) for x in (unit(train), labels, real))

    def classify_block(query):
        similarity, neighbours = _nearest(query, bank, max(ks))
        return _votes(similarity, neighbours, temperature, ks, classes)

    found = jax.lax.map(classify_block, queries)  # (blocks, len(ks), rows)
    return found.swapaxes(0, 1).reshape(len(ks), -1)[:, : len(test)]


def _blocks(x, size):
    """(N, ...) -> (N / size, size, ...), the last block filled with zeros."""
    padding = ((0, -len(x) % size), *[(0, 0)] * (x.ndim - 1))
    return jnp.pad(x, padding).reshape(-1, size, *x.shape[1:])


def _nearest(query, bank, k):
    """The k largest similarities of each query, largest first, and their labels: two (rows, k)."""

    def merge(best, block):
        features, labels, real = block
        similarity = jnp.matmul(query, features.T, precision=jax.lax.Precision.HIGHEST)
        similarity = jnp.where(real, similarity, -jnp.inf)
        labels = jnp.broadcast_to(labels, similarity.shape)
        # The best so far come first, because top_k prefers the first among equals.
        values = jnp.concatenate([best[0], similarity], axis=1)
        values, index = jax.lax.top_k(values, k)
        return (values, jnp.take_along_axis(jnp.concatenate([best[1], labels], axis=1), index, axis=1)), None

    start = jnp.full((len(query), k), -jnp.inf), jnp.zeros((len(query), k), jnp.int32)
    return jax.lax.scan(merge, start, bank)[0]


def _votes(similarity, labels, temperature, ks, classes):
    """The winner among the first k neighbours, for every k. Two (rows, max(ks)) -> int32 (len(ks), rows)."""
    # Relative to the nearest, so that no exponential overflows at a small temperature.
    weights = jnp.exp((similarity - similarity[:, :1]) / temperature)
    count = jax.vmap(lambda label, weight: jnp.zeros(classes).at[label].add(weight))
    return jnp.stack([jnp.argmax(count(labels[:, :k], weights[:, :k]), axis=1).astype(jnp.int32) for k in ks])
