"""Colours from a map of features, and the network of Zhang et al. that makes it: VGG's stages, the last ones dilated.

Paper: Zhang et al. 2016, https://arxiv.org/abs/1603.08511, Fig. 2
Code:  https://github.com/richzhang/colorization, models/colorization_train_val_v2.prototxt (caffe branch)
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.lax import Precision

from jax_ssl.errors import UserError
from jax_ssl.models.conv import convolve

FARTHEST = 150  # a distance in a and b that all colours are within
LEVELS = 10  # of lightness, in the cheap table
INIT = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def conv(width: int, dtype, stride: int = 1, dilation: int = 1):
    """A 3 x 3 convolution that keeps the size, but for its stride."""
    pad = ((dilation, dilation),) * 2
    return nn.Conv(
        width, (3, 3), stride, pad, kernel_dilation=dilation, dtype=dtype, kernel_init=INIT,
        conv_general_dilated=convolve,
    )  # fmt: skip


class Colourer(nn.Module):
    """A map of features (B, h, w, D) -> scores of colours (B, side, side, classes) fp32, on a map that is larger.

    widths: of convolutions with ReLU in between; each doubling of the map is a transposed 4 x 4 convolution of the first
    of them. Without widths one linear layer gives each place the scores of all points in it.
    """

    widths: Sequence[int]
    classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, side: int):
        up = side // x.shape[1]
        if x.shape[1] * up != side or up & (up - 1):
            raise UserError(
                f"Colours are told for {side} x {side} points, and the network's last map has {x.shape[1]} x {x.shape[2]} "
                "places: take a model that divides an image into 1/4, 1/8, 1/16 ... of its side."
            )
        x, doublings = x.astype(self.dtype), up.bit_length() - 1 if self.widths else 0
        for _ in range(doublings):
            x = nn.relu(nn.ConvTranspose(self.widths[0], (4, 4), (2, 2), dtype=self.dtype, kernel_init=INIT)(x))
        for width in self.widths[doublings > 0 :]:
            x = nn.relu(conv(width, self.dtype)(x))
        left = up >> doublings
        x = nn.Dense(self.classes * left**2, dtype=self.dtype)(x).astype(jnp.float32)
        return rearrange(x, "b h w (p q k) -> b (h p) (w q) k", p=left, q=left)


def colour_errors(colours, ab, weights) -> dict:
    """How far colours are from the true ones: {"squared", "auc", "auc_weighted", "weight"}, fp32 means over the points.

    colours, ab: (..., 2); weights (...,): of the true colours. squared: error of a and of b. auc: area under the share
    of points that are within a distance, over the distances 0 to 150 (Zhang et al. 2016, Sec. 3.1); auc_weighted over
    weight is the same with rare colours made to count.
    """
    error = jnp.square(colours - ab)
    within = jnp.clip(FARTHEST + 1 - jnp.ceil(jnp.sqrt(error.sum(-1))), 0, FARTHEST + 1) / (FARTHEST + 1)
    means = {"squared": error, "auc": within, "auc_weighted": weights * within, "weight": weights}
    return {name: jnp.mean(x) for name, x in means.items()}


def summary(means: dict) -> dict:
    """The numbers of a table from means of `colour_errors` and others: a root, and a weighted mean."""
    means = dict(means)
    weighted, weight, squared = (means.pop(name) for name in ("auc_weighted", "weight", "squared"))
    return means | {"rmse": squared**0.5, "auc_rebalanced": weighted / max(weight, 1e-30)}


def level_of(lightness):
    """Which of the ten levels of L, from 0 to 100, a point has: int32."""
    return jnp.clip(lightness // (100 / LEVELS), 0, LEVELS - 1).astype(jnp.int32)


def table_of_levels(examples, levels: int = LEVELS):
    """log p(bin | L), the cheap way to know colours: fp32 (levels, K).

    examples: pairs of L (...,) and codes (..., K), gone through once. One example more, spread as all of them, goes to
    each level, so that none is impossible. levels: 1 is the prior alone.
    """
    total = 0.0
    for lightness, code in examples:
        level = level_of(lightness) * (levels > 1)
        member = jax.nn.one_hot(level.reshape(-1), levels)
        codes = code.reshape(-1, code.shape[-1])
        total = total + jnp.matmul(member.T, codes, precision=Precision.HIGHEST)
    prior = total.sum(0) + 1 / total.shape[-1]
    total = total + prior / prior.sum()
    return jnp.log(total / total.sum(-1, keepdims=True))
