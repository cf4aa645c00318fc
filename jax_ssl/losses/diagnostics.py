"""How spread out features are: the numbers that tell a collapse while the loss still looks fine."""

import jax
import jax.numpy as jnp

from jax_ssl.losses.contrastive import HIGHEST, unit

ROWS = 512  # of a batch, for what costs the square of it


def feature_std(features: jax.Array) -> jax.Array:
    """Spread of the features' directions: 1 = like random directions, 0 = all the same.

    features: (N, D), any float, not yet unit. -> () float32. Standard deviation over N of the unit features, mean over
    D, times sqrt(D). Source: SimSiam (Chen & He 2021), section 4.1 and figure 2, where the healthy value is 1/sqrt(D).
    """
    return jnp.mean(jnp.std(unit(features), axis=0)) * features.shape[-1] ** 0.5


def pair_cosine(features: jax.Array) -> jax.Array:
    """Mean cosine of two different images' features: 0 = unrelated, 1 = all the same. (N, D) -> () float32."""
    count, mean = len(features), jnp.mean(unit(features), axis=0)
    return (count * jnp.sum(mean * mean) - 1) / (count - 1)


def alignment(first: jax.Array, second: jax.Array) -> jax.Array:
    """Mean squared distance of an image's two unit features: 0 = equal, 2 = unrelated. (N, D) each -> () float32.

    Source: Wang & Isola 2020, https://arxiv.org/abs/2005.10242, Sec. 4.1.1, alpha 2.
    """
    return jnp.mean(jnp.sum(jnp.square(unit(first) - unit(second)), axis=-1))


def uniformity(features: jax.Array) -> jax.Array:
    """Logarithm of the mean Gaussian potential of all pairs of unit features: 0 = all the same, about -4 = spread.

    features: (N, D) -> () float32. Source: Wang & Isola 2020, https://arxiv.org/abs/2005.10242, Sec. 4.1.2, t 2.
    """
    x = unit(features)
    distances = 2 - 2 * jnp.matmul(x, x.T, precision=HIGHEST)
    potential = jnp.where(jnp.eye(len(x), dtype=bool), 0.0, jnp.exp(-2 * distances))
    return jnp.log(jnp.sum(potential) / (len(x) * (len(x) - 1)))


def spread(first: jax.Array, second: jax.Array) -> dict[str, jax.Array]:
    """The metrics of a pair of views, (B, D) embeddings each, that every joint-embedding method reports."""
    first, second = jax.lax.stop_gradient((first, second))
    return {
        "feature_std": feature_std(first),
        "pair_cosine": pair_cosine(first),
        "alignment": alignment(first, second),
        "uniformity": uniformity(first[:ROWS]),
    }


def information(cross_entropy: jax.Array, candidates: int) -> dict[str, jax.Array]:
    """What an InfoNCE loss says of the mutual information of two views, in nats, and the loss of knowing nothing.

    cross_entropy: () mean over queries of the cross-entropy of picking one of `candidates` (positive included).
    The bound log N - loss (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, Eq. 7) never exceeds log N:
    near that it is full and says nothing about how much more the views share.
    """
    most = jnp.log(jnp.float32(candidates))
    return {"information_bound": most - cross_entropy, "information_most": most}


def prototype_use(assignments: jax.Array) -> dict[str, jax.Array]:
    """How decided and how varied soft assignments are. assignments: (N, K), rows sum to one.

    target_entropy: mean entropy of a row as a share of log K, 1 = undecided. target_spread: exp of the mean entropy as
    a share of K, over how many of all prototypes a row is spread. prototype_use: exp of the entropy of the mean row,
    1 = all images share one prototype, K = all are used equally.
    """
    entropy = lambda p: -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30)), 0.0), axis=-1)
    decided, most = jnp.mean(entropy(assignments)), jnp.log(float(assignments.shape[-1]))
    return {
        "target_entropy": decided / most,
        "target_spread": jnp.exp(decided - most),
        "prototype_use": jnp.exp(entropy(jnp.mean(assignments, axis=0))),
    }


def rankme(features: jax.Array, epsilon: float = 1e-7) -> jax.Array:
    """Effective rank: in how many directions the features vary, from 1 to min(N, D).

    features: (N, D), any float. -> () float32. exp of the entropy of the singular values over their sum.
    Source: RankMe (Garrido et al. 2023), equations 1 and 2; not centred, as there. Take N of at least D.
    """
    with jax.default_matmul_precision("highest"):  # a TPU would round the products to bf16 and fill the spectrum up
        tall = (features if len(features) >= features.shape[1] else features.T).astype(jnp.float32)
        # R of QR has the singular values of the whole, and only the shorter side, squared, of numbers. An SVD of wide
        # features asks for D x D of them, 90 GB for pixels at 224; the smaller Gram matrix would square what rounding
        # leaves in float32, which counts where the rank is small.
        values = jnp.linalg.svd(jnp.linalg.qr(tall, mode="r"), compute_uv=False)
    share = values / jnp.maximum(jnp.sum(values), 1e-30) + epsilon
    return jnp.exp(-jnp.sum(share * jnp.log(share)))
