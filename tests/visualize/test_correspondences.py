"""Patches find themselves in a shifted copy, and only what finds each other is matched."""

import numpy as np

from jax_ssl.losses import patchify
from jax_ssl.visualize import correspondences


def grid(features):
    return features.reshape(8, 8, -1)


def test_patches_find_themselves_in_a_shifted_copy():
    random = np.random.default_rng(0)
    wide = random.standard_normal((1, 32, 40, 3))  # the second image is two patches further right
    first, second = (grid(np.asarray(patchify(wide[:, :, x : x + 32], 4))) for x in (0, 8))
    everywhere = np.ones((8, 8), bool)
    places, cosine = correspondences.matches(first, second, everywhere, everywhere, 64)
    exact = cosine > 1 - 1e-6
    assert exact.sum() == 8 * 6 and exact[:48].all()
    np.testing.assert_array_equal(places[:48, 0] - places[:48, 1], np.tile([0, 2], (48, 1)))


def test_matches_are_mutual_best_first_and_inside():
    random = np.random.default_rng(1)
    first, second = random.standard_normal((2, 8, 8, 5))
    inside = random.uniform(size=(2, 8, 8)) < 0.5
    places, cosine = correspondences.matches(first, second, *inside, 7)
    assert places.shape == (7, 2, 2) and (np.diff(cosine) <= 0).all()
    a, b = (correspondences.unit(x) for x in (first, second))
    for (ours, theirs), similarity in zip(places, cosine):
        assert inside[0][tuple(ours)] and inside[1][tuple(theirs)]
        np.testing.assert_allclose(similarity, a[tuple(ours)] @ b[tuple(theirs)])
        assert (a[tuple(ours)] @ b[inside[1]].T).max() == (a[inside[0]] @ b[tuple(theirs)]).max()


def test_nothing_matches_nothing():
    nothing = np.zeros((4, 4), bool)
    places, cosine = correspondences.matches(np.ones((4, 4, 2)), np.ones((4, 4, 2)), nothing, ~nothing, 5)
    assert places.shape == (0, 2, 2) and cosine.shape == (0,)


def test_a_line_begins_and_ends_where_it_should():
    images = np.zeros((2, 32, 32, 3), np.uint8)
    page = correspondences.pair(images, np.array([[[0.25, 0.5], [0.75, 0.5]]]))
    side, between = correspondences.SIDE, correspondences.BETWEEN
    assert page.shape == (side, 2 * side + between, 3)
    ends = page[side // 4, side // 2], page[3 * side // 4, side + between + side // 2]
    np.testing.assert_allclose(*ends)
    assert ends[0].max() > 0.9 and not page[0].reshape(-1, 3)[: side // 2].any()
