"""Jigsaw: cut an image into 3 x 3 tiles, shuffle them, and ask which of a set of permutations it was.

Paper: Noroozi & Favaro 2016, https://arxiv.org/abs/1603.09246
Code:  https://github.com/MehdiNoroozi/JigsawPuzzleSolver; https://github.com/facebookresearch/vissl (ResNet-50);
       https://github.com/google/revisiting-self-supervised (several permutations of the tiles' vectors)
"""

import math

import jax
import jax.numpy as jnp

from jax_ssl import bounds
from jax_ssl.core import Method, Task, linear_baseline, one_view
from jax_ssl.errors import UserError
from jax_ssl.losses import label_cross_entropy
from jax_ssl.losses.diagnostics import feature_std
from jax_ssl.models import apply
from jax_ssl.models import input_stage as stages
from jax_ssl.models.permutations import TILES, permutation_set
from jax_ssl.models.puzzle import GRID, Solver, assemble, draw_answers, draw_tiles, put_back, shuffle
from jax_ssl.models.squares import without_green_magenta


def input_stage(backbone, *, cell=85, tile=64, standardised="channel", **_):
    """Features are the mean over the nine tiles of an image, as in revisiting-self-supervised."""
    bounds.whole("method.", dict(cell=cell, tile=tile))
    bounds.one_of("method.", dict(standardised=standardised), stages.STANDARDISED)
    return stages.Tiles(backbone, cell, tile, GRID, standardised)


def make(backbone, clock, *, permutations=1000, permutations_per_image=1, permutation_seed=0, cell=85, tile=64,
         standardised="channel", channel_drop=0.5, channel_offset=2, embedding=1024, hidden=4096, dropout=0.5,
         norm=False, whole_map=True) -> Method:  # fmt: skip
    """permutations: how many there are to choose from, found from permutation_seed; permutations_per_image: puzzles
    made of each image.

    cell, tile: sides in pixels of the view; what is between tiles is the gap. standardised: each `channel` of a tile
    has mean zero and spread one, or each `tile`, or `none`. channel_drop: share of the images without green against
    magenta; channel_offset: pixels by which each channel of a tile may move. embedding, hidden: widths of the head, for
    a tile and for nine; behind both dropout, and norm: batch norm. whole_map: the head reads all places of a tile's
    last map, or their mean.
    """
    stage = input_stage(backbone, cell=cell, tile=tile, standardised=standardised)
    bounds.whole("method.", dict(permutations_per_image=permutations_per_image, embedding=embedding, hidden=hidden))
    bounds.whole("method.", dict(permutation_seed=permutation_seed, channel_offset=channel_offset), at_least=0)
    bounds.bounded("method.", dict(channel_drop=channel_drop), at_least=0, at_most=1)
    bounds.bounded("method.", dict(dropout=dropout), at_least=0, below=1)
    most = math.factorial(TILES)
    bounds.whole("method.", dict(permutations=permutations), at_least=2)
    if permutations > most:
        raise UserError(f"method.permutations={permutations}: nine tiles have {most} permutations, take fewer.")
    answers = permutation_set(permutations, permutation_seed)
    orders = jnp.asarray(answers.rows, jnp.int32)
    net = Solver(backbone, permutations, embedding, hidden, dropout, norm, whole_map)
    prepared = lambda tiles: stages.standardise(tiles, standardised)

    def puzzles(rng, images, offset=0):
        """Tiles (B, 9, tile, tile, 3) in their right order, and which permutations they are to be given, (B, P)."""
        tiles, given = jax.random.split(rng)
        drawn = draw_tiles(tiles, images, cell, tile, offset)
        return drawn, draw_answers(given, len(images), permutations, permutations_per_image)

    def init(rng, batch):
        images = one_view(batch)
        stage.side(min(images.shape[1:3]))
        tiles, labels = puzzles(rng, images)
        params, stats = apply.init(net, rng, prepared(tiles), orders[labels])
        return params, {"stats": stats}

    def loss(params, state, batch, rng):
        colour, drawn, dropped = jax.random.split(rng, 3)
        images = without_green_magenta(colour, batch["views"][:, 0], channel_drop)
        tiles, labels = puzzles(drawn, images, channel_offset)
        stats = state.extra["stats"]
        (scores, pooled), stats = apply.train(net, params, stats, prepared(tiles), orders[labels], rng=dropped)
        metrics = {
            "uniform_loss": jnp.log(float(permutations)),
            "puzzles_right": jnp.mean(jnp.argmax(scores, -1) == labels),
            "feature_std": feature_std(pooled),
            "permutations_least_distance": jnp.float32(answers.least),
            "permutations_mean_distance": jnp.float32(answers.mean),
        }
        return label_cross_entropy(scores, labels), ({"stats": stats}, metrics)

    def answer(params, state, tiles, labels):
        """The permutation that the network takes for each of the puzzles: int32 (B, P)."""
        variables = {"params": params, **state.extra["stats"]}
        return jnp.argmax(net.apply(variables, prepared(tiles), orders[labels])[0], -1)

    def measure(params, state, batch, rng):
        tiles, labels = puzzles(rng, batch["views"][:, 0])
        return {"accuracy": jnp.mean(answer(params, state, tiles, labels) == labels)}

    def means(batch, rng):
        """The mean colours of the nine shuffled tiles of each puzzle, and the answers: (B P, 27) and int32 (B P,)."""
        tiles, labels = puzzles(rng, batch["views"][:, 0])
        return shuffle(tiles.mean((2, 3)), orders[labels]).reshape(labels.size, -1), labels.reshape(-1)

    def show(params, state, batch, rng):
        """Columns: the puzzle, the tiles where the network puts them, and where they belong."""
        images = batch["views"][:8, 0]
        tiles, labels = puzzles(rng, images)
        labels = labels[:, :1]
        said = answer(params, state, tiles, labels)[:, 0]
        puzzle = shuffle(tiles, orders[labels])[:, 0]
        page = lambda tiles: assemble(tiles, max(1, tile // 8), images.max())
        columns = [page(puzzle), page(put_back(puzzle, orders[said])), page(tiles)]
        return {"puzzles": jnp.stack(columns, axis=1), "right": said == labels[:, 0]}

    baselines = {"linear on tile means": linear_baseline(means, permutations)}
    protocol = dict(permutations=permutations, permutation_seed=permutation_seed, cell=cell)
    task = Task(measure, chance={"accuracy": 1 / permutations}, baselines=baselines, protocol=protocol)
    return Method(init, loss, show=show, per_image=True, task=task)
