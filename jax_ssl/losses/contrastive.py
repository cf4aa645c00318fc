"""Contrastive losses: pick the positive out of negatives from the batch or from a queue.

Letters: B images, D width of an embedding, K length of the queue. All arrays are global, so negatives come from every
device and gradients flow (or, for keys, do not flow) through all of them; `jit` on a mesh inserts the collectives.
"""

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

# A TPU multiplies fp32 matrices in bf16 by default; divided by a small temperature, that error is visible in the loss.
HIGHEST = jax.lax.Precision.HIGHEST


def unit(x):
    """x with rows of Euclidean length one: (..., D) of any float type -> (..., D) fp32. Rows of zeros stay zero.

    The gradient at a row of zeros is finite.
    """
    x = x.astype(jnp.float32)
    return x / jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def _scores(rows, columns, temperature):
    """Dot products over temperature: unit rows (R, D), unit columns (C, D) -> (R, C) fp32."""
    return jnp.matmul(rows, columns.T, precision=HIGHEST) / temperature


def nt_xent(z1, z2, temperature):
    """Cross-entropy of finding an image's other view among all other 2B - 1 views, averaged over the 2B views.

    z1, z2: (B, D) embeddings of the two views, any float type, normalised here. Returns a fp32 scalar.
    Chen et al. 2020, https://arxiv.org/abs/2002.05709, Eq. 1. The official code sums the means of the two views, which
    is twice this.
    """
    a, b = unit(z1), unit(z2)
    same_view = jnp.eye(len(a), dtype=bool)
    across = _scores(a, b, temperature)  # (B, B), positives on the diagonal
    within_a = jnp.where(same_view, -1e9, _scores(a, a, temperature))
    within_b = jnp.where(same_view, -1e9, _scores(b, b, temperature))
    # Two logsumexp per view, combined: one (2B, 2B) matrix would move rows between devices.
    normaliser_a = jnp.logaddexp(logsumexp(across, axis=1), logsumexp(within_a, axis=1))
    normaliser_b = jnp.logaddexp(logsumexp(across, axis=0), logsumexp(within_b, axis=1))
    positive = jnp.sum(a * b, axis=-1) / temperature
    return jnp.mean(normaliser_a + normaliser_b) / 2 - jnp.mean(positive)


def info_nce(query, key, queue, temperature):
    """Cross-entropy of picking `key[i]` for `query[i]` out of `key[i]` and the queue.

    query, key: (B, D) of any float type, normalised here. queue: (K, D), rows of length one. No gradient reaches key or
    queue. Returns a fp32 scalar. He et al. 2020, https://arxiv.org/abs/1911.05722, Eq. 1.
    """
    query, key = unit(query), jax.lax.stop_gradient(unit(key))
    queue = jax.lax.stop_gradient(queue.astype(jnp.float32))
    positive = jnp.sum(query * key, axis=-1) / temperature  # (B,)
    negative = _scores(query, queue, temperature)  # (B, K)
    return jnp.mean(jnp.logaddexp(positive, logsumexp(negative, axis=1)) - positive)


def moco_v3(q1, q2, k1, k2, temperature):
    """Cross-entropy of finding each query's key of the other view among the batch's keys, times 2 x temperature.

    q1, q2: (B, D) the student's predictions. k1, k2: (B, D) the teacher's projections, which get no gradient. All are
    of any float type and normalised here. Returns a fp32 scalar, the sum of both directions: q1 with k2 and q2 with k1;
    4 x temperature x log B if all keys score alike.
    Chen et al. 2021, https://arxiv.org/abs/2104.02057, Alg. 1; official code moco/builder.py, contrastive_loss.
    """

    def one_direction(query, key):
        scores = _scores(unit(query), jax.lax.stop_gradient(unit(key)), temperature)
        return 2 * temperature * jnp.mean(logsumexp(scores, axis=1) - jnp.diagonal(scores))

    return one_direction(q1, k2) + one_direction(q2, k1)


def clip(image, text, logit_scale):
    """Cross-entropy of finding an image's caption among all captions and a caption's image among all images, averaged.

    image, text: (B, D) of any float type, normalised here. logit_scale: one over the temperature, a scalar, which gets
    a gradient (CLIP learns its logarithm and limits the scale to 100). Returns a fp32 scalar; log B if all pairs score
    alike.
    Radford et al. 2021, https://arxiv.org/abs/2103.00020, Fig. 3.
    """
    image, text = unit(image), unit(text)
    scores = jnp.matmul(image, text.T, precision=HIGHEST) * logit_scale
    normaliser = (logsumexp(scores, axis=0) + logsumexp(scores, axis=1)) / 2
    return jnp.mean(normaliser - jnp.diagonal(scores))


def cpc(preds, targets, offset=2, embed_scale=0.1):
    """Cross-entropy of finding what a patch of the grid looks like `offset` rows below, among all patches of the batch.

    preds, targets: (B, h, w, D) of any float type and length, not made unit. Row r of `preds` tells row r + offset of
    `targets` in its own column; the last `offset` rows have nothing to tell. Negatives are all other B h w - 1 targets,
    those of the same image too. embed_scale multiplies the scores. Returns a fp32 scalar: log(B h w) if nothing is
    known.
    Henaff et al. 2019, https://arxiv.org/abs/1905.09272, Eq. 2 and its pseudo-code; van den Oord et al. 2018,
    https://arxiv.org/abs/1807.03748, Eq. 4, has one matrix for each offset where `preds` are.
    """
    preds = preds[:, : preds.shape[1] - offset].astype(jnp.float32) * embed_scale
    targets = targets.astype(jnp.float32)
    rows = lambda x: x.reshape(-1, x.shape[-1])
    normaliser = logsumexp(jnp.matmul(rows(preds), rows(targets).T, precision=HIGHEST), axis=1)
    return jnp.mean(normaliser) - jnp.mean(jnp.sum(preds * targets[:, offset:], axis=-1))
