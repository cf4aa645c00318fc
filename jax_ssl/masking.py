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


def block_scores(rng, batch: int, grid: tuple[int, int], hidden, blocks: int = 24):
    """What is hidden is a union of rectangles laid one after another (BEiT, masking_generator.py).

    A patch's score falls with the order in which a rectangle first covered it, so hiding the `hidden` highest keeps
    whole early rectangles and trims the last: BEiT stops at a random count instead, which no static shape allows.
    hidden: how many patches, for all images or (B,) for each.
    """
    height, width = grid
    ys, xs = jnp.mgrid[:height, :width].reshape(2, -1, 1)

    def one(rng, hidden):
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

    return jax.vmap(one)(jax.random.split(rng, batch), jnp.broadcast_to(hidden, (batch,)))


def hide(scores, count):
    """The `count` highest scores of each row, scores (B, N) and count (B,) int -> (B, N) bool, True = hidden."""
    rank = jnp.argsort(jnp.argsort(-scores, axis=-1), axis=-1)
    return rank < count[:, None]


def hidden_places(mask, most: int):
    """Where the hidden patches are, in a fixed number of places. mask (..., N) bool.

    Returns index int32 (..., most) and weight float32 (..., most): one over the number of hidden patches of that image
    at each of them, zero at the places that are left over.
    """
    index = jnp.argsort(~mask, axis=-1, stable=True)[..., :most]
    count = jnp.maximum(mask.sum(-1, keepdims=True), 1)
    return index, jnp.take_along_axis(mask, index, axis=-1) / count.astype(jnp.float32)


def mixed_ratios(rng, batch: int, ratios, spread):
    """A share to hide for each image: one of `ratios` by chance, plus or minus its `spread`: (B,) (iBOT, loader.py)."""
    which, where = jax.random.split(rng)
    chosen = jax.random.randint(which, (batch,), 0, len(ratios))
    middle, around = jnp.asarray(ratios)[chosen], jnp.asarray(spread)[chosen]
    return middle + around * jax.random.uniform(where, (batch,), minval=-1.0)


def stratified_ratios(rng, batch: int, share: float, least: float, most: float):
    """A share to hide for each image: none, but for int(share * B) images, which cover [least, most] evenly. -> (B,).

    DINOv2, data/collate.py: as many bins as images that are masked, one image in each, then shuffled.
    """
    masked = int(batch * share)
    within, order = jax.random.split(rng)
    edges = least + (most - least) * (jnp.arange(masked) + jax.random.uniform(within, (masked,))) / max(masked, 1)
    return jax.random.permutation(order, jnp.concatenate([edges, jnp.zeros(batch - masked)]))


def split(scores, keep: int):
    """The `keep` lowest scores of each row stay. scores (B, N).

    Returns keep int32 (B, keep); restore int32 (B, N), the place of each patch in [kept, hidden]; hidden float32
    (B, N), 1 where a patch is hidden.
    """
    order = jnp.argsort(scores, axis=-1)
    restore = jnp.argsort(order, axis=-1)
    return order[:, :keep], restore, (restore >= keep).astype(jnp.float32)


def cover(images, mask, patch: int):
    """Images with their hidden patches black, for a picture. images (..., H, W, 3) normalised, mask (..., N) bool."""
    rows, columns = images.shape[-3] // patch, images.shape[-2] // patch
    mask = mask.reshape(*mask.shape[:-1], rows, columns)
    mask = jnp.repeat(jnp.repeat(mask, patch, axis=-2), patch, axis=-1)
    return jnp.where(mask[..., None], -2.2, images)  # about black in every normalisation of the configs
