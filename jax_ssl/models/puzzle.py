"""A jigsaw puzzle of 3 x 3 tiles, and the context-free network that tells in which order its tiles lie.

Paper: Noroozi & Favaro 2016, https://arxiv.org/abs/1603.09246, Sec. 3.2 and Fig. 3
Code:  https://github.com/MehdiNoroozi/JigsawPuzzleSolver, train_val_cfn_jps.prototxt, data_transformer.cpp
       https://github.com/google/revisiting-self-supervised, self_supervision/jigsaw.py (embeddings are permuted)
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jax_ssl.models.norm import BatchNorm
from jax_ssl.models.permutations import TILES
from jax_ssl.models.squares import cut_at

GRID = 3


def draw_tiles(rng, images, cell: int, tile: int, channel_offset: int = 0):
    """Nine tiles of each image, row by row, each at a random place in its cell: (B, H, W, C) -> (B, 9, tile, tile, C).

    The 3 x 3 cells of `cell` pixels lie at a random place of the image, which has to hold them. channel_offset: each
    channel of a tile is moved by up to so many pixels more, down and to the right, against chromatic aberration; as in
    the official code a tile may leave its cell by that, but never the image.
    """
    batch, *sides, channels = images.shape
    room = jnp.array(sides) - GRID * cell
    window, jitter, offset = jax.random.split(rng, 3)
    corner = jax.random.randint(window, (batch, 1, 2), 0, room + 1)
    cells = cell * jnp.stack(jnp.divmod(jnp.arange(TILES), GRID), axis=-1)
    place = corner + cells + jax.random.randint(jitter, (batch, TILES, 2), 0, cell - tile + 1)
    if not channel_offset:
        return cut_at(images, place[..., 0], place[..., 1], tile)
    moved = place[..., None, :] + jax.random.randint(offset, (batch, TILES, channels, 2), 0, channel_offset + 1)
    moved = jnp.minimum(moved, jnp.array(sides) - tile)
    each = [cut_at(images[..., c : c + 1], *jnp.moveaxis(moved[:, :, c], -1, 0), tile) for c in range(channels)]
    return jnp.concatenate(each, axis=-1)


def draw_answers(rng, batch: int, permutations: int, count: int):
    """Which of the permutations each image is given: int32 (B, count), different ones while there are enough."""
    if count > permutations:
        return jax.random.randint(rng, (batch, count), 0, permutations)
    return jnp.argsort(jax.random.uniform(rng, (batch, permutations)), axis=1)[:, :count].astype(jnp.int32)


def shuffle(tiles, order):
    """Tiles, or what was made of them, in other orders: (B, 9, ...), int (B, P, 9) -> (B, P, 9, ...).

    Place t of the result has tile order[t].
    """
    return jax.vmap(lambda tiles, order: tiles[order])(tiles, order)


def put_back(shuffled, order):
    """Undoes `shuffle` of one order an image: (B, 9, ...), int (B, 9) -> (B, 9, ...)."""
    return jax.vmap(lambda tiles, order: tiles[jnp.argsort(order)])(shuffled, order)


def assemble(tiles, gap: int, fill: float):
    """Tiles as a picture, `gap` pixels apart: (B, 9, h, w, C) -> (B, 3 h + 2 gap, 3 w + 2 gap, C)."""
    padded = jnp.pad(tiles, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=fill)
    page = rearrange(padded, "b (r c) h w d -> b (r h) (c w) d", r=GRID)
    return page[:, : page.shape[1] - gap, : page.shape[2] - gap]


class Solver(nn.Module):
    """Tiles (B, 9, h, w, C), orders int (B, P, 9) -> scores of all permutations (B, P, permutations), vectors (9 B, D).

    The backbone sees one tile at a time, and each once: the orders are those of its vectors, so that several puzzles of
    an image cost little more than one. norm: batch norm behind the two hidden layers (VISSL), or none (the paper).
    whole_map: a tile's vector is made of all places of the backbone's last map (the paper), or of their mean.
    """

    backbone: nn.Module
    permutations: int
    embedding: int
    hidden: int
    dropout: float
    norm: bool
    whole_map: bool = False

    @nn.compact
    def __call__(self, tiles, orders, train: bool = False):
        groups = getattr(self.backbone, "norm_groups", 1)

        def layer(x, width, name):
            x = nn.Dense(width, use_bias=not self.norm, dtype=self.backbone.dtype, name=name)(x)
            if self.norm:
                x = BatchNorm(groups=groups, name=f"{name}_norm")(x, train)
            # "drop_path" is the one stream of random numbers that networks have in training.
            return nn.Dropout(self.dropout, rng_collection="drop_path", deterministic=not train)(nn.relu(x))

        seen = self.backbone(rearrange(tiles, "b n h w c -> (b n) h w c"), train)
        read = rearrange(seen.patches, "b p d -> b (p d)") if self.whole_map else seen.pooled
        vectors = layer(rearrange(read, "(b n) d -> b n d", n=TILES), self.embedding, "embed")
        puzzles = rearrange(shuffle(vectors, orders), "b p n d -> b p (n d)")
        compared = layer(puzzles, self.hidden, "compare")
        scores = nn.Dense(self.permutations, dtype=self.backbone.dtype, name="answer")(compared)
        return scores.astype(jnp.float32), seen.pooled
