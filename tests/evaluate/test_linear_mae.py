"""MAE's probe: batch norm and LARS as they are written, and crops that pass the network in parts."""

import jax
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from jax_ssl.errors import UserError
from jax_ssl.evaluate import augmented, linear, linear_mae
from jax_ssl.evaluate.case import Side
from tests.evaluate.patched import Patched, features


def test_steps_are_batch_norm_and_lars():
    random = np.random.RandomState(0)
    probe = linear_mae.start(jax.random.key(0), 5, 3, 2)
    heads = [[np.asarray(probe.params[name][0], np.float64) for name in ("kernel", "bias")] for _ in range(2)]
    mean, variance, fast = np.zeros(5), np.ones(5), [[0, 0], [0, 0]]
    for rates in ([0.5, 5.0], [0.2, 9.0], [0.3, 0.1]):
        x, labels = random.randn(12, 5) * 3 + 1, random.randint(0, 3, 12)
        unit = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6)
        for place, rate in enumerate(rates):
            kernel, bias = heads[place]
            raised = np.exp(unit @ kernel + bias)
            error = (raised / raised.sum(1, keepdims=True) - np.eye(3)[labels]) / 12
            slope = unit.T @ error
            trust = 0.001 * np.linalg.norm(kernel) / np.linalg.norm(slope)
            fast[place] = [0.9 * fast[place][0] + trust * slope, 0.9 * fast[place][1] + error.sum(0)]
            heads[place] = [kernel - rate * fast[place][0], bias - rate * fast[place][1]]
        mean, variance = 0.9 * mean + 0.1 * x.mean(0), 0.9 * variance + 0.1 * x.var(0, ddof=1)
        probe = linear_mae.step(probe, x.astype(np.float32), labels, np.float32(rates))
    y, truth = random.randn(50, 5), random.randint(0, 3, 50)
    scores, losses = linear_mae.score(probe, y.astype(np.float32), truth)
    np.testing.assert_allclose(probe.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(probe.variance, variance, rtol=1e-5)
    for place, (kernel, bias) in enumerate(heads):
        np.testing.assert_allclose(probe.params["kernel"][place], kernel, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(probe.params["bias"][place], bias, rtol=1e-5, atol=1e-6)
        found = (y - mean) / np.sqrt(variance + 1e-6) @ kernel + bias
        assert scores[place] == pytest.approx(np.mean(found.argmax(1) == truth))
        assert losses[place] == pytest.approx(log_loss(truth, softmax(found, axis=1), labels=range(3)), rel=1e-5)


def case(count=48, seed=0):
    random, labels = np.random.RandomState(seed), np.arange(count, dtype=np.int32) % 2
    images = random.randint(0, 120, (count, 16, 16, 3)).astype(np.uint8)
    images[labels == 0] += 100  # at its start the probe of seed 0 takes the bright ones for class 1
    sides = (Side(features(images).pooled, labels, images) for _ in range(2))
    return Patched(*sides, classes=2)


def test_crops_pass_in_parts_and_the_probe_learns(monkeypatch):
    own = case()
    found, protocol = linear_mae.measure(own, 0, epochs=9, rates=(1e-9, 300.0))
    assert set(found) == set(linear_mae.SHOWN) and min(found.values()) > 0.9 and protocol["learning_rate"] == 300
    assert protocol["name"] == "linear-mae" and protocol["batch"] == 5 and protocol["steps"] == 72
    assert protocol["warmup_epochs"] == 1 and protocol["features"] == "pooled: cls"
    plan = list(augmented.steps_of(48, 6, 3, 0))
    whole = list(linear_mae.features_of(own, own.train.images, plan, 0))
    monkeypatch.setattr(linear_mae, "batch_size", lambda encode, side: 4)
    assert [len(x) for x in whole] == [6, 6, 6]
    for one, other in zip(whole, linear_mae.features_of(own, own.train.images, plan, 0), strict=True):
        np.testing.assert_array_equal(one, other)


def test_images_that_choose_the_rate_are_not_trained_on(monkeypatch):
    trained_on = []

    def recorded(own, plan, epochs, peaks, seed):
        trained_on.append(set(np.concatenate([rows for _, rows in plan])))
        return linear_mae.start(jax.random.key(0), 48, 2, len(peaks))

    monkeypatch.setattr(linear_mae, "trained", recorded)
    held_out, fitted = linear.split(48, 0)
    several, alone = (linear_mae.measure(case(), 0, epochs=3, rates=rates) for rates in ((0.1, 1.0), (0.1,)))
    assert trained_on == [set(fitted), set(range(48))] and len(held_out) == 4
    assert "held_out_top1" in several[0] and several[1]["selection"] == "a tenth of the training images"
    assert "held_out_top1" not in alone[0] and alone[1]["selection"] == "none"


def test_what_cannot_be_probed_is_a_sentence():
    for options in ({"epochs": 0}, {"batch": 1}, {"rates": ()}, {"rates": (0.1, 0.0)}):
        with pytest.raises(UserError, match="needs 20 labelled images"):
            linear_mae.measure(case(), 0, **options)
    with pytest.raises(UserError, match="20 labelled images.* not 18"):
        linear_mae.measure(case(18), 0)
