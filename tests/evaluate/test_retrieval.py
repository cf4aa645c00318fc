"""Average precisions against scikit-learn and the official trapezoid; rankings against the definition."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from jax_ssl.errors import UserError
from jax_ssl.evaluate import copies, retrieval
from jax_ssl.evaluate.case import Case, Side


def data(count=90, width=8, classes=6, seed=0):
    random = np.random.RandomState(seed)
    labels = random.randint(0, classes, count)
    centres = np.random.RandomState(9).randn(classes, width)
    return (centres[labels] + random.randn(count, width)).astype(np.float32), labels


def similarities(queries, gallery):
    long = lambda x: x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return long(queries) @ long(gallery).T


@pytest.mark.parametrize("alone", [True, False])
def test_measure_is_the_definition(alone, monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK", 32)  # 90 is no multiple
    (gallery, labels), (queries, query_labels) = data(), data(40, seed=1)
    if alone:
        queries, query_labels = gallery, labels
    expected = {name: [] for name in ("map", "recall_at_1", "recall_at_5", "r_precision")}
    for place, scores in enumerate(similarities(queries, gallery)):
        others = np.delete(np.arange(len(labels)), place) if alone else np.arange(len(labels))
        relevant, scores = labels[others] == query_labels[place], scores[others]
        ranked = relevant[np.argsort(-scores)]
        expected["map"].append(average_precision_score(relevant, scores))
        expected["recall_at_1"].append(ranked[0])
        expected["recall_at_5"].append(ranked[:5].any())
        expected["r_precision"].append(ranked[: relevant.sum()].mean())
    found = retrieval.scores(gallery, labels, *(() if alone else (queries, query_labels)))
    for name, values in expected.items():
        assert found[name] == pytest.approx(np.mean(values), abs=1e-9), name
    assert found["queries"] == len(queries) and found["map_at_r"] < found["r_precision"]


def test_queries_without_a_relevant_image_leave_the_means():
    gallery, labels = data(20, classes=3)
    labels[0] = 99
    kept = retrieval.scores(gallery, labels)
    assert kept["queries"] == 19
    hits = labels[retrieval.ranking(gallery, gallery, np.arange(20))] == labels[:, None]
    assert not hits[0].any()
    assert kept["recall_at_1"] == hits[1:, 0].mean()


def test_map_at_r_by_hand():
    found = retrieval.per_query(np.array([[1, 0, 1, 1, 0]]), ks=(2,))
    assert found["relevant"] == 3 and found["r_precision"] == 2 / 3
    assert found["map_at_r"] == pytest.approx((1 + 2 / 3) / 3)
    assert found["map"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_trapezoids_are_those_of_revisited_oxford():
    def official(ranks, count):  # revisitop, python/evaluate.py, compute_ap
        area = 0.0
        for j, rank in enumerate(ranks):
            before = 1.0 if rank == 0 else j / rank
            area += (before + (j + 1) / (rank + 1)) / (2 * count)
        return area

    random = np.random.RandomState(0)
    for _ in range(20):
        hits, junk = random.rand(30) < 0.2, random.rand(30) < 0.2
        hits[3] = True
        junk &= ~hits
        ranks = np.flatnonzero(hits)
        shifted = [rank - junk[:rank].sum() for rank in ranks]  # junk moves what comes after it up
        assert retrieval.trapezoid_precision(hits, junk) == pytest.approx(official(shifted, len(ranks)))
    assert retrieval.trapezoid_precision([False, True]) == pytest.approx(0.25)  # by steps it is 0.5
    assert np.isnan(retrieval.trapezoid_precision([False, False]))


def test_precision_at_k_is_divided_by_the_last_relevant_rank():
    hits = np.array([1, 0, 1, 0, 0, 0], bool)
    assert retrieval.precision_at(hits, 5) == 2 / 3 and retrieval.precision_at(hits, 2) == 1 / 2
    assert retrieval.precision_at(hits, 5, junk=[False, True, *[False] * 4]) == 1


def test_micro_precision_is_scikit_learns_of_one_ranking():
    random = np.random.RandomState(0)
    right = random.rand(200) < 0.3
    scores = np.round(right + random.randn(200), 1)  # with ties
    expected = average_precision_score(right, scores)
    assert retrieval.micro_precision(scores, right, right.sum()) == pytest.approx(expected)
    assert retrieval.micro_precision(scores, right, 2 * right.sum()) == pytest.approx(expected / 2)


def test_copies_show_a_part_of_their_original_and_are_fixed_by_the_seed():
    images = np.random.RandomState(0).randint(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    images[1] = images[0]
    changed = copies.copies(images, seed=3)
    assert changed.shape == images.shape and changed.dtype == np.uint8
    np.testing.assert_array_equal(changed[:2], copies.copies(images[:2], seed=3))
    assert (changed[0] != changed[1]).any() and (changed[0] != copies.copies(images[:1], seed=4)[0]).any()


def test_copy_detection_by_hand():
    eye = np.eye(6, dtype=np.float32)
    originals, distractors = eye[:3], eye[3:]
    changed = eye[:3] + np.array([[0, 0, 0, 0.5, 0, 0], [0, 0, 0, 0, 3.0, 0], [0.1, 0, 0, 0, 0, 0]], np.float32)
    found = copies.scores(originals, distractors, changed)
    # The second is ranked after a distractor. In the one ranking of all pairs: right, that distractor, right, another
    # distractor, right.
    assert found["recall_at_1"] == pytest.approx(2 / 3) and found["map"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert found["micro_ap"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_what_cannot_be_retrieved_is_a_sentence():
    gallery, labels = data(20)
    for features, classes, match in [
        (gallery, np.arange(20), "no query with another image"),
        (gallery, 0 * labels, "one class"),
        (np.ones_like(gallery), labels, "same feature for all 20"),
        (gallery * np.inf, labels, "not finite"),
    ]:
        with pytest.raises(UserError, match=match):
            retrieval.scores(features, classes)
    with pytest.raises(UserError, match="3 copies of 20 originals"):
        copies.scores(gallery, gallery, gallery[:3])
    with pytest.raises(UserError, match="not finite"):
        copies.scores(gallery, gallery, gallery * np.nan)


def test_the_rulers_of_a_case():
    (gallery, labels), (queries, query_labels) = data(), data(40, seed=1)
    case = Case("student", Side(gallery, labels), Side(queries, query_labels), classes=6)
    found, protocol = retrieval.measure(case, 0, ks=(1, 3), queries=30)
    assert protocol["queries"] == 30 and 0 < found["recall@1"] <= found["recall@3"] <= 1

    random = np.random.RandomState(0)
    images = np.repeat(np.repeat(random.randint(0, 256, (40, 4, 4, 3)), 8, 1), 8, 2).astype(np.uint8)
    colours = lambda images: images.reshape(-1, 32 * 32, 3).mean(1).astype(np.float32) - 128
    sides = [Side(colours(x), None, x) for x in (images[:20], images[20:])]
    found, protocol = copies.measure(Case("pixels", *sides, pixels=colours), 0, originals=12)
    assert protocol["originals"] == 12 and protocol["distractors"] == 28
    assert found["map"] > 0.15  # mean colours alone: chance is 0.11
    with pytest.raises(UserError, match="two test images"):
        copies.measure(Case("pixels", sides[0], Side(sides[1].features[:1]), pixels=colours), 0)
