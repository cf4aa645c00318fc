"""Does the nearest image show the same? Retrieval among labelled images, by the cosine of features.

Each query ranks all images of the gallery. Relevant are those of its class. With one set of images each is a query
among the others. A query without a relevant image leaves the means, and `queries` says how many are left.

recall_at_k: the share of queries with a relevant image among the first k.
map:         mean of the average precision by steps, which is scikit-learn's: precision at each relevant rank.
r_precision: precision among the first R, R the number of relevant images (Musgrave et al. 2020,
             https://arxiv.org/abs/2003.08505; map_at_r is theirs too).

Oxford, Paris and Copydays integrate by trapezoids, which is another number: `trapezoid_precision`.

Letters: Q queries, G images of the gallery.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.errors import UserError
from jax_ssl.evaluate import rules
from jax_ssl.losses import unit

NEEDS = ("labels",)
DECIDES = "map"
KS = (1, 5, 10)
BLOCK = 64  # queries whose similarities are ranked at a time
HIGHEST = jax.lax.Precision.HIGHEST


def measure(case, seed, *, ks=(1, 5, 10), queries=1000) -> tuple[dict, dict]:
    """Scores of at most `queries` test images, drawn by the seed, each of which ranks all training images."""
    rows = rules.some(len(case.test), queries, seed)
    found = scores(case.train.features, case.train.labels, case.test.features[rows], case.test.labels[rows], ks)
    protocol = {
        "name": "retrieval", "similarity": "cosine", "gallery": "training images", "queries": int(found.pop("queries")),
        "map": "by steps", "without_a_relevant_image": "left out",
    }  # fmt: skip
    return {re.sub("recall_at_", "recall@", name): value for name, value in found.items()}, protocol


def scores(gallery, gallery_labels, queries=None, query_labels=None, ks=KS) -> dict[str, float]:
    """{recall_at_1, ..., map, map_at_r, r_precision, queries} of queries (Q, D) among a gallery (G, D), int labels.

    Without queries each of the gallery is one among the others. Raises UserError for features that can't be measured.
    """
    alone = queries is None
    queries, query_labels = (gallery, gallery_labels) if alone else (queries, query_labels)
    rules.check("Retrieval", gallery, gallery_labels, queries)
    if min(ks) < 1:
        raise UserError(f"Retrieval needs a k of at least 1, not {min(ks)}.")
    gallery_labels, query_labels = np.asarray(gallery_labels), np.asarray(query_labels)
    found = []
    for start in range(0, len(queries), BLOCK):
        stop = min(start + BLOCK, len(queries))
        itself = np.arange(start, stop) if alone else None
        order = ranking(gallery, queries[start:stop], itself)
        found.append(per_query(gallery_labels[order] == query_labels[start:stop, None], ks))
    each = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    counted = each.pop("relevant") > 0
    if not counted.any():
        raise UserError("Retrieval found no query with another image of its class: give at least two images of each.")
    return {name: float(values[counted].mean()) for name, values in each.items()} | {"queries": float(counted.sum())}


def ranking(gallery, queries, itself=None) -> np.ndarray:
    """The gallery from the most to the least similar image, for each query: int (Q, G), or (Q, G - 1) without itself.

    gallery (G, D), read in blocks, and queries (Q, D): made unit here. itself: each query's own place in the gallery.
    Of equal ones the earlier comes first.
    """
    queries = jnp.asarray(queries)
    similarity = np.concatenate([np.asarray(_cosines(queries, block)) for block in rules.blocks(gallery)], axis=1)
    if itself is None:
        return np.argsort(-similarity, axis=1, kind="stable")
    similarity[np.arange(len(queries)), itself] = -np.inf
    return np.argsort(-similarity, axis=1, kind="stable")[:, :-1]


@jax.jit
def _cosines(queries, block):
    return jnp.matmul(unit(queries), unit(block).T, precision=HIGHEST)


def per_query(hits: np.ndarray, ks=KS) -> dict[str, np.ndarray]:
    """Each query's scores, (Q,) each, by whether what it ranked is relevant: bool (Q, G), the most similar first."""
    hits = np.asarray(hits, bool)
    relevant, ranks = hits.sum(1), np.arange(1, hits.shape[1] + 1)
    precision = np.cumsum(hits, 1) / ranks * hits
    first = ranks <= relevant[:, None]
    share = 1 / np.maximum(relevant, 1)
    return {f"recall_at_{k}": hits[:, :k].any(1).astype(np.float64) for k in ks} | {
        "map": precision.sum(1) * share,
        "map_at_r": (precision * first).sum(1) * share,
        "r_precision": (hits & first).sum(1) * share,
        "relevant": relevant,
    }


def trapezoid_precision(hits, junk=None) -> float:
    """Average precision of one query of Oxford, Paris, Holidays or Copydays: the area below precision over recall.

    hits: bool (G,), the most similar first. junk: bool (G,), images that are taken out of the ranking before. Between
    two relevant ranks precision goes in a straight line, so it is lower than `map` at first ranks. No hit: NaN.
    Radenovic et al. 2018, https://arxiv.org/abs/1803.11285; revisitop, python/evaluate.py, compute_ap.
    """
    places = places_of(hits, junk)
    if not len(places):
        return float("nan")
    before = np.where(places == 0, 1.0, np.arange(len(places)) / np.maximum(places, 1))
    after = np.arange(1, len(places) + 1) / (places + 1)
    return float(np.mean((before + after) / 2))


def precision_at(hits, k: int, junk=None) -> float:
    """mP@k of revisited Oxford and Paris for one query: divided by min(k, rank of the last relevant). No hit: NaN."""
    places = places_of(hits, junk)
    if not len(places):
        return float("nan")
    ranks = min(k, int(places[-1]) + 1)
    return float((places < ranks).sum() / ranks)


def places_of(hits, junk=None) -> np.ndarray:
    """The places of the hits in a ranking, from 0, after images that are junk have been taken out: int, rising."""
    hits = np.asarray(hits, bool)
    return np.flatnonzero(hits if junk is None else hits[~np.asarray(junk, bool)])


def micro_precision(scores, right, total: int) -> float:
    """Average precision of all pairs in one ranking, by steps: micro-AP, of copy detection.

    scores, right: (P,) of the candidate pairs; total: how many right pairs there are, also those not among them. Pairs
    of equal score count together, as in scikit-learn.
    """
    scores, right = np.asarray(scores, np.float64), np.asarray(right, bool)
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(right[order])
    last = np.append(np.diff(scores[order]) != 0, True)  # of each group of equal scores
    found, ranks = found[last], np.flatnonzero(last) + 1
    return float(np.sum(np.diff(found, prepend=0) * found / ranks) / max(total, 1))
