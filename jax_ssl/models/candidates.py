"""A patch to be found among a fixed number of candidates, half of them of its own image where it has so many.

Among all patches of a batch the number would move with the batch; among these it does not. Letters: B images, Q queries
of an image, N patches of an image, row by row, D their width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

CANDIDATES = 128  # of each query, the right one included


class Candidates(NamedTuple):
    """Where the wrong ones are from; drawn from a key, so that everybody who is measured has the same."""

    right: jax.Array  # int32 (Q,), the patch that each query asks for
    own: jax.Array  # int32 (B, Q, O), other patches of the same image
    image: jax.Array  # int32 (B, R), other images, the same for all queries of an image, and
    place: jax.Array  # int32 (B, R), the patch there


def draw_candidates(rng, images: int, rows: int, columns: int, offset: int) -> Candidates:
    """Row r of a grid asks for row r + offset in its own column: Q = (rows - offset) columns queries an image.

    Half of the wrong ones are of the same image; where it has fewer, all of its others. Alone, an image has no more.
    """
    count, queries = rows * columns, (rows - offset) * columns
    own = min(CANDIDATES // 2 - 1, count - 1)
    own_key, image_key, place_key = jax.random.split(rng, 3)
    right = offset * columns + jnp.arange(queries)
    noise = jax.random.uniform(own_key, (images, queries, count))
    noise = jnp.where(jnp.arange(count) == right[:, None], -1.0, noise)
    rest = (CANDIDATES - 1 - own) if images > 1 else 0
    apart = jax.random.randint(image_key, (images, rest), 1, max(images, 2))
    return Candidates(
        right,
        jax.lax.top_k(noise, own)[1],
        (jnp.arange(images)[:, None] + apart) % images,
        jax.random.randint(place_key, (images, rest), 0, count),
    )


def score_candidates(score, queries, patches, drawn: Candidates, seen=None):
    """The score of each candidate of each query, (B, Q, C), the right one last.

    score(queries (B, Q, D), patches (B, K, D)) -> (B, Q, K). seen: bool (Q, N), patches of its own image that a query
    knows not to be the one.
    """
    near = score(queries, patches)
    near = near if seen is None else jnp.where(seen, -jnp.inf, near)
    right = jnp.broadcast_to(drawn.right[None, :, None], (*near.shape[:2], 1))
    own, right = (jnp.take_along_axis(near, index, axis=2) for index in (drawn.own, right))
    return jnp.concatenate([own, score(queries, patches[drawn.image, drawn.place]), right], axis=2)


def places_of(drawn: Candidates):
    """Image and patch of each candidate, int32 (B, Q, C) both, in the order of `score_candidates`."""
    images, queries = drawn.own.shape[:2]
    spread = lambda x: jnp.broadcast_to(x[:, None], (images, queries, x.shape[1]))
    itself = jnp.broadcast_to(jnp.arange(images)[:, None, None], drawn.own.shape)
    right = jnp.broadcast_to(drawn.right[None, :, None], (images, queries, 1))
    image = jnp.concatenate([itself, spread(drawn.image), spread(jnp.arange(images)[:, None])], axis=2)
    return image, jnp.concatenate([drawn.own, spread(drawn.place), right], axis=2)


def found(scores):
    """Share of the queries whose highest score is that of the right one; among equals it is not chosen."""
    return jnp.mean(jnp.argmax(scores, axis=2) == scores.shape[2] - 1)


def nearest_colour(squares, columns: int, drawn: Candidates):
    """Scores of a baseline without a network: the candidate that looks most like the last patch that is seen above.

    squares (B, N, h, w, C). Alike: mean colour and mean steepness down and across, in units of their spread. It is told
    which patches it has seen, which a network has to find out.
    """
    steep = lambda axis: jnp.abs(jnp.diff(squares, axis=axis)).mean((2, 3))
    looks = jnp.concatenate([squares.mean((2, 3)), steep(2), steep(3)], axis=-1)
    looks = looks / jnp.maximum(looks.std((0, 1)), 1e-6)
    queries = len(drawn.right)
    row = lambda places: jnp.arange(places) // columns
    seen = row(looks.shape[1]) <= row(queries)[:, None]
    alike = lambda q, p: -jnp.square(q[:, :, None] - p[:, None]).sum(-1)
    return score_candidates(alike, looks[:, :queries], looks, drawn, seen)
