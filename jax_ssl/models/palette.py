"""The colours of an image as a puzzle: at which points, among which classes, how rare, and how far an answer is off.

Zhang et al. 2016, https://arxiv.org/abs/1603.08511, Sec. 2.2, 3.1
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.lax import Precision

from jax_ssl import losses
from jax_ssl.models.lab import rgb_to_lab

STRIDE = 4  # pixels from one point whose colour is told to the next
FARTHEST = 150  # a distance in a and b that hardly any two colours have
LEVELS = 10  # of lightness, in the cheap table


class Palette(NamedTuple):
    """bins (K, 2); neighbours, sigma: of a soft code; uniform: share of an even prior beside the counted one.

    temperature: of the annealed mean. mean: a point is the mean of its square, and not one pixel.
    """

    bins: np.ndarray
    neighbours: int = 10
    sigma: float = 5.0
    uniform: float = 0.5
    temperature: float = losses.RELEASED_TEMPERATURE
    mean: bool = False

    def points(self, images):
        """L (B, h, w), and a and b (B, h, w, 2), at the points of images (B, H, W, 3) in [0, 1]."""
        lab = rgb_to_lab(images)
        if self.mean:
            lab = rearrange(lab, "b (h p) (w q) c -> b h w (p q) c", p=STRIDE, q=STRIDE).mean(3)
        else:
            lab = lab[:, ::STRIDE, ::STRIDE]
        return lab[..., 0], lab[..., 1:]

    def code(self, ab):
        """The soft classes of colours: (..., 2) -> (..., K)."""
        return losses.colour_code(ab, self.bins, self.neighbours, self.sigma)

    def count(self, images):
        """How many points of images in [0, 1] have each bin as their nearest: float32 (K,)."""
        nearest = losses.nearest_bin(self.points(images)[1], self.bins)
        return jnp.bincount(nearest.reshape(-1), length=len(self.bins)).astype(jnp.float32)

    def weights(self, counts, power=1.0):
        """How much each bin counts by its rarity, (K,) -> (K,); where nothing is counted yet, all alike."""
        prior = losses.smooth_prior(counts + (jnp.sum(counts) == 0), self.bins, self.sigma)
        return losses.colour_weights(prior, self.uniform, power)

    def errors(self, mean, annealed, ab, counts) -> dict:
        """How far colours (..., 2) are from the true ones: means over the points, of which `summary` makes numbers.

        squared: error of a and b of the mean colour. auc: of the annealed one, the area under the share of points that
        are within a distance, over the distances 0 to 150. auc_weighted over weight is that with rare colours counting.
        """
        off = jnp.sqrt(jnp.sum(jnp.square(annealed - ab), axis=-1))
        within = jnp.clip(FARTHEST + 1 - jnp.ceil(off), 0, FARTHEST + 1) / (FARTHEST + 1)
        weight = self.weights(counts)[losses.nearest_bin(ab, self.bins)]
        means = {"squared": jnp.square(mean - ab), "auc": within, "auc_weighted": weight * within, "weight": weight}
        return {name: jnp.mean(x) for name, x in means.items()}

    def score(self, scores, ab, counts) -> dict:
        """The means of scores of the bins (..., K): their cross-entropy, and `errors`."""
        mean, annealed = (losses.annealed_mean(scores, self.bins, t) for t in (1.0, self.temperature))
        cross_entropy = losses.colorization(scores, self.code(ab))
        return {"cross_entropy": cross_entropy} | self.errors(mean, annealed, ab, counts)

    def tell_by_table(self, batches, levels: int):
        """What examples say of colours by lightness alone: (scores (levels, K), counts (K,)) of batches of images.

        One example more, spread as all of them, goes to each level, so that nothing is impossible there.
        """
        total, counts, tally = 0.0, 0.0, jax.jit(lambda images: self._tally(images, levels))
        for batch in batches:
            found, counted = tally(batch["views"][:, 0])
            total, counts = total + found, counts + counted
        prior = total.sum(0) + 1 / total.shape[-1]
        total = total + prior / prior.sum()
        return jnp.log(total / total.sum(-1, keepdims=True)), counts

    def _tally(self, images, levels: int):
        """Sums of the codes at each level of lightness (levels, K), and `count`."""
        lightness, ab = self.points(images)
        member = jax.nn.one_hot(level_of(lightness, levels).reshape(-1), levels)
        codes = self.code(ab).reshape(-1, len(self.bins))
        return jnp.matmul(member.T, codes, precision=Precision.HIGHEST), self.count(images)


def level_of(lightness, levels: int = LEVELS):
    """Which of so many equal levels of L, from 0 to 100, a point has: int32."""
    return jnp.clip(lightness * (levels / 100), 0, levels - 1).astype(jnp.int32)


def by_table(palette: Palette, batches, levels: int):
    """The baseline that knows p(bin | L), with one level the prior alone: function(batch, rng) -> means."""
    table, counts = palette.tell_by_table(batches, levels)

    @jax.jit
    def measure(batch, rng):
        lightness, ab = palette.points(batch["views"][:, 0])
        return palette.score(table[level_of(lightness, levels)], ab, counts)

    return measure


def by_grey(palette: Palette, batches):
    """The baseline that leaves images grey: function(batch, rng) -> means."""
    count = jax.jit(palette.count)
    counts = sum(count(batch["views"][:, 0]) for batch in batches)

    @jax.jit
    def measure(batch, rng):
        ab = palette.points(batch["views"][:, 0])[1]
        grey = jnp.zeros_like(ab)
        return palette.errors(grey, grey, ab, counts)

    return measure


def baselines(palette: Palette) -> dict:
    """The cheap ways to know colours, as a method's `task` takes them."""
    return {
        "p(bin | L)": lambda batches, rng, linear: by_table(palette, batches, LEVELS),
        "p(bin)": lambda batches, rng, linear: by_table(palette, batches, 1),
        "grey": lambda batches, rng, linear: by_grey(palette, batches),
    }


def summary(means: dict) -> dict:
    """The numbers of a table from means of `errors` and others: a root, and a weighted mean."""
    means = dict(means)
    weighted, weight, squared = (means.pop(name) for name in ("auc_weighted", "weight", "squared"))
    return means | {"rmse": squared**0.5, "auc_rebalanced": weighted / max(weight, 1e-30)}
