"""Calibration by hand, against scikit-learn, and against a temperature that is known."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from jax_ssl.errors import UserError
from jax_ssl.evaluate import calibration, linear
from jax_ssl.evaluate.case import Case, Side


def data(count=4000, classes=5, seed=0):
    """Logits of which the labels are drawn: they are calibrated."""
    random = np.random.RandomState(seed)
    logits = 2 * random.randn(count, classes)
    return logits, (logits + random.gumbel(size=logits.shape)).argmax(1)


def test_error_of_bins_by_hand():
    chances = np.array([[0.9, 0.1], [0.92, 0.08], [0.4, 0.6], [0.35, 0.65]])
    labels = [0, 1, 1, 1]
    # Two bins of ten hold images: (0.9 and 0.92) of which one is right, 0.6 and 0.65 right.
    found = calibration.expected_calibration_error(chances, labels, bins=4)
    assert found == pytest.approx((abs(1.82 - 1) + abs(1.25 - 2)) / 4)
    assert calibration.expected_calibration_error(chances, labels, bins=1) == pytest.approx(abs(1.82 + 1.25 - 3) / 4)
    edge = np.array([[0.5, 0.5], [0.49, 0.51]])  # 0.5 belongs to the lower of two bins
    assert calibration.expected_calibration_error(edge, [0, 0], bins=2) == pytest.approx((0.5 + 0.51) / 2)


def test_likelihood_and_brier_are_scikit_learns():
    logits, labels = data(300)
    found = calibration.scores(logits, labels)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found["nll"] == pytest.approx(log_loss(labels, chances))
    assert found["brier"] == pytest.approx(brier_score_loss(labels, chances, scale_by_half=False))


def test_one_temperature_repairs_too_sharp_probabilities():
    (logits, labels), (held_out, held_out_labels) = data(), data(seed=1)
    found = calibration.scores(3 * logits, labels, 3 * held_out, held_out_labels)
    assert found["temperature"] == pytest.approx(3, rel=0.1)
    assert found["ece_scaled"] < 0.02 < 0.1 < found["ece"]
    assert found["nll_scaled"] < found["nll"] and found["brier_scaled"] < found["brier"]


def test_huge_logits_do_not_overflow():
    found = calibration.scores(np.array([[1e4, 0.0], [0.0, 1e4]]), [0, 0])
    assert found["ece"] == pytest.approx(0.5) and found["nll"] == pytest.approx(5e3)


def test_what_cannot_be_calibrated_is_a_sentence():
    logits, labels = data(10)
    with pytest.raises(UserError, match="not finite"):
        calibration.scores(logits * np.nan, labels)
    with pytest.raises(UserError, match="labels from 0 to 4"):
        calibration.scores(logits, labels + 5)


def test_the_ruler_measures_the_linear_probe():
    (x, labels), (y, truth) = data(200), data(100, seed=1)
    case = Case("student", *(Side(a.astype(np.float32), b.astype(np.int32)) for a, b in ((x, labels), (y, truth))), 5)
    found, protocol = calibration.measure(case, 0)
    probe = linear.fit(case.train.features, case.train.labels, 5, seed=0)
    assert found["top1"] == pytest.approx(linear.accuracy(probe, y, truth))
    assert set(calibration.SHOWN) <= set(found) and protocol["learning_rate"] == probe.learning_rate
    assert found["nll_scaled"] < 1.61  # better than no answer, log 5


def test_the_tenth_that_chose_the_head_trained_none():
    held_out, fitted = linear.split(105, 3)
    assert len(held_out) == 10 and sorted([*held_out, *fitted]) == list(range(105))
    assert set(held_out) == set(np.random.RandomState(3).permutation(105)[:10])
