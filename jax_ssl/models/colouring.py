"""Colours from a map of features, and the network of Zhang et al. that makes it: VGG's stages, the last ones dilated.

Paper: Zhang et al. 2016, https://arxiv.org/abs/1603.08511, Fig. 2
Code:  https://github.com/richzhang/colorization, models/colorization_train_val_v2.prototxt (caffe branch)
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from jax_ssl.errors import UserError
from jax_ssl.models.conv import convolve

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

    widths: of convolutions with ReLU in between; each doubling of the map is a transposed 4 x 4 convolution of the
    first of them. Without widths one linear layer gives each place the scores of all points in it.
    """

    widths: Sequence[int]
    classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, side: int):
        up = side // x.shape[1]
        if x.shape[1] * up != side or up & (up - 1):
            raise UserError(
                f"{side} x {side} points have their colour told, and the last map has {x.shape[1]} x {x.shape[2]} "
                "places: take a model that divides the side of an image by 4, 8, 16 ..."
            )
        x, doublings = x.astype(self.dtype), up.bit_length() - 1 if self.widths else 0
        for _ in range(doublings):
            x = nn.relu(nn.ConvTranspose(self.widths[0], (4, 4), (2, 2), dtype=self.dtype, kernel_init=INIT)(x))
        for width in self.widths[doublings > 0 :]:
            x = nn.relu(conv(width, self.dtype)(x))
        left = up >> doublings
        x = nn.Dense(self.classes * left**2, dtype=self.dtype)(x).astype(jnp.float32)
        return rearrange(x, "b h w (p q k) -> b (h p) (w q) k", p=left, q=left)
