"""Which patches are hidden. Counts are fixed, so one compiled program serves every step.

A sampler gives every patch of a grid (h, w) a score, float32 (B, h * w); `split` keeps the lowest.
"""

import jax
import jax.numpy as jnp


def random_scores(rng, batch: int, grid: tuple[int, int]):
    """Uniform noise: every set of patches is as likely as any other (MAE, random_masking)."""
    return jax.random.uniform(rng, (batch, grid[0] * grid[1]))


def grid_scores(rng, batch: int, grid: tuple[int, int]):
    """What is kept forms a regular lattice: at 75 % one patch of every 2 x 2 (MAE, section 4.1 "grid-wise").

    Other ratios fill the lattice in the order of ordered dithering, which stays as even as it can. rng only breaks
    ties between patches of equal rank.
    """
    ys, xs = jnp.mgrid[: grid[0], : grid[1]].reshape(2, -1)
    rank = 0
    for bit in range(3):  # 8 x 8 dither matrix: bit-reversed interleaving of (x xor y) and y
        x, y = xs >> bit & 1, ys >> bit & 1
        rank = rank * 4 + 2 * (x ^ y) + y
    return rank + jax.random.uniform(rng, (batch, grid[0] * grid[1]))


def block_scores(rng, batch: int, grid: tuple[int, int], hidden: int, blocks: int = 24):
    """What is hidden is a union of rectangles laid one after another (BEiT, masking_generator.py).

    A patch's score falls with the order in which a rectangle first covered it, so hiding the `hidden` highest keeps
    whole early rectangles and trims the last: BEiT stops at a random count instead, which no static shape allows.
    """
    height, width = grid
    ys, xs = jnp.mgrid[:height, :width].reshape(2, -1, 1)

    def one(rng):
        area, aspect, top, left, tie = jax.random.split(rng, 5)
        # Small against what is hidden, so that several rectangles are needed.
        area = jax.random.uniform(area, (blocks,), minval=hidden / 8, maxval=hidden / 2)
        aspect = jnp.exp(jax.random.uniform(aspect, (blocks,), minval=jnp.log(0.3), maxval=-jnp.log(0.3)))
        tall = jnp.clip(jnp.round(jnp.sqrt(area * aspect)), 1, height)
        wide = jnp.clip(jnp.round(jnp.sqrt(area / aspect)), 1, width)
        y0 = jnp.floor(jax.random.uniform(top, (blocks,)) * (height - tall + 1))
        x0 = jnp.floor(jax.random.uniform(left, (blocks,)) * (width - wide + 1))
        inside = (ys >= y0) & (ys < y0 + tall) & (xs >= x0) & (xs < x0 + wide)  # (N, blocks)
        first = jnp.where(inside.any(-1), jnp.argmax(inside, -1), blocks)
        return jax.random.uniform(tie, (height * width,)) - first

    return jax.vmap(one)(jax.random.split(rng, batch))


def split(scores, keep: int):
    """The `keep` lowest scores of each row stay. scores (B, N).

    Returns keep int32 (B, keep); restore int32 (B, N), the place of each patch in [kept, hidden]; hidden float32
    (B, N), 1 where a patch is hidden.
    """
    order = jnp.argsort(scores, axis=-1)
    restore = jnp.argsort(order, axis=-1)
    return order[:, :keep], restore, (restore >= keep).astype(jnp.float32)
