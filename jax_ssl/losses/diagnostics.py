"""Statistics of features that show a collapse while the loss still looks fine."""

import jax
import jax.numpy as jnp

from jax_ssl.losses.contrastive import HIGHEST, unit

ROWS = 512  # of a batch at most, for statistics that compare all pairs


def feature_std(features: jax.Array) -> jax.Array:
    """Spread of the features' directions: 1 = random directions, 0 = all the same.

    features: (N, D), any float type, not yet normalised. -> () float32. Standard deviation over N of the unit features,
    mean over D, times sqrt(D). Source: SimSiam (Chen & He 2021), section 4.1 and figure 2, where the healthy value is
    1/sqrt(D).
    """
    return jnp.mean(jnp.std(unit(features), axis=0)) * features.shape[-1] ** 0.5


def pair_cosine(features: jax.Array) -> jax.Array:
    """Mean cosine of the features of different images: 0 = unrelated, 1 = all the same. (N, D), N > 1 -> () float32."""
    count, mean = len(features), jnp.mean(unit(features), axis=0)
    return (count * jnp.sum(mean * mean) - 1) / (count - 1)


def alignment(first: jax.Array, second: jax.Array) -> jax.Array:
    """Mean squared distance of the normalised features of two views: 0 = equal, 2 = unrelated.

    first, second: (N, D), any float type -> () float32.

    Source: Wang & Isola 2020, https://arxiv.org/abs/2005.10242, Sec. 4.1.1, alpha 2.
    """
    return jnp.mean(jnp.sum(jnp.square(unit(first) - unit(second)), axis=-1))


def uniformity(features: jax.Array) -> jax.Array:
    """Logarithm of the mean Gaussian potential of all pairs of features: 0 = all the same, near -4 = uniform.

    features: (N, D), N > 1, normalised here -> () float32. Source: Wang & Isola 2020, https://arxiv.org/abs/2005.10242,
    Sec. 4.1.2, t 2.
    """
    x = unit(features)
    distances = 2 - 2 * jnp.matmul(x, x.T, precision=HIGHEST)
    potential = jnp.where(jnp.eye(len(x), dtype=bool), 0.0, jnp.exp(-2 * distances))
    return jnp.log(jnp.sum(potential) / (len(x) * (len(x) - 1)))


def spread(first: jax.Array, second: jax.Array) -> dict[str, jax.Array]:
    """The four statistics above, for embeddings (B, D) of two views: {name: () float32}, without gradient.

    Every joint-embedding method reports them. uniformity takes the first ROWS images.
    """
    first, second = jax.lax.stop_gradient((first, second))
    return {
        "feature_std": feature_std(first),
        "pair_cosine": pair_cosine(first),
        "alignment": alignment(first, second),
        "uniformity": uniformity(first[:ROWS]),
    }


def information(cross_entropy: jax.Array, candidates: int) -> dict[str, jax.Array]:
    """The lower bound that an InfoNCE loss gives on the mutual information of two views, and its maximum, in nats.

    cross_entropy: () mean over queries of the cross-entropy of picking one of `candidates` (positive included).
    The bound is log N - loss (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, Eq. 7), at most log N: near
    log N it does not show how much more the views share. Returns two () float32.
    """
    maximum = jnp.log(jnp.float32(candidates))
    return {"information_bound": maximum - cross_entropy, "information_most": maximum}


def prototype_use(assignments: jax.Array) -> dict[str, jax.Array]:
    """How sharp and how varied soft assignments are: {name: () float32}. assignments: (N, K), rows sum to one.

    target_entropy: mean entropy of a row as a share of log K, 1 = uniform. target_spread: exp of that mean entropy, as
    a share of K: the effective share of the prototypes that a row uses. prototype_use: exp of the entropy of the mean
    row, 1 = all images share one prototype, K = all are used equally.
    """
    entropy = lambda p: -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30)), 0.0), axis=-1)
    row_entropy, maximum = jnp.mean(entropy(assignments)), jnp.log(float(assignments.shape[-1]))
    return {
        "target_entropy": row_entropy / maximum,
        "target_spread": jnp.exp(row_entropy - maximum),
        "prototype_use": jnp.exp(entropy(jnp.mean(assignments, axis=0))),
    }


def rankme(features: jax.Array, epsilon: float = 1e-7) -> jax.Array:
    """Effective rank: in how many directions the features vary, from 1 to min(N, D).

    features: (N, D), any float type. -> () float32. exp of the entropy of the singular values over their sum.
    Source: RankMe (Garrido et al. 2023), equations 1 and 2; not centred, as there. Take at least D rows.
    """
    with jax.default_matmul_precision("highest"):  # a TPU would round products to bf16, which raises the rank
        tall = (features if len(features) >= features.shape[1] else features.T).astype(jnp.float32)
        # R of QR has the singular values of the features and is a square of their shorter side. An SVD of wide features
        # would make D x D numbers, 90 GB for pixels at 224. A Gram matrix would square the singular values, and small
        # ones would be lost to rounding.
        values = jnp.linalg.svd(jnp.linalg.qr(tall, mode="r"), compute_uv=False)
    share = values / jnp.maximum(jnp.sum(values), 1e-30) + epsilon
    return jnp.exp(-jnp.sum(share * jnp.log(share)))
