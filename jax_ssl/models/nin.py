"""Network in Network: blocks of a wide convolution and two of one pixel, for images of 32 pixels.

Paper: Lin et al. 2014, https://arxiv.org/abs/1312.4400
Code:  https://github.com/gidariss/FeatureLearningRotNet, architectures/NetworkInNetwork.py (batch norm, 3 to 5 blocks)
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from jax_ssl import bounds
from jax_ssl.models.apply import first_layers
from jax_ssl.models.conv import convolve
from jax_ssl.models.features import of_map
from jax_ssl.models.norm import BatchNorm
from jax_ssl.models.resnet import KERNEL_INIT

FIRST, OTHERS = (192, 160, 96), (192, 192, 192)  # channels of a block's three convolutions
POOL = dict(window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


class Block(nn.Module):
    """Three convolutions, the first of `side` x `side` pixels, each with batch norm and ReLU, and a pool or none."""

    widths: tuple[int, ...]
    side: int
    norm_groups: int
    dtype: jnp.dtype
    pool: partial | None

    @nn.compact
    def __call__(self, x, train):
        for width, side in zip(self.widths, (self.side, 1, 1)):
            conv = nn.Conv(
                width, (side, side), padding=((side // 2,) * 2,) * 2, use_bias=False, dtype=self.dtype,
                kernel_init=KERNEL_INIT, conv_general_dilated=convolve,
            )  # fmt: skip
            x = nn.relu(BatchNorm(groups=self.norm_groups)(conv(x), train))
        return x if self.pool is None else self.pool(x)


class NIN(nn.Module):
    """images (B, H, W, 3) -> Features: pooled = spatial mean of the last map, patches = its positions."""

    blocks: int
    width: float
    norm_groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, images, train: bool = False):
        x = images.astype(self.dtype)
        pools = [partial(nn.max_pool, **POOL), partial(nn.avg_pool, **POOL)]
        for number in range(self.blocks):
            widths = tuple(max(1, round(self.width * channels)) for channels in (OTHERS if number else FIRST))
            side, pool = (5, pools[number]) if number < len(pools) else (3, None)
            x = Block(widths, side, self.norm_groups, self.dtype, pool)(x, train)
        return of_map(x)

    @property
    def depths(self) -> int:
        return self.blocks

    def shortened(self, depth: int, variables: dict):
        """The network of the first `depth` blocks, their pools included, and its variables."""
        return self.clone(blocks=depth), first_layers(variables, Block=depth)


def make(*, blocks: int, width: float, norm_groups: int, dtype: str) -> NIN:
    """blocks: 3 to 5 in the paper. width multiplies their 192 channels."""
    bounds.whole("model.", dict(blocks=blocks, norm_groups=norm_groups))
    bounds.bounded("model.", dict(width=width), at_least=1 / 96)
    bounds.one_of("model.", dict(dtype=dtype), bounds.DTYPES)
    return NIN(blocks, width, norm_groups, jnp.dtype(dtype))
