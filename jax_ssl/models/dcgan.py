"""Convolutions of 4 x 4 pixels that halve or double an image: DCGAN's, as an encoder, a painter and a critic.

Paper: Radford et al. 2015, https://arxiv.org/abs/1511.06434; as in Pathak et al. 2016, https://arxiv.org/abs/1604.07379
Code:  https://github.com/pathak22/context-encoder, train.lua, netE, netG and netD
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jax_ssl import bounds
from jax_ssl.errors import UserError
from jax_ssl.models.apply import first_layers
from jax_ssl.models.features import of_map
from jax_ssl.models.norm import BatchNorm

NORMAL = nn.initializers.normal(0.02)
KERNEL, LAST = 4, 4  # pixels of a kernel; and of the side at which halving ends
leaky = partial(nn.leaky_relu, negative_slope=0.2)
# Biases are set to zero at every step of the official code: there are none.
conv = partial(nn.Conv, kernel_size=(KERNEL, KERNEL), use_bias=False, kernel_init=NORMAL)
deconv = partial(nn.ConvTranspose, kernel_size=(KERNEL, KERNEL), use_bias=False, kernel_init=NORMAL)
norm = partial(BatchNorm, scale_spread=0.02)


class Down(nn.Module):
    """(B, H, W, C) -> (B, H / 2, W / 2, width), with batch norm or without, behind a leaky ReLU."""

    width: int
    normed: bool = True
    norm_groups: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        x = conv(self.width, strides=2, padding=((1, 1), (1, 1)), dtype=self.dtype)(x)
        return leaky(norm(groups=self.norm_groups)(x, train) if self.normed else x)


class Up(nn.Module):
    """(B, H, W, C) -> (B, 2 H, 2 W, width), with batch norm and ReLU."""

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.relu(norm()(deconv(self.width, strides=(2, 2), dtype=self.dtype)(x), train))


class Encoder(nn.Module):
    """images (B, H, W, 3) -> Features: patches are the places of the last map, pooled is their mean."""

    widths: tuple[int, ...]
    norm_groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, images, train: bool = False):
        x = images.astype(self.dtype)
        for number, width in enumerate(self.widths):
            x = Down(width, number > 0, self.norm_groups, self.dtype)(x, train)
        return of_map(x)

    @property
    def depths(self) -> int:
        return len(self.widths)

    def shortened(self, depth: int, variables: dict):
        """The network of the first `depth` layers and its variables."""
        return self.clone(widths=self.widths[:depth]), first_layers(variables, Down=depth)


class Painter(nn.Module):
    """A map of features (B, h, w, D) -> one vector an image -> a painting (B, S, S, 3) from -1 to 1.

    bottleneck: width of the vector. widths: of the maps of 4, 8, 16 ... pixels; the painting is twice as large as the
    last of them.
    """

    bottleneck: int
    widths: Sequence[int]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        x = conv(self.bottleneck, kernel_size=x.shape[1:3], padding="VALID", dtype=self.dtype)(x.astype(self.dtype))
        x = leaky(norm()(x, train))
        x = nn.relu(norm()(deconv(self.widths[0], padding="VALID", dtype=self.dtype)(x), train))
        for width in self.widths[1:]:
            x = Up(width, self.dtype)(x, train)
        return nn.tanh(deconv(3, strides=(2, 2), dtype=self.dtype)(x).astype(jnp.float32))

    def side(self) -> int:
        return 2 * LAST * 2 ** (len(self.widths) - 1)


class Critic(nn.Module):
    """images (B, S, S, 3) -> one logit each, (B,) fp32: above zero for what looks real.

    widths: of the maps, each half as large as the one before; one convolution over the whole last map judges.
    """

    widths: Sequence[int]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, train: bool = False):
        x = images.astype(self.dtype)
        for number, width in enumerate(self.widths):
            x = Down(width, number > 0, dtype=self.dtype)(x, train)
        return conv(1, kernel_size=x.shape[1:3], padding="VALID", dtype=self.dtype)(x)[:, 0, 0, 0].astype(jnp.float32)


def make(*, widths: tuple, norm_groups: int, dtype: str) -> Encoder:
    """widths: channels of each convolution, each of which halves the image. norm_groups: see `BatchNorm`."""
    bounds.whole("model.", dict(widths=tuple(widths), norm_groups=norm_groups))
    bounds.one_of("model.", dict(dtype=dtype), bounds.DTYPES)
    if not widths:
        raise UserError("model.widths=() has no convolution: give the channels of one or more.")
    return Encoder(tuple(widths), norm_groups, jnp.dtype(dtype))


def check(image_size: int, *, widths: tuple, **_) -> None:
    """Raises UserError if images of this size can't be halved so often."""
    if image_size % 2 ** len(widths):
        raise UserError(
            f"{image_size} pixels can't be halved {len(widths)} times, once for each of model.widths: take fewer "
            f"widths, or a multiple of {2 ** len(widths)} pixels."
        )
