"""The map of a network as one vector, its positions pooled to a coarser grid: a linear probe sees where things are.

Gidaris et al. 2018 (RotNet) and Goyal et al. 2019 (VISSL) probe each convolution of AlexNet and each stage of a ResNet
so, at about 9 600 numbers each.
"""

import functools

import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jax_ssl import encoder
from jax_ssl.encoder import Encoder
from jax_ssl.models.features import Features
from jax_ssl.views.sizes import Size, grid_of

NUMBERS = 9600  # at most: 12 x 12 of AlexNet's 64 channels, 7 x 7 of 192, 5 x 5 of 384, 6 x 6 of 256
POOLS = {"max": jnp.max, "mean": jnp.mean}
MEMORY = 2e9  # bytes of maps that are made in one pass


def passes(depths: int, images: int) -> list[range]:
    """Which depths, from 1, each pass over so many images makes the maps of."""
    each = max(1, int(MEMORY / (4 * NUMBERS * images)))
    return [range(first, min(first + each, depths + 1)) for first in range(1, depths + 1, each)]


def maps(encode: Encoder, images, depths: range, pool: str) -> list[np.ndarray]:
    """Pooled maps behind each of `depths`, float32 (N, side * side * D). images: uint8 (N, H, W, 3); pool: of POOLS."""
    each = encoder.at_depths(encode, depths, reader(encode.size, pool))
    made = encoder.outputs(each, encoder.in_batches(each, images), tuple)
    return [np.concatenate(of_depth) for of_depth in zip(*made, strict=True)]


@functools.cache
def reader(size: Size, pool: str):
    """`pooled_map` of images of that size: always the same function, so that its program is compiled once."""
    return functools.partial(pooled_map, size=size, pool=pool)


def pooled_map(features: Features, size: Size, pool: str):
    """The map as a vector, float32 (B, side * side * D), pooled to at most NUMBERS and to no more than it has."""
    rows, columns = grid_of(features.patches.shape[1], size)
    grid = rearrange(features.patches.astype(jnp.float32), "b (h w) d -> b h w d", h=rows)
    side = pooled_side(min(rows, columns), grid.shape[-1])
    for axis in (1, 2):
        grid = adaptive(grid, axis, side, POOLS[pool])
    return rearrange(grid, "b h w d -> b (h w d)")


def pooled_side(rows: int, width: int) -> int:
    """The side of the grid to which a map of `rows` positions or more a side, of `width` numbers, is pooled."""
    return max(1, min(rows, int((NUMBERS / width) ** 0.5)))


def adaptive(x, axis: int, side: int, pool):
    """`side` pools along an axis, as wide as it takes to cover it; where it doesn't divide, they overlap as torch's."""
    length = x.shape[axis]
    cells = [(i * length // side, -(-(i + 1) * length // side)) for i in range(side)]
    take = lambda first, last: pool(jnp.take(x, jnp.arange(first, last), axis), axis=axis)
    return jnp.stack([take(*cell) for cell in cells], axis)
