import numpy as np
import pytest

from jax_ssl.study.report import project


def blobs(seed=0, each=20, width=6):
    """Features of three well separated groups, float32 (3 * each, width), and their groups."""
    random = np.random.RandomState(seed)
    groups = np.repeat(np.arange(3), each)
    return (np.eye(width)[groups] * 4 + random.randn(3 * each, width) * 0.3).astype(np.float32), groups


@pytest.mark.parametrize("library", ["", "openTSNE", "sklearn"])
def test_the_same_features_give_the_same_plane_with_groups_apart(library):
    if library:
        pytest.importorskip(library)
    x, groups = blobs()
    first, again = (project.plane(x, 0, library) for _ in range(2))
    np.testing.assert_array_equal(first.points, again.points)
    assert first.points.min() >= 0 and first.points.max() <= 1
    assert np.ptp(first.points, axis=0).max() == pytest.approx(1)
    own = np.stack([first.points[groups == g].mean(0) for g in range(3)])
    away = np.linalg.norm(first.points[:, None] - own, axis=-1)
    assert (away.argmin(1) == groups).all() and first.trust > 0.8
    assert ("principal" in first.method) and ("t-SNE" in first.method) == bool(library)


def test_trustworthiness_is_that_of_scikit_learn():
    manifold = pytest.importorskip("sklearn.manifold")
    x, _ = blobs(1)
    x = x.astype(np.float64)
    for points in (x[:, :2], np.random.RandomState(3).randn(len(x), 2)):
        expected = manifold.trustworthiness(x, points, n_neighbors=project.NEAR)
        assert project.trustworthiness(x, points) == pytest.approx(expected, abs=1e-9)


def test_a_collapsed_network_has_a_plane_without_noise():
    made = project.plane(np.ones((40, 5)) + 1e-9 * blobs()[0][:40, :5])
    assert made.method == "the first two principal components" and np.isfinite(made.points).all()


def test_few_images_have_a_plane_too():
    assert project.plane(np.eye(2, 5)).points.shape == (2, 2)
    assert np.isnan(project.plane(np.eye(3, 5)).trust)
