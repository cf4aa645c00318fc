"""Losses of two networks without negatives: only an asymmetry between the networks prevents a constant output.

Letters: B images, D width of an embedding. Arrays are global.
"""

import jax.numpy as jnp
from jax.lax import stop_gradient

from jax_ssl.losses.contrastive import unit


def _cosine(a, b):
    """Mean cosine of the rows of a (B, D) and b (B, D), fp32."""
    return jnp.mean(jnp.sum(unit(a) * unit(b), axis=-1))


def byol(p1, p2, t1, t2):
    """Squared distance of predictions to the teacher's projections of the other view, summed over both directions.

    p1, p2: (B, D) the student's predictions. t1, t2: (B, D) the teacher's projections, which get no gradient. All
    are of any float type and normalised here. Returns a fp32 scalar: 4 for unrelated directions, 0 for equal ones.
    Grill et al. 2020, https://arxiv.org/abs/2006.07733, Eq. 2.
    """
    t1, t2 = stop_gradient(t1), stop_gradient(t2)
    return (2 - 2 * _cosine(p1, t2)) + (2 - 2 * _cosine(p2, t1))


def simsiam(p1, p2, z1, z2, stop=True):
    """Negative cosine of each view's prediction with the other's projection, averaged over the two directions.

    p1, p2: (B, D) predictions. z1, z2: (B, D) projections. All are of any float type and normalised here. stop: no
    gradient to the projections; without it the network collapses (Sec. 4.1). Returns a fp32 scalar from 0 (unrelated)
    to -1 (equal).
    Chen & He 2021, https://arxiv.org/abs/2011.10566, Eq. 1 to 4.
    """
    if stop:
        z1, z2 = stop_gradient(z1), stop_gradient(z2)
    return -(_cosine(p1, z2) + _cosine(p2, z1)) / 2
