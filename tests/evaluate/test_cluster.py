"""k-means from a given start is scikit-learn's; scores of partitions are scikit-learn's and SciPy's."""

from itertools import permutations

import jax
import numpy as np
import pytest
from sklearn import metrics
from sklearn.cluster import KMeans

from jax_ssl.errors import UserError
from jax_ssl.evaluate import agreement, cluster
from jax_ssl.evaluate.case import Case, Side


def blobs(count=300, width=8, classes=4, spread=0.5, seed=0):
    random = np.random.RandomState(seed)
    centres = np.random.RandomState(9).randn(classes, width)
    labels = random.randint(0, classes, count)
    return (centres[labels] + spread * random.randn(count, width)).astype(np.float32), labels


def partitions(classes, clusters, count=200, seed=0):
    random = np.random.RandomState(seed)
    labels = random.randint(0, classes, count)
    guess = np.where(random.rand(count) < 0.5, labels % clusters, random.randint(0, clusters, count))
    return labels, guess


@pytest.mark.parametrize("classes, clusters", [(5, 5), (3, 17), (12, 4), (2, 190), (200, 200)])
def test_agreement_is_scikit_learns(classes, clusters):
    for seed in range(3):
        labels, guess = partitions(classes, clusters, seed=seed)
        table = agreement.contingency(labels, guess, (classes, clusters))
        counts = metrics.cluster.contingency_matrix(labels, guess)
        np.testing.assert_array_equal(table[table.any(1)][:, table.any(0)], counts)
        expected = metrics.normalized_mutual_info_score(labels, guess)
        assert agreement.normalised_mutual_information(table) == pytest.approx(expected, abs=1e-12)
        expected = metrics.adjusted_mutual_info_score(labels, guess)
        assert agreement.adjusted_mutual_information(table) == pytest.approx(expected, abs=1e-9)
        assert agreement.adjusted_rand(table) == pytest.approx(metrics.adjusted_rand_score(labels, guess), abs=1e-12)


def test_equal_partitions_agree_wholly_and_random_ones_by_chance():
    same = np.diag([3, 4, 5])[:, [1, 2, 0]]
    each_alone = np.eye(7, dtype=int)
    for score in ("normalised_mutual_information", "adjusted_mutual_information", "adjusted_rand"):
        assert getattr(agreement, score)(same) == pytest.approx(1)
        assert getattr(agreement, score)(each_alone) == pytest.approx(1)
    random = np.random.RandomState(0)
    table = agreement.contingency(random.randint(0, 10, 2000), random.randint(0, 200, 2000), (10, 200))
    assert agreement.normalised_mutual_information(table) > 0.1  # it rises with K
    assert abs(agreement.adjusted_mutual_information(table)) < 0.02


def test_parts_that_hold_most_images_overlap_at_least_so_much():
    labels, guess = [0, 0, 0, 1], [0, 0, 1, 0]  # two parts of three of four images share at least two
    table = agreement.contingency(np.array(labels), np.array(guess), (2, 2))
    expected = metrics.adjusted_mutual_info_score(labels, guess)
    assert agreement.adjusted_mutual_information(table) == pytest.approx(expected, abs=1e-9)


def test_classes_of_clusters_by_hand():
    table = np.array([[5, 4, 0, 0], [0, 3, 2, 0]])
    np.testing.assert_array_equal(agreement.majority(table), [0, 0, 1, -1])
    np.testing.assert_array_equal(agreement.one_to_one(table), [0, 1, -1, -1])
    assert agreement.accuracy(table, agreement.majority(table)) == 11 / 14
    assert agreement.accuracy(table, agreement.one_to_one(table)) == 8 / 14


def test_one_to_one_tries_all():
    table = np.random.RandomState(0).randint(0, 20, (4, 4))
    best = max(sum(table[row, column] for row, column in enumerate(order)) for order in permutations(range(4)))
    assert agreement.accuracy(table, agreement.one_to_one(table)) == best / table.sum()


def inertia(x, centres) -> float:
    """The sum of the squared distances to the nearest centres."""
    return float(np.square(x[:, None] - centres).sum(-1).min(1).sum())


@pytest.mark.parametrize("seed", [0, 1])
def test_lloyd_from_the_same_start_is_scikit_learns(seed):
    x, _ = blobs(spread=2.0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    start = x[np.random.RandomState(seed).permutation(300)[:6]]
    oracle = KMeans(6, init=start, n_init=1, tol=0, max_iter=100, algorithm="lloyd").fit(x)
    found = jax.jit(cluster.lloyd)(x, start)
    np.testing.assert_array_equal(cluster.assign(x, found), oracle.labels_)
    np.testing.assert_allclose(found, oracle.cluster_centers_, atol=1e-5)
    assert inertia(x, found) == pytest.approx(oracle.inertia_, rel=1e-5)


def test_an_empty_cluster_gets_the_farthest_row_as_in_scikit_learn():
    x, _ = blobs(spread=2.0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    start = np.concatenate([x[:4], np.full((2, 8), 9.0, np.float32)])  # nothing is near the last two
    oracle = KMeans(6, init=start, n_init=1, tol=0, max_iter=100, algorithm="lloyd").fit(x)
    found = jax.jit(cluster.lloyd)(x, start)
    np.testing.assert_array_equal(cluster.assign(x, found), oracle.labels_)


def test_blocks_of_rows_do_not_matter(monkeypatch):
    x, _ = blobs(spread=2.0)
    start = x[:5]
    whole = cluster.lloyd(x, start)
    monkeypatch.setattr(cluster, "BLOCK", 64)  # 300 is no multiple
    parts = cluster.lloyd(x, start)
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_first_centres_are_rows_far_from_each_other():
    x, labels = blobs(spread=0.05)
    choose = jax.vmap(lambda key: cluster.first_centres(jax.numpy.asarray(x), 4, key))
    drawn = choose(jax.random.split(jax.random.key(0), 20))
    for centres in np.asarray(drawn):
        rows = [int(np.flatnonzero((x == centre).all(1))[0]) for centre in centres]
        assert sorted(labels[rows]) == [0, 1, 2, 3]  # one of each blob: at random, 1 in 10


def test_one_and_eight_devices_give_the_same():
    x, _ = blobs(spread=2.0)
    one, eight = (cluster.fit(x, 5, starts=4, devices=jax.devices()[:count]) for count in (1, 8))
    np.testing.assert_array_equal(one, eight)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert len({round(inertia(x, centres), 3) for centres in one}) > 1  # starts differ


def test_separate_blobs_are_found_also_with_more_clusters_than_classes():
    (x, labels), (y, test_labels) = blobs(spread=0.1), blobs(100, spread=0.1, seed=1)
    found = cluster.scores(x, 7 + labels, y, 7 + test_labels, starts=3)
    assert found["nmi"] == found["ari"] == found["one_to_one"] == found["majority"] == 1 and found["ami_std"] == 0
    many = cluster.scores(x, labels, y, test_labels, clusters=12, starts=3)
    assert many["majority"] == 1 and many["one_to_one"] < 0.9 and many["ari"] < 0.9


def test_what_cannot_be_clustered_is_a_sentence():
    x, labels = blobs(20)
    for features, classes, options, match in [
        (x, labels, dict(clusters=21), "21 clusters of 20"),
        (x, 0 * labels, {}, "one class"),
        (np.ones_like(x), labels, {}, "same feature for all 20"),
        (x * np.nan, labels, {}, "not finite"),
    ]:
        with pytest.raises(UserError, match=match):
            cluster.scores(features, classes, x, labels, **options)
    with pytest.raises(UserError, match="5 test images"):
        cluster.scores(x, labels, x[:5], np.full(5, 99))


def test_the_ruler_gives_each_number_of_clusters():
    (x, labels), (y, test_labels) = blobs(60, spread=0.1), blobs(40, spread=0.1, seed=1)
    case = Case("student", Side(x, labels), Side(y, test_labels), classes=4)
    found, protocol = cluster.measure(case, 0, clusters=(0, 8), starts=2)
    assert found["majority"] == 1 and "nmi@8" in found and set(cluster.SHOWN) <= set(found)
    assert protocol["clusters"] == ["classes", 8] and protocol["starts"] == 2
