import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.models import candidates

ROWS, COLUMNS, OFFSET, IMAGES = 7, 7, 2, 12
DRAWN = candidates.draw_candidates(jax.random.key(0), IMAGES, ROWS, COLUMNS, OFFSET)


def test_candidates_are_128_half_of_the_own_image_and_the_right_one_comes_last():
    image, place = (np.asarray(x) for x in candidates.places_of(DRAWN))
    queries = (ROWS - OFFSET) * COLUMNS
    assert image.shape == place.shape == (IMAGES, queries, candidates.CANDIDATES)
    for own, query in np.ndindex(IMAGES, queries):
        right = query + OFFSET * COLUMNS
        assert (image[own, query, -1], place[own, query, -1]) == (own, right)
        near = image[own, query] == own
        others = place[own, query, near][:-1]
        assert near[:48].all() and not near[48:-1].any()  # 7 x 7 patches are 48 others and the right one
        assert right not in others and len(set(others)) == 48


def test_a_larger_grid_gives_half_of_the_wrong_ones():
    drawn = candidates.draw_candidates(jax.random.key(0), 2, 10, 10, 1)
    assert drawn.own.shape == (2, 90, 63) and drawn.image.shape == (2, 64)
    assert not np.any(drawn.own == np.asarray(drawn.right)[:, None])
    alone = candidates.draw_candidates(jax.random.key(0), 1, 3, 3, 1)
    assert alone.own.shape == (1, 6, 8) and alone.image.shape == (1, 0)


def test_what_knows_the_answer_finds_it_and_what_knows_nothing_does_not():
    product = lambda q, p: jnp.einsum("bqd,bkd->bqk", q, p)
    patches = jax.random.normal(jax.random.key(1), (IMAGES, ROWS * COLUMNS, 64))
    knows = candidates.score_candidates(product, patches[:, OFFSET * COLUMNS :], patches, DRAWN)
    assert candidates.found(knows) > 0.99
    noise = jax.random.normal(jax.random.key(2), (*knows.shape[:2], 64))
    assert candidates.found(candidates.score_candidates(product, noise, patches, DRAWN)) < 0.05
    assert candidates.found(jnp.zeros_like(knows)) == 0.0, "among equals the right one is not chosen"


def test_scores_are_those_of_the_patches_that_are_named():
    patches = jnp.arange(IMAGES * ROWS * COLUMNS, dtype=jnp.float32).reshape(IMAGES, -1, 1)
    same = lambda q, p: jnp.broadcast_to(p[:, None, :, 0], (*q.shape[:2], p.shape[1]))
    scores = candidates.score_candidates(same, patches[:, : len(DRAWN.right)], patches, DRAWN)
    image, place = candidates.places_of(DRAWN)
    np.testing.assert_array_equal(scores, image * ROWS * COLUMNS + place)


def test_the_baseline_takes_what_looks_like_the_last_seen_patch_and_nothing_it_has_seen():
    """Columns of one colour: below a patch, its own colour comes again."""
    colours = np.random.default_rng(0).random((IMAGES, 1, COLUMNS, 1, 1, 3)).repeat(ROWS, 1)
    squares = jnp.asarray(colours.reshape(IMAGES, -1, 1, 1, 3) * np.ones((8, 8, 1)), jnp.float32)
    scores = np.asarray(candidates.nearest_colour(squares, COLUMNS, DRAWN))
    image, place = (np.asarray(x) for x in candidates.places_of(DRAWN))
    own = image == np.arange(IMAGES)[:, None, None]
    seen = own & (place // COLUMNS <= (np.arange(scores.shape[1]) // COLUMNS)[:, None])
    assert np.all(np.isneginf(scores[seen])) and not np.isneginf(scores[~seen]).any()
    best = scores.argmax(-1)[..., None]
    taken = np.take_along_axis(place, best, 2)[..., 0]
    assert np.all(np.take_along_axis(own, best, 2)) and np.all(taken % COLUMNS == np.arange(scores.shape[1]) % COLUMNS)
