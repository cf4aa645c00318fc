"""Colours as classes: bins of the plane of a and b in CIE Lab, soft codes for them, and rare colours made to count.

Zhang et al. 2016, https://arxiv.org/abs/1603.08511; official code resources/caffe_traininglayers.py. Letters: K bins.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision, stop_gradient

STEP = 10  # between bins, in a and b
LOWEST = -90  # the first row's a
COLOUR_BINS = {  # the lowest and the highest b of each row of bins; a row has no holes
    # The 313 of the released network: convex, and with 52 that are the nearest bin of no sRGB colour.
    "official": (
        (50, 90), (20, 90), (0, 90), (-20, 90), (-30, 100), (-40, 100), (-50, 100), (-50, 100), (-60, 100), (-70, 100),
        (-80, 90), (-80, 90), (-90, 90), (-100, 90), (-100, 80), (-110, 80), (-110, 80), (-110, 70), (-110, 70),
        (-90, 0),
    ),
    # The 261 that are the nearest grid point of some 8-bit sRGB colour.
    "gamut": (
        (80, 80), (40, 80), (20, 90), (0, 90), (-20, 90), (-30, 90), (-40, 90), (-40, 90), (-50, 90), (-60, 90),
        (-70, 80), (-70, 80), (-80, 80), (-90, 80), (-90, 70), (-100, 70), (-110, 70), (-110, 70), (-90, 0),
        (-70, -50),
    ),
}  # fmt: skip
COLOURFUL = 5  # in a or b: an image with no more anywhere is a grey one
RELEASED_TEMPERATURE = 0.38  # of the annealed mean


def colour_bins(which: str = "official") -> np.ndarray:
    """The centres (a, b) of the bins, in the order of the official file: float32 (K, 2). which: see `COLOUR_BINS`."""
    rows = enumerate(COLOUR_BINS[which])
    points = [(LOWEST + STEP * i, b) for i, (low, high) in rows for b in range(low, high + 1, STEP)]
    return np.array(points, np.float32)


def squared_distances(ab, bins):
    """From each colour to each bin: (..., 2), (K, 2) -> float32 (..., K)."""
    along = lambda axis: ab[..., axis, None].astype(jnp.float32) - jnp.asarray(bins)[:, axis]
    return jnp.square(along(0)) + jnp.square(along(1))


def nearest_bin(ab, bins):
    """The number of the bin that is nearest to a colour: (..., 2) -> int32 (...)."""
    return jnp.argmin(squared_distances(ab, bins), axis=-1).astype(jnp.int32)


def colour_code(ab, bins, neighbours: int = 10, sigma: float = 5.0):
    """Soft targets: a colour's nearest bins, by a Gaussian of their distance. (..., 2) -> float32 (..., K), sums one.

    ab: a and b, of any float type. bins: (K, 2), as `colour_bins` makes them. Of bins that are just as far the first
    ones count, so that there are never more than `neighbours`: black, for one, has four bins at 10 and four at 20.
    Zhang et al. 2016, Sec. 2.1; official code NNEncode.encode_points_mtx_nd.
    """
    distance, number = squared_distances(ab, bins), jnp.arange(len(bins))

    def next_nearest(last, _):
        far, at = last
        beyond = (distance > far) | ((distance == far) & (number > at))
        far = jnp.min(distance, -1, keepdims=True, initial=jnp.inf, where=beyond)
        at = jnp.min(jnp.where(beyond & (distance == far), number, len(bins)), -1, keepdims=True)
        return (far, at), None

    # The next nearest bin, again and again: on a CPU a fraction of the time that a sort of all bins takes.
    first = jnp.full((*ab.shape[:-1], 1), -1.0), jnp.full((*ab.shape[:-1], 1), -1)
    (far, at), _ = jax.lax.scan(next_nearest, first, None, length=min(neighbours, len(bins)))
    chosen = (distance < far) | ((distance == far) & (number <= at))
    # Counted from the nearest, so that a colour far from all bins does not divide nothing by nothing.
    nearest = jnp.min(distance, axis=-1, keepdims=True)
    weight = jnp.where(chosen, jnp.exp((nearest - distance) / (2 * sigma**2)), 0.0)
    return weight / weight.sum(-1, keepdims=True)


def smooth_prior(counts, bins, sigma: float = 5.0):
    """How often each bin is the nearest, made smooth over neighbouring bins: counts (K,) -> float32 (K,), sums to one.

    A Gaussian of the distance of bins, cut off at three sigma: a bin with no colour that near keeps none. Sec. 2.2.
    """
    distance = np.square(np.asarray(bins)[:, None] - np.asarray(bins)[None]).sum(-1)
    spread = np.where(distance <= (3 * sigma) ** 2, np.exp(-distance / (2 * sigma**2)), 0.0)
    spread = jnp.asarray(spread / spread.sum(0), jnp.float32)  # what a bin gives away sums to one
    share = counts.astype(jnp.float32) / jnp.maximum(jnp.sum(counts), 1)
    return jnp.matmul(spread, share, precision=Precision.HIGHEST)


def colour_weights(prior, uniform: float = 0.5, power: float = 1.0):
    """How much a bin's gradient counts: the rarer the more, one on average. prior (K,), sums to one -> float32 (K,).

    One over the prior mixed with an even share of `uniform`, to the `power` (0: all count one). Bins that never occur
    have no part in the even share, and weigh nothing. Eq. 4; official code PriorFactor.
    """
    prior = prior.astype(jnp.float32)
    occurs = prior > 0
    mixed = (1 - uniform) * prior + uniform * occurs / jnp.maximum(jnp.sum(occurs), 1)
    mixed = jnp.where(occurs, mixed, jnp.inf)
    weight = jnp.where(occurs, (jnp.min(mixed) / mixed) ** power, 0.0)  # at most 1, so that no power is too large
    return weight / jnp.maximum(jnp.sum(prior * weight), 1e-30)


def colourful(ab):
    """Which images have any colour: (B, h, w, 2) -> float32 (B,), 1 = some |a| or |b| is above 5. NonGrayMaskLayer."""
    return jnp.any(jnp.abs(ab) > COLOURFUL, axis=(1, 2, 3)).astype(jnp.float32)


def colorization(logits, code, weights=None):
    """Cross-entropy with soft colour classes, averaged over points; log K where nothing is known. A fp32 scalar.

    logits, code: (..., K); the code of a grey image is all zero, and adds nothing. weights: (K,), of the bins: a point
    counts as much as the likeliest bin of its code, in the value and so in the gradient. The official layer multiplies
    the gradient alone: its gradients are these, and the value that it prints is the one without `weights`.
    Zhang et al. 2016, Eq. 2 and 3; official code ClassRebalanceMultLayer, PriorBoostLayer.
    """
    logits, code = logits.astype(jnp.float32), stop_gradient(code.astype(jnp.float32))
    each = -jnp.sum(code * jax.nn.log_softmax(logits), axis=-1)
    return jnp.mean(each if weights is None else weights[jnp.argmax(code, axis=-1)] * each)


def annealed_mean(logits, bins, temperature: float = RELEASED_TEMPERATURE):
    """One colour from the shares of the bins: their mean after a softmax. (..., K) -> float32 (..., 2).

    temperature: 1 is the mean, dull where several colours may be; towards 0 it becomes the likeliest bin. Eq. 5.
    """
    share = jax.nn.softmax(logits.astype(jnp.float32) / temperature)
    return jnp.matmul(share, jnp.asarray(bins, jnp.float32), precision=Precision.HIGHEST)
