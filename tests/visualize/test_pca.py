"""Principal components say the same of rotated features, and objects are told from what surrounds them."""

import numpy as np
import pytest

from jax_ssl.visualize import pca


def scene(noise=0.1, images=3, side=8, width=12, seed=0):
    """Features (B, h, w, D) of background with an object in the middle, whose left and right half differ."""
    random = np.random.default_rng(seed)
    kinds = random.standard_normal((3, width)) * [[1.0], [3.0], [3.0]]
    kinds[2] = kinds[1] + 0.3 * kinds[2]
    which = np.zeros((images, side, side), int)
    which[:, 2:6, 2:4], which[:, 2:6, 4:6] = 1, 2
    return kinds[which] + noise * random.standard_normal((images, side, side, width)), which


def rotation(width, seed=1):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0]


def test_a_rotation_of_the_features_changes_nothing():
    features, _ = scene()
    rotated = features @ rotation(features.shape[-1])
    inside = lambda f: pca.foreground(f)[0]
    for function in (lambda f: pca.components(f.reshape(-1, 12), 3), inside, lambda f: pca.colours(f, inside(f)),
                     lambda f: pca.subtract_position(f)[1]):  # fmt: skip
        np.testing.assert_allclose(function(rotated), function(features), atol=1e-8)


def test_the_components_are_those_of_the_covariance():
    features = np.random.default_rng(0).standard_normal((200, 6)) * [9, 5, 3, 1, 1, 1]
    scores = pca.components(features, 3)
    values, vectors = np.linalg.eigh(np.cov(features.T))
    expected = (features - features.mean(0)) @ vectors[:, ::-1][:, :3]
    np.testing.assert_allclose(np.abs(scores), np.abs(expected), atol=1e-9)
    assert ((scores**3).sum(0) >= 0).all()


def test_missing_components_are_zero():
    scores = pca.components(np.random.default_rng(0).standard_normal((2, 5)), 3)
    assert scores.shape == (2, 3) and np.allclose(scores[:, 2], 0)


@pytest.mark.parametrize("flip", [1, -1])
def test_the_object_is_what_keeps_away_from_the_border(flip):
    features, which = scene()
    inside, first = pca.foreground(flip * features)
    np.testing.assert_array_equal(inside, which > 0)
    assert first[which > 0].min() > first[which == 0].max()


def test_halves_of_an_object_get_colours_of_their_own_and_the_rest_none():
    features, which = scene()
    colours = pca.colours(features, which > 0)
    assert colours.shape == (*which.shape, 3) and colours.min() >= 0 and colours.max() <= 1
    assert not colours[which == 0].any() and colours[which > 0].min() >= pca.MIN_COLOUR
    left, right = colours[which == 1], colours[which == 2]
    assert np.abs(left.mean(0) - right.mean(0)).max() > 0.5


def test_the_threshold_parts_two_clumps():
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(0, 1, 300), random.normal(20, 1, 30)])
    assert 5 < pca.threshold(random.permutation(values)) < 17


def test_position_is_measured_and_subtracted_where_it_is_most():
    content = np.random.default_rng(0).standard_normal((8, 4, 4, 6))
    place = np.random.default_rng(1).standard_normal((1, 4, 4, 6))
    place = (place - place.mean()) / place.std()
    same, share = pca.subtract_position(content)
    assert share < 0.1 and same is content
    cleaned, share = pca.subtract_position(content + 3 * place)
    assert share == pytest.approx(0.9, abs=0.03)
    np.testing.assert_allclose(cleaned.mean(0), 0, atol=1e-9)
    assert pca.subtract_position(place)[1] == 0  # of one image, nobody can tell


def test_nothing_is_drawn_of_nothing():
    features = np.zeros((1, 4, 4, 3))
    inside, first = pca.foreground(features)
    assert np.isfinite(first).all()
    assert not pca.colours(features, np.zeros((1, 4, 4), bool)).any()
