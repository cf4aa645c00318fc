"""Shapes of features against NumPy in double precision, and the invariances that they must have."""

import numpy as np
import pytest

from jax_ssl.errors import UserError
from jax_ssl.evaluate import representation
from jax_ssl.evaluate.case import Case, Side
from tests.evaluate.test_emergence import encoder


def features(count=200, width=16, seed=0):
    return np.random.RandomState(seed).randn(count, width).astype(np.float32)


def rotation(width, seed=0):
    return np.linalg.qr(np.random.RandomState(seed).randn(width, width))[0]


@pytest.mark.parametrize("count, width", [(200, 16), (20, 60)])
def test_spectrum_is_that_of_the_covariance(count, width):
    x = features(count, width) @ np.diag(np.logspace(0, -2, width)).astype(np.float32) + 5
    expected = np.linalg.eigvalsh(np.cov(x.astype(np.float64).T))[::-1][: min(count, width)]
    np.testing.assert_allclose(representation.spectrum(x), expected, rtol=1e-3, atol=1e-6)


def test_participation_by_hand():
    assert representation.participation([2, 2, 2, 0]) == pytest.approx(3)
    assert representation.participation([5, 0, 0]) == pytest.approx(1)
    assert representation.participation([3, 1]) == pytest.approx(16 / 10)


def test_decay_is_the_power_that_was_put_in():
    slope, quality = representation.decay(np.arange(1, 300) ** -1.3)
    assert slope == pytest.approx(1.3) and quality == pytest.approx(1)
    assert np.isnan(representation.decay(np.ones(5))).all()


def test_lidar_is_the_definition_and_counts_what_images_differ_in():
    random = np.random.RandomState(0)
    signal = np.zeros((40, 1, 10))
    signal[..., :3] = 5 * random.randn(40, 1, 3)
    views = signal + 0.1 * random.randn(40, 6, 10)
    means = views.mean(1)
    within = (views - means[:, None]).reshape(-1, 10)
    inner = within.T @ within / (40 * 5) + 1e-4 * np.eye(10)
    values, vectors = np.linalg.eigh(inner)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    values = np.linalg.eigvalsh(root @ np.cov(means.T) @ root)
    share = values / values.sum() + 1e-8
    expected = np.exp(-np.sum(share * np.log(share)))
    assert representation.lidar(views) == pytest.approx(expected, rel=1e-6)
    assert 2 < expected < 3.1
    wide = np.concatenate([views, np.zeros((40, 6, 50))], axis=2)  # wider than there are images
    assert representation.lidar(wide) == pytest.approx(expected, rel=1e-4)


def hsic(a, b):
    """Unbiased HSIC, Song et al. 2012, Eq. 5, as it is written."""
    a, b, n, one = a - np.diag(np.diag(a)), b - np.diag(np.diag(b)), len(a), np.ones(len(a))
    middle = (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
    return (np.trace(a @ b) + middle - 2 / (n - 2) * (one @ a @ b @ one)) / (n * (n - 3))


def test_cka_is_the_definition():
    x = features(60, 12).astype(np.float64)
    y = np.concatenate([x[:, :4] ** 2, features(60, 5, seed=1)], axis=1) + 3
    a, b = x @ x.T, y @ y.T
    expected = hsic(a, b) / np.sqrt(hsic(a, a) * hsic(b, b))
    assert representation.cka_table([x], [y])[0, 0] == pytest.approx(expected, abs=1e-5)
    halves = [(hsic(*(g[rows, rows] for g in pair))) for pair in ((a, b), (a, a), (b, b))
              for rows in (slice(0, 30), slice(30, 60))]  # fmt: skip
    cross, first, second = (sum(halves[2 * i : 2 * i + 2]) for i in range(3))
    found = representation.cka_table([x], [y, x], block=30)
    np.testing.assert_allclose(found, [[cross / np.sqrt(first * second), 1]], atol=1e-5)


def test_cka_does_not_see_rotation_scale_or_offset():
    x = features()
    turned = 7 * x @ rotation(16).astype(np.float32) + 100
    assert representation.cka_table([x], [turned])[0, 0] == pytest.approx(1, abs=1e-4)


def test_cka_of_unrelated_features_is_zero_also_where_they_are_wide():
    wide = [features(256, 512, seed) for seed in (0, 1)]
    assert abs(representation.cka_table(wide[:1], wide[1:])) < 0.02
    grams = [x @ x.T for x in wide]
    centred = [g - g.mean(0) - g.mean(1)[:, None] + g.mean() for g in grams]
    biased = np.sum(centred[0] * centred[1]) / np.sqrt(np.prod([np.sum(g * g) for g in centred]))
    assert biased > 0.5  # the biased one says they are alike


def test_measure_tells_all_and_does_not_see_rotation():
    x = features(300, 12) @ np.diag(np.linspace(1, 2, 12)).astype(np.float32)
    found = representation.shape(x)
    turned = representation.shape(x @ rotation(12).astype(np.float32))
    assert found == pytest.approx(turned, rel=1e-3, nan_ok=True)
    values = np.linalg.eigvalsh(np.cov(x.T))
    assert found["participation"] == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-3)
    assert found["rows"] == 300 and found["width"] == 12


def test_measure_of_views():
    views = np.repeat(features(30, 8)[:, None], 3, axis=1)
    found = representation.scores_of_views(views + 1e-3 * features(90, 8, seed=1).reshape(30, 3, 8))
    assert found["alignment"] < 1e-4 and found["lidar"] > 6


def test_what_has_no_shape_is_a_sentence():
    x = features(10)
    for call, match in [
        (lambda: representation.shape(np.ones((10, 4))), "same feature for all 10"),
        (lambda: representation.shape(x * np.nan), "not finite"),
        (lambda: representation.shape(x[:1]), "two images"),
        (lambda: representation.cka_table([x[:3]], [x[:3]]), "four at least"),
        (lambda: representation.cka_table([x], [x[:8]]), "of the same images"),
        (lambda: representation.scores_of_views(x[:, None]), "two views"),
    ]:
        with pytest.raises(UserError, match=match):
            call()


def test_the_ruler_measures_views_and_layers():
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (24, 16, 16, 3)).astype(np.uint8)
    network = encoder(depth=2)
    x = Case("student", None, None, encode=network).embed([images])
    sides = Side(x[:12], None, images[:12]), Side(x[12:], None, images[12:])
    found, protocol = representation.measure(Case("student", *sides, encode=network), 0, images=6, views=3)
    assert {"cka@1", "lidar", "rankme"} <= set(found) and "cka@2" not in found
    assert all(np.isfinite(value) for value in found.values()) and 1 <= found["lidar"] <= 6
    assert protocol["rows"] == 12 and protocol["width"] == 16
