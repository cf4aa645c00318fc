"""How spread out features are: the numbers that tell a collapse while the loss still looks fine."""

import jax.numpy as jnp

from jax_ssl.losses.contrastive import unit


def feature_std(features):
    """Mean over dimensions of the standard deviation of unit features, times sqrt(D). features (B, D) -> scalar.

    1 = spread like random directions, 0 = every image gives the same feature. SimSiam, section 4.1.
    """
    return jnp.std(unit(features.astype(jnp.float32)), axis=0).mean() * features.shape[-1] ** 0.5


def rankme(features, epsilon: float = 1e-7):
    """Effective rank: exp of the entropy of the normalised singular values. features (N, D) -> scalar in [1, D].

    Garrido et al. 2023, https://arxiv.org/abs/2210.02885, Eq. 1. The mean is kept, as in the paper.
    """
    values = jnp.linalg.svd(features.astype(jnp.float32), compute_uv=False)
    p = values / jnp.sum(values) + epsilon
    return jnp.exp(-jnp.sum(p * jnp.log(p)))
