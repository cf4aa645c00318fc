"""Losses over prototypes: the soft cluster assignments of one view are predicted from another view.

Letters: B images, L low-resolution crops, K prototypes, Q length of a queue. Arrays are global.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

from jax_ssl.losses.distillation import chunks_of, view_cross_entropy

TINY = 1e-37  # where no row counts, its logarithm takes the place of that of zero


def sinkhorn_center(rows, temperature, iterations, scores=lambda rows: rows, mask=None, chunks=1):
    """The center to subtract from scores so that their softmax gives every prototype the same share: (K,) fp32.

    rows: (B, K) scores, or (B, D) embeddings that `scores` maps to scores. The rows are processed in `chunks` equal
    parts, so that only the scores of one part are in memory; ValueError if `chunks` does not divide B. temperature,
    iterations, mask: as in `sinkhorn`. It can replace DINO's center, but is computed from this batch alone: the last
    step of a Sinkhorn-Knopp iteration, which makes each image's assignments sum to one, is a softmax. No gradient.
    """
    mask = jnp.ones(len(rows), bool) if mask is None else mask
    chunked = chunks_of((rows, mask), chunks)

    def logits_of(rows, shift):
        return scores(rows).astype(jnp.float32) / temperature - shift

    def first(chunk):
        rows, mask = chunk
        return logsumexp(logits_of(rows, 0.0) - jnp.where(mask, 0.0, 1e9)[:, None], axis=0)

    def totals(chunk, shift):
        rows, mask = chunk
        logits = logits_of(rows, shift)
        shares = jnp.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        return jnp.sum(shares, axis=0, where=mask[:, None])

    # Once the columns were normalised, no share is above one, and no column's sum below 1 / (B K): the logarithm needs
    # no maximum over the images, which would be one more pass over all scores.
    def balance(_, shift):
        total = jax.lax.map(partial(totals, shift=shift), chunked).sum(axis=0)
        return shift + jnp.log(jnp.maximum(total, TINY))

    if iterations == 0:
        return jnp.zeros(jax.eval_shape(scores, rows).shape[-1:])
    shift = logsumexp(jax.lax.map(first, chunked), axis=0)
    return jax.lax.stop_gradient(temperature * jax.lax.fori_loop(1, iterations, balance, shift))


def sinkhorn(logits, temperature, iterations, mask=None):
    """Soft assignments in which every prototype gets the same share of the batch.

    logits: (B, K), any float type. temperature: the smaller, the sharper the assignments. mask: (B,) bool, False =
    padding, which is ignored and gets zeros; or None. Returns (B, K) fp32; rows sum to one, columns to about B / K.
    Each iteration normalises the columns, then the rows; with 0 iterations it is a plain softmax. Computed with
    logarithms, so that no exponential can overflow.
    Caron et al. 2020, https://arxiv.org/abs/2006.09882, Sec. 3.1; Cuturi 2013.
    """
    center = sinkhorn_center(logits, temperature, iterations, mask=mask)
    assigned = jax.nn.softmax((logits.astype(jnp.float32) - center) / temperature)
    return assigned if mask is None else jnp.where(mask[:, None], assigned, 0.0)


def swav_targets(high, epsilon, iterations, queue=None):
    """The assignments of each of the two high-resolution crops: (2, B, K) scores -> (2, B, K), without gradient.

    queue: (2, Q, K) scores of earlier images, which take part in the assignment, so that a batch smaller than the
    number of prototypes can still use all of them; or None. epsilon, iterations: `sinkhorn`'s. Returns fp32.
    """
    rows = high if queue is None else jnp.concatenate([high, queue], axis=1)
    targets = jnp.stack([sinkhorn(scores, epsilon, iterations)[: high.shape[1]] for scores in rows])
    return jax.lax.stop_gradient(targets)


def swapped_prediction(targets, high, low, temperature):
    """Cross-entropy of every crop's scores with the targets of the other high-resolution crops.

    targets: (2, B, K) probabilities. high: (2, B, K) and low: (L, B, K) scores, L may be 0. Returns a fp32 scalar; log
    K for uniform scores.
    """
    return view_cross_entropy(jnp.concatenate([high, low]), targets, temperature)


def swav(high, low, temperature, epsilon, iterations):
    """Cross-entropy of every crop's scores with the balanced prototype assignments of the other high-resolution crops.

    high: (2, B, K) and low: (L, B, K) scores: cosines with the prototypes. temperature: of the prediction. epsilon: the
    temperature of `sinkhorn`, which makes the targets in `iterations`. Returns a fp32 scalar; log K for uniform scores.
    Caron et al. 2020, https://arxiv.org/abs/2006.09882, Eq. 2 and 6.
    """
    return swapped_prediction(swav_targets(high, epsilon, iterations), high, low, temperature)
