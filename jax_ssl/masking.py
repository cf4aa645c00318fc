"""Masks: which patches of an image are hidden. Their number is fixed, so one compiled program serves every step.

The functions `*_scores` give every patch of a grid (h, w) a score, float32 (B, h * w). `split` keeps the patches with
the lowest scores visible.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.errors import UserError


def random_scores(rng, batch: int, grid: tuple[int, int]):
    """Uniform noise: every set of patches is as likely as any other (MAE, random_masking)."""
    return jax.random.uniform(rng, (batch, grid[0] * grid[1]))


def grid_scores(rng, batch: int, grid: tuple[int, int]):
    """Visible patches form a regular grid: at 75 % hidden, one of every 2 x 2 (MAE, section 4.1, "grid-wise").

    For other ratios, patches are added in the order of an ordered dither, which spreads them evenly. rng only breaks
    ties between patches of equal rank.
    """
    ys, xs = jnp.mgrid[: grid[0], : grid[1]].reshape(2, -1)
    rank = 0
    for bit in range(3):  # 8 x 8 dither matrix: bit-reversed interleaving of (x xor y) and y
        x, y = xs >> bit & 1, ys >> bit & 1
        rank = rank * 4 + 2 * (x ^ y) + y
    return rank + jax.random.uniform(rng, (batch, grid[0] * grid[1]))


def block_scores(rng, batch: int, grid: tuple[int, int], hidden, blocks: int = 24, smallest: int = 0):
    """Hidden patches are a union of random rectangles (BEiT, masking_generator.py).

    Rectangles are drawn one after another; patches of earlier ones have higher scores. The `hidden` highest scores are
    then all of the first rectangles and a part of the last one. BEiT stops at a random number of patches instead, which
    a static shape does not allow.
    hidden: how many patches, one number or int (B,). smallest: the least area of a rectangle in patches, which may
    then be as large as `hidden` (iBOT, DINOv2); with 0 a rectangle has an eighth to a half of `hidden` (BEiT).
    """
    height, width = grid
    ys, xs = jnp.mgrid[:height, :width].reshape(2, -1, 1)

    def one(rng, hidden):
        area, aspect, top, left, tie = jax.random.split(rng, 5)
        least, most = (smallest, jnp.maximum(hidden, smallest)) if smallest else (hidden / 8, hidden / 2)
        area = jax.random.uniform(area, (blocks,), minval=least, maxval=most)
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


def check_hidden(hidden: int, grid: tuple[int, int], key: str) -> None:
    """Raises a UserError unless some patches of a grid are hidden and some visible. key: the config key to name."""
    if not 0 < hidden < grid[0] * grid[1]:
        raise UserError(
            f"{key} hides {hidden} of the {grid[0]} x {grid[1]} patches of an image: take another ratio, smaller "
            "patches, or a larger size in data.crops."
        )


def hidden_places(mask, most: int):
    """The positions of the hidden patches, padded to `most`. mask (..., N) bool, True = hidden.

    Returns index int32 (..., most) and weight float32 (..., most): one over the number of hidden patches of that image,
    and zero at the padding.
    """
    index = jnp.argsort(~mask, axis=-1, stable=True)[..., :most]
    count = jnp.maximum(mask.sum(-1, keepdims=True), 1)
    return index, jnp.take_along_axis(mask, index, axis=-1) / count.astype(jnp.float32)


def mixed_ratios(rng, batch: int, ratios, spread):
    """The share to hide of each image, (B,): one of `ratios` at random, plus or minus `spread` (iBOT, loader.py)."""
    which, where = jax.random.split(rng)
    chosen = jax.random.randint(which, (batch,), 0, len(ratios))
    middle, around = jnp.asarray(ratios)[chosen], jnp.asarray(spread)[chosen]
    return middle + around * jax.random.uniform(where, (batch,), minval=-1.0)


def stratified_ratios(rng, batch: int, share: float, least: float, most: float):
    """The share to hide of each image, (B,): values spread over [least, most] for int(share * B), zero for the others.

    DINOv2, data/collate.py: [least, most] is cut into as many bins as there are masked images; each bin gives one
    value, and the values are shuffled.
    """
    masked = int(batch * share)
    within, order = jax.random.split(rng)
    edges = least + (most - least) * (jnp.arange(masked) + jax.random.uniform(within, (masked,))) / max(masked, 1)
    return jax.random.permutation(order, jnp.concatenate([edges, jnp.zeros(batch - masked)]))


def cell_scores(rng, batch: int, grid: tuple[int, int], cell: int):
    """Squares of `cell` x `cell` patches are hidden as a whole (SimMIM, data/data_simmim.py, MaskGenerator).

    grid: a multiple of `cell` along both axes; hide a multiple of cell^2 patches.
    """
    rows, columns = grid[0] // cell, grid[1] // cell
    noise = jax.random.uniform(rng, (batch, rows, columns))
    return noise.repeat(cell, axis=1).repeat(cell, axis=2).reshape(batch, -1)


def split(scores, keep: int):
    """Splits patches into visible ones, the `keep` lowest scores of each row, and hidden ones. scores (B, N).

    Returns the indices of visible patches, int32 (B, keep); restore, int32 (B, N): the position of each patch in the
    order [visible, hidden]; hidden, float32 (B, N): 1 where a patch is hidden.
    """
    order = jnp.argsort(scores, axis=-1)
    restore = jnp.argsort(order, axis=-1)
    return order[:, :keep], restore, (restore >= keep).astype(jnp.float32)


def cover(images, mask, patch: int):
    """The images with hidden patches black, for a picture. images (..., H, W, 3) normalised, mask (..., N) bool."""
    rows, columns = images.shape[-3] // patch, images.shape[-2] // patch
    mask = mask.reshape(*mask.shape[:-1], rows, columns)
    mask = jnp.repeat(jnp.repeat(mask, patch, axis=-2), patch, axis=-1)
    return jnp.where(mask[..., None], -2.2, images)  # about black in every normalisation of the configs


def block_size(share, ratio, grid: tuple[int, int], xp=jnp):
    """(height, width) in patches, int32, of a block that covers `share` of the grid. ratio: height / width."""
    area = xp.floor(grid[0] * grid[1] * share)
    side = lambda square, most: xp.clip(xp.round(xp.sqrt(square)), 1, most - 1).astype("int32")
    return side(area * ratio, grid[0]), side(area / ratio, grid[1])


def _corners(rng, shape, size, grid):
    """Random positions of blocks: tops and lefts, int32 of `shape`. The last position is never drawn, as officially."""
    keys = jax.random.split(rng)
    draw = lambda key, room: jnp.floor(jax.random.uniform(key, shape) * jnp.maximum(room, 1)).astype(jnp.int32)
    return draw(keys[0], grid[0] - size[0]), draw(keys[1], grid[1] - size[1])


def multi_block(rng, batch: int, grid: tuple[int, int], targets: int, target_share, target_ratio, context_share, kept):
    """Blocks to predict, and patches around them to predict from (I-JEPA, src/masks/multiblock.py).

    target_share, target_ratio, context_share: (least, most). Sizes are drawn once for the batch, with one random number
    for both share and ratio of the targets; positions are drawn for each image. targets: M, blocks per image.
    kept: the number of context patches, which is fixed. They are drawn from those in the context block and in no target
    (officially: the first ones, as many as every image of the batch has). If an image has fewer, patches outside of the
    block are added, and if all of those are targets, some patches are repeated.
    Returns context int32 (B, kept), target int32 (B, M, T) with T the size of the largest possible block, and
    target_weight float32 (T,): 1, and 0 at the padding.
    """
    height, width = grid
    size_key, size_key_2, target_key, context_key, order_key = jax.random.split(rng, 5)
    between = lambda bounds, part: bounds[0] + (bounds[1] - bounds[0]) * part
    part = jax.random.uniform(size_key)
    size = block_size(between(target_share, part), between(target_ratio, part), grid)
    most = largest_block(target_share, target_ratio, grid)
    place = jnp.arange(most)
    down, right = jnp.minimum(place // size[1], size[0] - 1), place % size[1]
    top, left = _corners(target_key, (batch, targets), size, grid)
    target = (top[..., None] + down) * width + left[..., None] + right

    outer = block_size(between(context_share, jax.random.uniform(size_key_2)), 1.0, grid)
    top, left = _corners(context_key, (batch, 1), outer, grid)
    ys, xs = jnp.mgrid[:height, :width].reshape(2, -1)
    inside = (ys >= top) & (ys < top + outer[0]) & (xs >= left) & (xs < left + outer[1])  # (B, N)
    is_target = jnp.zeros((batch, height * width), bool)
    is_target = jax.vmap(lambda row, at: row.at[at.reshape(-1)].set(True))(is_target, target)
    score = jax.random.uniform(order_key, is_target.shape) + jnp.where(inside, 0, 1) + jnp.where(is_target, 2, 0)
    order = jnp.argsort(score, axis=-1)
    free = jnp.maximum((~is_target).sum(-1, keepdims=True), 1)
    context = jnp.take_along_axis(order, jnp.arange(kept) % free, axis=-1)
    return context, target, (place < size[0] * size[1]).astype(jnp.float32)


def largest_block(share, ratio, grid: tuple[int, int]) -> int:
    """The number of patches of the largest block that `multi_block` can draw. It is a shape, so NumPy computes it."""
    part = np.linspace(0.0, 1.0, 1001, dtype=np.float32)
    size = block_size(share[0] + (share[1] - share[0]) * part, ratio[0] + (ratio[1] - ratio[0]) * part, grid, np)
    return int(np.max(size[0] * size[1]))
