"""Losses over prototypes: soft cluster assignments of one view are what another view has to predict.

Letters: B images, L low-resolution crops, K prototypes, Q length of a queue. Arrays are global.
"""

import jax
import jax.numpy as jnp
from jax.nn import log_softmax, logsumexp


def sinkhorn(logits, temperature, iterations):
    """Soft assignments in which every prototype gets the same share of the batch.

    logits: (B, K). temperature: the smaller, the closer to one prototype an image. Returns (B, K) fp32, rows sum to
    one, columns about to B / K. Each iteration evens out the prototypes, then the images; none leaves a plain softmax.
    In logarithms, so that no exponential can overflow.
    Caron et al. 2020, https://arxiv.org/abs/2006.09882, Sec. 3.1; Cuturi 2013.
    """
    scores = logits.astype(jnp.float32) / temperature
    for _ in range(iterations):
        scores = scores - logsumexp(scores, axis=0, keepdims=True)
        scores = scores - logsumexp(scores, axis=1, keepdims=True)
    return jax.nn.softmax(scores)  # changes nothing after an iteration


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
    predicted = log_softmax(jnp.concatenate([high, low]).astype(jnp.float32) / temperature)
    entropy = -jnp.einsum("tbk,vbk->tv", targets, predicted, precision=jax.lax.Precision.HIGHEST) / high.shape[1]
    others = 1 - jnp.eye(*entropy.shape)
    return jnp.sum(entropy * others) / jnp.sum(others)


def swav(high, low, temperature, epsilon, iterations):
    """Predict one view's balanced prototype assignment from another view.

    high: (2, B, K) and low: (L, B, K) prototype scores, cosines. temperature: of the prediction; epsilon, iterations:
    of Sinkhorn-Knopp, which makes the targets. Returns a fp32 scalar; log K if nothing is known.
    Caron et al. 2020, https://arxiv.org/abs/2006.09882, Eq. 2 and 6.
    """
    return swapped_prediction(swav_targets(high, epsilon, iterations), high, low, temperature)
