"""Losses over prototypes: soft cluster assignments of one view are what another view has to predict.

Letters: B images, L low-resolution crops, K prototypes, Q length of a queue. Arrays are global.
"""

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

from jax_ssl.losses.distillation import chunks_of, view_cross_entropy


def sinkhorn_center(rows, temperature, iterations, scores=lambda rows: rows, mask=None, chunks=1):
    """What to take from scores so that their softmax gives every prototype the same share of the batch: (K,) fp32.

    rows: (B, K) scores, or (B, D) embeddings of which `scores` makes them, a `chunks`-th of the rows at a time, so that
    no more are stored. temperature, iterations, mask: as in `sinkhorn`. A drop-in for DINO's center, of this batch
    alone: the last step of each iteration, which makes an image's assignments sum to one, is what a softmax does.
    """
    mask = jnp.ones(len(rows), bool) if mask is None else mask

    def balance(step, shift):
        def totals(chunk):
            rows, mask = chunk
            logits = scores(rows).astype(jnp.float32) / temperature - shift
            image = jnp.where(step > 0, logsumexp(logits, axis=1), 0.0)  # prototypes come first
            return logsumexp(logits - jnp.where(mask, image, 1e9)[:, None], axis=0)

        return shift + logsumexp(jax.lax.map(totals, chunks_of((rows, mask), chunks)), axis=0)

    # A loop, its first step included, which has no use for the sums of rows: the scores are compiled once.
    shape = jax.eval_shape(scores, rows).shape[-1:]
    return jax.lax.stop_gradient(temperature * jax.lax.fori_loop(0, iterations, balance, jnp.zeros(shape)))


def sinkhorn(logits, temperature, iterations, mask=None):
    """Soft assignments in which every prototype gets the same share of the batch.

    logits: (B, K). temperature: the smaller, the closer to one prototype an image. mask: (B,), False = padding, which
    takes no part and gets zeros; or None. Returns (B, K) fp32, rows sum to one, columns about to B / K. Each iteration
    evens out the prototypes, then the images; none leaves a plain softmax.
    In logarithms, so that no exponential can overflow.
    Caron et al. 2020, https://arxiv.org/abs/2006.09882, Sec. 3.1; Cuturi 2013.
    """
    center = sinkhorn_center(logits, temperature, iterations, mask=mask)
    assigned = jax.nn.softmax((logits.astype(jnp.float32) - center) / temperature)
    return assigned if mask is None else jnp.where(mask[:, None], assigned, 0.0)


def swav_targets(high, epsilon, iterations, queue=None):
    """The assignments of each of the two high-resolution crops: (2, B, K) scores -> (2, B, K), without gradient.

    queue: (2, Q, K) scores of earlier images, which take part in the assignment, so that a batch smaller than the
    number of prototypes can be spread over all of them; or None.
    """
    rows = high if queue is None else jnp.concatenate([high, queue], axis=1)
    targets = jnp.stack([sinkhorn(scores, epsilon, iterations)[: high.shape[1]] for scores in rows])
    return jax.lax.stop_gradient(targets)


def swapped_prediction(targets, high, low, temperature):
    """Cross-entropy of every crop's prototypes with each high-resolution crop's targets but its own.

    targets, high: (2, B, K); low: (L, B, K), L may be 0. Returns a fp32 scalar; log K if nothing is known.
    """
    return view_cross_entropy(jnp.concatenate([high, low]), targets, temperature)


def swav(high, low, temperature, epsilon, iterations):
    """Predict one view's balanced prototype assignment from another view.

    high: (2, B, K) and low: (L, B, K) prototype scores, cosines. temperature: of the prediction; epsilon, iterations:
    of Sinkhorn-Knopp, which makes the targets. Returns a fp32 scalar; log K if nothing is known.
    Caron et al. 2020, https://arxiv.org/abs/2006.09882, Eq. 2 and 6.
    """
    return swapped_prediction(swav_targets(high, epsilon, iterations), high, low, temperature)
