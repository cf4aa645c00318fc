"""What a pretext method does to an image before its backbone: a part of the network that is read.

A network that was trained on grey images, tiles or patches is read on such: kNN, probes, fine-tuning and pictures get
the backbone with its stage around it. The parameters are those of the backbone alone, under the same names, so that
`params["backbone"]` fits with the stage and without.

A stage has `protocol`, what stands beside a number that was measured behind it, and `side(image_size)`, the side of
what the backbone gets.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from jax_ssl.errors import UserError
from jax_ssl.models.features import Features
from jax_ssl.models.lab import rgb_to_lab

STANDARDISED = dict(channel=(-3, -2), tile=(-3, -2, -1), none=())  # the axes of a tile that share a mean


def inner(name: str, default) -> property:
    """The attribute of that name which the backbone has, or else what it means to have none."""
    return property(lambda self: getattr(self.backbone, name, default))


def shortened(self, depth: int, variables: dict):
    """The stage around the first `depth` parts of its backbone, and their variables."""
    backbone, variables = self.backbone.shortened(depth, variables)
    return self.clone(backbone=backbone), variables


def share_names(self) -> None:
    """Gives the stage the parameters of its backbone under the same names: the `setup` of a stage."""
    nn.share_scope(self, self.backbone)


OF_EVERY_STAGE = inner("norm_groups", 1), inner("depths", 0), shortened, share_names


class Grey(nn.Module):
    """The backbone on lightness alone: colour images (B, H, W, 3) in [0, 1] -> one channel, (L - 50) / scale.

    scale: 1 in the released network of Zhang et al. 2016, 100 in their later code.
    """

    backbone: nn.Module
    scale: float = 100.0
    norm_groups, depths, shortened, setup = OF_EVERY_STAGE
    patch, stem, pool, heads, registers = map(
        inner, ("patch", "stem", "pool", "heads", "registers"), (1, "patch", "mean", 0, 0)
    )

    def __call__(self, images, train: bool = False, **tokens):
        return self.backbone((rgb_to_lab(images)[..., :1] - 50.0) / self.scale, train, **tokens)

    def side(self, image_size: int) -> int:
        return image_size

    @property
    def protocol(self) -> dict:
        return {"input": "grey"}


class Tiles(nn.Module):
    """The backbone on the grid x grid tiles of an image, one by one: pooled is their mean, patches are the tiles.

    tile: the side of one in pixels, in the middle of a cell of `cell` pixels; the cells are the middle of the image.
    standardised: a key of STANDARDISED, which numbers of a tile share a mean and a spread; `none` leaves them alone.
    """

    backbone: nn.Module
    cell: int
    tile: int
    grid: int = 3
    standardised: str = "channel"
    norm_groups, depths, shortened, setup = OF_EVERY_STAGE

    def __call__(self, images, train: bool = False):
        self.side(min(images.shape[1:3]))
        gap, starts = (self.cell - self.tile) // 2, [(x - self.grid * self.cell) // 2 for x in images.shape[1:3]]
        rows, columns = ([start + gap + i * self.cell for i in range(self.grid)] for start in starts)
        tiles = cut(images, rows, columns, self.tile)
        return each(self.backbone, standardise(tiles, self.standardised), train)

    def side(self, image_size: int) -> int:
        if not 0 < self.tile <= self.cell or self.grid * self.cell > image_size:
            raise UserError(
                f"{self.grid} x {self.grid} cells of {self.cell} pixels with tiles of {self.tile} can't be cut from "
                f"{image_size} pixels: take smaller ones, or larger images."
            )
        return self.tile

    @property
    def protocol(self) -> dict:
        return {"input": "tiles", "tiles": self.grid**2, "tile": self.tile, "standardised": self.standardised}


class Patches(nn.Module):
    """The backbone on patches that overlap, one by one: pooled is their mean, patches are they, row by row.

    square: the side of one, stride: from one to the next, both in pixels; what is left at the edges is left on both.
    (`patch` of a network is what the sides of an image must be multiples of, and here they need not.)
    """

    backbone: nn.Module
    square: int
    stride: int
    norm_groups, depths, shortened, setup = OF_EVERY_STAGE

    def __call__(self, images, train: bool = False):
        self.side(min(images.shape[1:3]))
        rows, columns = (self.starts(size) for size in images.shape[1:3])
        return each(self.backbone, cut(images, rows, columns, self.square), train)

    def starts(self, size: int) -> range:
        """The first pixel of each patch along an axis of `size` pixels."""
        count = (size - self.square) // self.stride + 1
        first = (size - self.square - (count - 1) * self.stride) // 2
        return range(first, first + count * self.stride, self.stride)

    def side(self, image_size: int) -> int:
        if not 0 < self.square <= image_size or self.stride < 1:
            raise UserError(
                f"Patches of {self.square} pixels, {self.stride} apart, can't be cut from {image_size} pixels: take "
                "smaller ones, or larger images."
            )
        return self.square

    @property
    def protocol(self) -> dict:
        return {"input": "patches", "patch": self.square, "stride": self.stride}


def cut(images, rows, columns, side: int):
    """Squares of `side` pixels that begin at each of rows x columns: (B, H, W, C) -> (B, N, side, side, C)."""
    return jnp.stack([images[:, y : y + side, x : x + side] for y in rows for x in columns], axis=1)


def standardise(tiles, by: str = "channel"):
    """Tiles less their mean, over their deviation (n - 1), or over 1 where that is 0: (..., h, w, C).

    by: `channel` of a tile, as in JigsawPuzzlePytorch, or the whole `tile`, which leaves it its colour, as in
    google/revisiting-self-supervised.
    """
    axes = STANDARDISED[by]
    if not axes:
        return tiles
    centred = tiles - tiles.mean(axes, keepdims=True)
    centred = centred - centred.mean(axes, keepdims=True)  # or what rounding left would be the spread of a flat tile
    count = math.prod(tiles.shape[axis] for axis in axes)
    variance = jnp.square(centred).sum(axes, keepdims=True) / (count - 1)
    return centred / jnp.sqrt(jnp.where(variance > 1e-12, variance, 1.0))


def each(backbone, squares, train: bool) -> Features:
    """The Features of images from those of their squares (B, N, h, w, C), all of a batch in one forward pass."""
    flat = backbone(rearrange(squares, "b n h w c -> (b n) h w c"), train).pooled
    patches = rearrange(flat, "(b n) d -> b n d", n=squares.shape[1])
    return Features(patches.mean(1), patches, jnp.zeros((len(patches), 0, patches.shape[-1]), jnp.float32))
