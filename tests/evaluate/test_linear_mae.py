"""MAE's probe: batch norm and LARS as they are written, and crops that pass the network in parts."""

import jax
import numpy as np
import pytest

from jax_ssl.errors import UserError
from jax_ssl.evaluate import augmented, linear_mae
from jax_ssl.evaluate.case import Side
from tests.evaluate.patched import Patched, features


def test_steps_are_batch_norm_and_lars():
    random = np.random.RandomState(0)
    probe = linear_mae.start(jax.random.key(0), 5, 3)
    kernel, bias = (np.asarray(probe.params[name], np.float64) for name in ("kernel", "bias"))
    mean, variance, fast = np.zeros(5), np.ones(5), [0, 0]
    for rate in (0.5, 0.2, 0.3):
        x, labels = random.randn(12, 5) * 3 + 1, random.randint(0, 3, 12)
        unit = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6)
        raised = np.exp(unit @ kernel + bias)
        error = (raised / raised.sum(1, keepdims=True) - np.eye(3)[labels]) / 12
        slope = unit.T @ error
        trust = 0.001 * np.linalg.norm(kernel) / np.linalg.norm(slope)
        fast = [0.9 * fast[0] + trust * slope, 0.9 * fast[1] + error.sum(0)]
        kernel, bias = kernel - rate * fast[0], bias - rate * fast[1]
        mean, variance = 0.9 * mean + 0.1 * x.mean(0), 0.9 * variance + 0.1 * x.var(0, ddof=1)
        probe = linear_mae.step(probe, x.astype(np.float32), labels, rate)
    for found, expected in zip((*probe.params.values(), *probe[2:]), (bias, kernel, mean, variance), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    y, truth = random.randn(50, 5), random.randint(0, 3, 50)
    right = ((y - mean) / np.sqrt(variance + 1e-6) @ kernel + bias).argmax(1) == truth
    assert linear_mae.accuracy(probe, y.astype(np.float32), truth) == pytest.approx(right.mean())


def case(count=48, seed=0):
    random, labels = np.random.RandomState(seed), np.arange(count, dtype=np.int32) % 2
    images = random.randint(0, 120, (count, 16, 16, 3)).astype(np.uint8)
    images[labels == 1] += 100
    sides = (Side(features(images).pooled, labels, images) for _ in range(2))
    return Patched(*sides, classes=2)


def test_crops_pass_in_parts_and_the_probe_learns(monkeypatch):
    own = case()
    found, protocol = linear_mae.measure(own, 0, epochs=9, rate=5.0)
    assert found["top1"] == found["train_top1"] > 0.9
    assert protocol["name"] == "linear-mae" and protocol["batch"] == 6 and protocol["steps"] == 72
    assert protocol["warmup_epochs"] == 1 and protocol["features"] == "pooled: cls"
    plan = list(augmented.steps_of(48, 6, 3, 0))
    whole = list(linear_mae.features_of(own, own.train.images, plan, 0))
    monkeypatch.setattr(linear_mae, "batch_size", lambda encode, side: 4)
    assert [len(x) for x in whole] == [6, 6, 6]
    for one, other in zip(whole, linear_mae.features_of(own, own.train.images, plan, 0), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_probed_is_a_sentence():
    for options in ({"epochs": 0}, {"batch": 1}, {"rate": 0.0}):
        with pytest.raises(UserError, match="needs 16 labelled images"):
            linear_mae.measure(case(), 0, **options)
    with pytest.raises(UserError, match="16 labelled images.* not 14"):
        linear_mae.measure(case(14), 0)
    with pytest.raises(UserError, match="diverged: give --config.linear_mae.rate below 1e"):
        linear_mae.measure(case(16), 0, epochs=2, rate=1e38)
