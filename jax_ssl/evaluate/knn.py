"""Weighted nearest-neighbour classification of frozen features, the protocol of DINO.

The bank is read in blocks from host memory, as from a memory-mapped file, and normalised on the device: there is no
copy of it. The queries are split over the devices of this process.

Letters: Q queries, N rows of the bank, D width of a feature, K neighbours, C classes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jax_ssl.errors import UserError
from jax_ssl.evaluate import rules
from jax_ssl.losses import unit
from jax_ssl.sharding import BATCH, batched, make_mesh, replicated

KS = (10, 20, 100, 200)
TEMPERATURE = 0.07
# What a number of this protocol has to say of it, beside its k.
PROTOCOL = {"name": "knn", "similarity": "cosine", "votes": "exp(similarity / temperature)"}


def accuracies(train, train_labels, test, test_labels, ks=KS, temperature=TEMPERATURE, classes=None, **blocks):
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


def predictions(train, train_labels, test, ks, temperature, classes, **blocks) -> np.ndarray:
    """Classes of the test features for each k: int32 (len(ks), Q).

    Each neighbour votes for its label with weight exp(cosine / temperature); the class with the most votes wins.
    train: (N, D) and test: (Q, D), any float type, normalised here. train_labels: (N,) int, from 0 to classes - 1.
    blocks: as in `nearest`. Raises UserError for a k below 1 or above N.
    Wu et al. 2018, https://arxiv.org/abs/1805.01978, Sec. 3.4; Caron et al. 2021 (DINO), `eval_knn.py`.
    """
    if min(ks) < 1:
        raise UserError(f"kNN needs k of at least 1, not {min(ks)}.")
    similarity, rows = nearest(train, test, max(ks), **blocks)
    labels = np.asarray(train_labels).astype(np.int32)[rows]
    block = min(1024, len(rows))
    voted = [
        np.asarray(_votes(similarity[i : i + block], labels[i : i + block], temperature, tuple(ks), classes))
        for i in range(0, len(rows), block)
    ]
    return np.concatenate(voted, axis=1)


def nearest(
    train, test, k: int, query_block: int = 1024, bank_block: int = 4096, done=None
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The k training features with the largest cosine to each test feature: (cosines, rows), two (Q, k), on the host.

    train: (N, D) and test: (Q, D), any float type. Largest first; among equals the earlier row comes first. float32
    cosines, int32 rows. On each device query_block x (bank_block + k) of them are in memory at a time. done: told how
    many more of the N have been compared with all queries. Raises UserError for a k above N.
    """
    if k > len(train):
        raise UserError(f"kNN needs at least k = {k} training features, not {len(train)}; use a smaller k.")
    mesh = make_mesh(devices=jax.local_devices())
    share = -(-len(test) // mesh.size)  # queries of a device
    query_block, bank_block = min(query_block, share), min(bank_block, len(train))
    padded = mesh.size * (-(-share // query_block) * query_block)
    with jax.set_mesh(mesh):
        queries = np.zeros((padded, test.shape[1]), np.float32)
        queries[: len(test)] = test
        queries = _unit(jax.device_put(queries, batched(mesh)))
        best = jax.device_put(
            (np.full((padded, k), -np.inf, np.float32), np.zeros((padded, k), np.int32)), batched(mesh)
        )
        for first in range(0, len(train), bank_block):
            # The last block is as long as the others: it begins earlier, and what it repeats is left out.
            start = min(first, len(train) - bank_block)
            block = np.asarray(train[start : start + bank_block], np.float32)
            block = jax.device_put(block, replicated(mesh))
            best = _merge(best, queries, block, start, first - start, k=k, query_block=query_block)
            if done is not None:
                jax.block_until_ready(best)
                done(start + bank_block - first)
    return tuple(np.asarray(x)[: len(test)] for x in best)


@partial(jax.jit, donate_argnums=0)
def _unit(queries):
    return unit(queries)


@partial(jax.jit, static_argnames=("k", "query_block"), donate_argnums=0)
def _merge(best, queries, block, start, repeated, k, query_block):
    """The nearest so far, merged with those of a block of the bank whose first row is `start`.

    repeated: how many of the block's first rows an earlier block had. Each device searches for its own queries: left to
    the compiler alone, all similarities would be gathered on every device before each top_k.
    """

    def search(best, queries, block, start, repeated):
        bank, rows = unit(block), start + jnp.arange(len(block))
        new = jnp.arange(len(block)) >= repeated

        def merge(one):
            values, found, query = one
            similarity = jnp.matmul(query, bank.T, precision=jax.lax.Precision.HIGHEST)
            similarity = jnp.where(new, similarity, -jnp.inf)
            # The best so far come first, because top_k prefers the first among equals.
            values, place = jax.lax.top_k(jnp.concatenate([values, similarity], axis=1), k)
            known = jnp.take_along_axis(found, jnp.minimum(place, k - 1), axis=1)
            return values, jnp.where(place < k, known, rows[jnp.maximum(place - k, 0)])

        split = lambda x: x.reshape(-1, query_block, x.shape[-1])
        merged = jax.lax.map(merge, (split(best[0]), split(best[1]), split(queries)))
        return tuple(x.reshape(-1, k) for x in merged)

    specs = (BATCH, BATCH, P(), P(), P())
    return jax.shard_map(search, in_specs=specs, out_specs=BATCH, check_vma=False)(
        best, queries, block, start, repeated
    )


@partial(jax.jit, static_argnames=("ks", "classes"))
def _votes(similarity, labels, temperature, ks, classes):
    """The winner among the first k neighbours, for every k. Two (rows, max(ks)) -> int32 (len(ks), rows)."""
    # Relative to the nearest, so that no exponential overflows at a small temperature.
    weights = jnp.exp((similarity - similarity[:, :1]) / temperature)
    count = jax.vmap(lambda label, weight: jnp.zeros(classes).at[label].add(weight))
    return jnp.stack([jnp.argmax(count(labels[:, :k], weights[:, :k]), axis=1).astype(jnp.int32) for k in ks])
