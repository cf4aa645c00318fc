"""The detection of other images against scikit-learn's ROC, and distances against the definition."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from jax_ssl.errors import UserError
from jax_ssl.evaluate import ood
from jax_ssl.evaluate.case import Case, Side


def features(count, seed, mean=0.0):
    return (np.random.RandomState(seed).randn(count, 6) + mean).astype(np.float32)


@pytest.mark.parametrize("decimals", [1, 8])  # with ties, and without
def test_separation_is_scikit_learns(decimals):
    random = np.random.RandomState(0)
    known, others = np.round(random.randn(200) + 1, decimals), np.round(random.randn(130), decimals)
    truth, scores = np.repeat([1, 0], [200, 130]), np.concatenate([known, others])
    found = ood.separation(known, others)
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, scores))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert found["fpr95"] == pytest.approx(false[np.argmax(true >= 0.95)])
    assert found["aupr_in"] == pytest.approx(average_precision_score(truth, scores))
    assert found["aupr_out"] == pytest.approx(average_precision_score(1 - truth, -scores))


def test_the_threshold_lets_at_least_95_of_100_known_ones_pass():
    assert ood.separation(np.arange(1, 11), [0.5, 1.5])["fpr95"] == 0.5  # of ten that is all: the threshold is 1


def test_scores_are_minus_the_distance_to_the_kth_neighbour():
    bank, queries = features(50, 0), features(300, 1)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True).astype(np.float64) for x in (bank, queries))
    distances = np.sort(np.linalg.norm(b[:, None] - a[None], axis=-1), axis=1)
    np.testing.assert_allclose(ood.closeness(bank, queries, 4), -distances[:, 3], atol=1e-5)


def test_others_are_found_and_k_scales_with_the_bank():
    bank = features(2000, 0, mean=2)
    found = ood.scores(bank, features(100, 1, mean=2), features(100, 2, mean=-2))
    assert found["auroc"] > 0.95 and found["fpr95"] < 0.2 and found["k"] == 2
    same = ood.scores(bank, features(300, 1, mean=2), features(300, 2, mean=2))
    assert 0.4 < same["auroc"] < 0.6 and 0.8 < same["fpr95"]


def test_a_fifth_of_the_classes_is_held_out():
    labels = np.arange(100) % 10
    held = ood.split_classes(labels, seed=1)
    assert len(np.unique(labels[held])) == 2 and not set(labels[held]) & set(labels[~held])
    assert (held != ood.split_classes(labels, seed=2)).any()


def test_what_cannot_be_detected_is_a_sentence():
    bank = features(20, 0)
    for arrays, k, match in [
        ((bank, bank[:0], bank), None, "no known test images"),
        ((bank, bank, bank), 21, "bank's 20 images, not 21"),
        ((bank, bank, bank * np.nan), None, "not finite"),
        ((np.ones_like(bank), bank, bank), None, "same feature"),
    ]:
        with pytest.raises(UserError, match=match):
            ood.scores(*arrays, k=k)
    with pytest.raises(UserError, match="three classes"):
        ood.split_classes([0, 1, 1])


def test_the_ruler_holds_classes_out_of_the_bank():
    labels = np.arange(120, dtype=np.int32) % 6
    centres = 4 * np.eye(6, dtype=np.float32)
    made = [Side(centres[labels] + features(120, seed), labels, np.zeros((120, 8, 8, 3), np.uint8)) for seed in (0, 1)]
    noise = lambda images: images.reshape(len(images), -1)[:, :6].astype(np.float32) - 128
    found, protocol = ood.measure(Case("pixels", *made, classes=6, pixels=noise), 0, noise=300)
    assert protocol["held_out_classes"] == [int(np.unique(labels[ood.split_classes(labels, 0)])[0])]
    assert protocol["bank"] == 100 and found["auroc"] > 0.9 and 0.5 < found["auroc_noise"]
    assert set(ood.SHOWN) <= set(found)
