"""Are the probabilities of a classifier true? Expected calibration error, likelihood and Brier score.

Measured on the cached linear probe of linear.py; the functions are for any logits. Each is given
as it is and after one temperature, which is fitted on images that neither trained the classifier nor count here:
accuracy stays the same. Letters: N images, C classes.

Guo et al. 2017, https://arxiv.org/abs/1706.04599
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from jax_ssl.errors import UserError
from jax_ssl.evaluate import linear, rules

NEEDS = ("labels",)
DECIDES = "ece_scaled"
SHOWN = ("top1", "ece", "ece_scaled", "nll", "nll_scaled", "brier", "brier_scaled")
BINS = 15
RANGE = (-5.0, 5.0)  # of the logarithm of the temperature


def measure(case, seed) -> tuple[dict, dict]:
    """Scores of the linear probe on test images, with a temperature of the tenth of the training images it held out."""
    train, labels = case.train.features, case.train.labels
    rules.check("Calibration", train, labels, case.test.features)
    probe = linear.fit(train, labels, case.classes, seed=seed)
    held_out = linear.split(len(train), seed)[0]
    of_test, of_held_out = (linear.logits(probe, x) for x in (case.test.features, train[held_out]))
    found = scores(of_test, case.test.labels, of_held_out, labels[held_out])
    found["top1"] = float(np.mean(of_test.argmax(1) == case.test.labels))
    protocol = {
        "name": "calibration", "classifier": "linear", "learning_rate": probe.learning_rate, "epochs": probe.epochs,
        "bins": BINS, "temperature_of": "the held-out tenth of the training images",
    }  # fmt: skip
    return found, protocol


def scores(logits, labels, held_out_logits=None, held_out_labels=None) -> dict[str, float]:
    """{ece, nll, brier} of logits (N, C) and labels (N,); with held-out ones also {temperature, ece_scaled, ...}.

    Raises UserError for logits that are not finite, and for labels that are none of the classes.
    """
    found = _scores(logits, labels)
    if held_out_logits is None:
        return found
    chosen = temperature(held_out_logits, held_out_labels)
    scaled = _scores(np.asarray(logits, np.float64) / chosen, labels)
    return found | {f"{name}_scaled": value for name, value in scaled.items()} | {"temperature": chosen}


def _scores(logits, labels) -> dict[str, float]:
    chances = _log_chances(logits, labels)
    return {
        "ece": expected_calibration_error(np.exp(chances), labels),
        "nll": float(-np.mean(chances[np.arange(len(chances)), labels])),
        "brier": brier(np.exp(chances), labels),
    }


def _log_chances(logits, labels) -> np.ndarray:
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if not np.isfinite(logits).all():
        raise UserError("Calibration was given logits that are not finite: measure an earlier checkpoint.")
    if not len(labels) or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise UserError(
            f"Calibration needs images, with labels from 0 to {logits.shape[1] - 1}: leave the other classes out."
        )
    return log_softmax(logits, axis=1)


def expected_calibration_error(chances, labels, bins: int = BINS) -> float:
    """ECE: how far the highest probability is from the share of right answers, mean over images, in bins of it.

    chances: (N, C), rows sum to one. Bins are of equal width, open on the left: torchmetrics' default, norm L1.
    """
    chances, labels = np.asarray(chances, np.float64), np.asarray(labels)
    confidence, right = chances.max(1), chances.argmax(1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    apart = np.bincount(place, confidence - right, bins)
    return float(np.sum(np.abs(apart)) / len(labels))


def brier(chances, labels) -> float:
    """Brier score: squared distance of the probabilities from the truth, summed over classes: 0 is best, 2 worst."""
    truth = np.eye(np.shape(chances)[1])[np.asarray(labels)]
    return float(np.mean(np.sum((np.asarray(chances, np.float64) - truth) ** 2, axis=1)))


def temperature(logits, labels) -> float:
    """The one number by which logits (N, C) are divided so that the labels become most likely."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    _log_chances(logits, labels)

    def nll(log_temperature):
        return -np.mean(log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels])

    # Of one over the temperature the likelihood is concave: there is one optimum.
    return float(np.exp(minimize_scalar(nll, bounds=RANGE, method="bounded", options={"xatol": 1e-6}).x))
