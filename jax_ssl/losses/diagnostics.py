"""How spread out features are: the numbers that tell a collapse while the loss still looks fine."""

import jax
import jax.numpy as jnp

from jax_ssl.losses.contrastive import unit


def feature_std(features: jax.Array) -> jax.Array:
    """Spread of the features' directions: 1 = like random directions, 0 = all the same.

    features: (N, D), any float, not yet unit. -> () float32. Standard deviation over N of the unit features, mean over
    D, times sqrt(D). Source: SimSiam (Chen & He 2021), section 4.1 and figure 2, where the healthy value is 1/sqrt(D).
    """
    return jnp.mean(jnp.std(unit(features), axis=0)) * features.shape[-1] ** 0.5


def rankme(features: jax.Array, epsilon: float = 1e-7) -> jax.Array:
    """Effective rank: in how many directions the features vary, from 1 to min(N, D).

    features: (N, D), any float. -> () float32. exp of the entropy of the singular values over their sum.
    Source: RankMe (Garrido et al. 2023), equations 1 and 2; not centred, as there. Take N of at least D.
    """
    with jax.default_matmul_precision("highest"):  # a TPU would round the products to bf16 and fill the spectrum up
        values = jnp.linalg.svd(features.astype(jnp.float32), compute_uv=False)
    share = values / jnp.maximum(jnp.sum(values), 1e-30) + epsilon
    return jnp.exp(-jnp.sum(share * jnp.log(share)))
