"""The map of a network as one vector, its positions pooled to a coarser grid: a linear probe sees where things are.

Gidaris et al. 2018 (RotNet) and Goyal et al. 2019 (VISSL) probe each convolution of AlexNet and each stage of a ResNet
so, at about 9 600 numbers each.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from jax_ssl.encoder import Encoder, at_depth
from jax_ssl.models.features import Features
from jax_ssl.sizes import grid_of

NUMBERS = 9600  # at most: 12 x 12 of AlexNet's 64 channels, 7 x 7 of 192, 5 x 5 of 384, 6 x 6 of 256
POOLS = {"max": jnp.max, "mean": jnp.mean}


def map_at(encode: Encoder, depth: int, pool: str) -> Encoder:
    """The network behind its first `depth` parts, with its pooled map as features. pool: a key of POOLS."""
    short = at_depth(encode, depth)
    return dataclasses.replace(short, backbone=MapPool(short.backbone, pool))


class MapPool(nn.Module):
    """The backbone with its map as pooled features: images (B, H, W, 3) -> Features, pooled (B, side * side * D).

    pool: a key of POOLS. The side is the largest with at most NUMBERS numbers, and not more than the map has.
    """

    backbone: nn.Module
    pool: str

    def setup(self):
        nn.share_scope(self, self.backbone)

    def __call__(self, images, train: bool = False):
        features = self.backbone(images, train)
        rows, columns = grid_of(features.patches.shape[1], images.shape[1:3])
        grid = rearrange(features.patches, "b (h w) d -> b h w d", h=rows)
        side = pooled_side(min(rows, columns), grid.shape[-1])
        for axis in (1, 2):
            grid = adaptive(grid, axis, side, POOLS[self.pool])
        return Features(rearrange(grid, "b h w d -> b (h w d)"), features.patches, features.registers)


def pooled_side(rows: int, width: int) -> int:
    """The side of the grid to which a map of `rows` positions or more a side, of `width` numbers, is pooled."""
    return max(1, min(rows, int((NUMBERS / width) ** 0.5)))


def adaptive(x, axis: int, side: int, pool):
    """`side` pools along an axis, as wide as it takes to cover it; where it doesn't divide, they overlap as torch's."""
    length = x.shape[axis]
    cells = [(i * length // side, -(-(i + 1) * length // side)) for i in range(side)]
    take = lambda first, last: pool(jnp.take(x, jnp.arange(first, last), axis), axis=axis)
    return jnp.stack([take(*cell) for cell in cells], axis)
