"""Losses without negatives: they keep the dimensions of an embedding varied and decorrelated.

Letters: B images, D width of an embedding. Arrays are global, so that statistics are those of the whole batch.
"""

import jax.numpy as jnp
from jax.nn import relu

from jax_ssl.losses.contrastive import HIGHEST


def _off_diagonal_squares(matrix):
    """Sum of the squared off-diagonal entries of (D, D)."""
    return jnp.sum(jnp.square(matrix)) - jnp.sum(jnp.square(jnp.diagonal(matrix)))


def _standardised(z):
    """Every dimension with mean 0 and variance 1 over the batch: biased variance, epsilon 1e-5, as batch norm."""
    return (z - z.mean(0)) / jnp.sqrt(z.var(0) + 1e-5)


def barlow_twins(z1, z2, lambd):
    """Make the cross-correlation of the two views' dimensions the identity matrix.

    z1, z2: (B, D) projections of any float type, standardised here. lambd: weight of the off-diagonal terms. Returns a
    fp32 scalar, a sum over the D x D matrix; D where nothing correlates. The official code's gradient is this one
    divided by its number of GPUs. Zbontar et al. 2021, https://arxiv.org/abs/2103.03230, Eq. 1.
    """
    z1, z2 = (_standardised(z.astype(jnp.float32)) for z in (z1, z2))
    correlation = jnp.matmul(z1.T, z2, precision=HIGHEST) / len(z1)
    on_diagonal = jnp.sum(jnp.square(jnp.diagonal(correlation) - 1))
    return on_diagonal + lambd * _off_diagonal_squares(correlation)


def vicreg(z1, z2, invariance=25, variance=25, covariance=1):
    """Squared distance of views, and penalties for deviations below 1 and for correlated dimensions.

    z1, z2: (B, D) embeddings of any float type, B > 1, not normalised. invariance, variance, covariance: weights of the
    three terms. Returns a fp32 scalar. Variances and covariances are unbiased; the variance term of the two views is
    averaged, as in the official code (the paper sums it). Bardes et al. 2022, https://arxiv.org/abs/2105.04906, Eq. 1
    to 6.
    """
    z1, z2 = z1.astype(jnp.float32), z2.astype(jnp.float32)

    def spread_and_redundancy(z):
        centred = z - z.mean(0)
        matrix = jnp.matmul(centred.T, centred, precision=HIGHEST) / (len(z) - 1)
        deviation = jnp.sqrt(jnp.diagonal(matrix) + 1e-4)
        return jnp.mean(relu(1 - deviation)), _off_diagonal_squares(matrix) / z.shape[1]

    (spread1, redundancy1), (spread2, redundancy2) = spread_and_redundancy(z1), spread_and_redundancy(z2)
    agreement = jnp.mean(jnp.square(z1 - z2))
    return invariance * agreement + variance * (spread1 + spread2) / 2 + covariance * (redundancy1 + redundancy2)
