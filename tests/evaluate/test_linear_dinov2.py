"""DINOv2's probe: its features are the class tokens of the last blocks, and its heads are trained by momentum SGD."""

import jax
import numpy as np
import optax
import pytest

from jax_ssl.encoder import at_depth, outputs
from jax_ssl.errors import UserError
from jax_ssl.evaluate import linear_dinov2
from jax_ssl.evaluate.case import Side
from tests.evaluate.patched import Patched
from tests.evaluate.test_emergence import encoder


def test_features_are_class_tokens_of_the_last_blocks_and_the_mean_of_patches(monkeypatch):
    network, images = encoder(depth=2), np.random.RandomState(0).randint(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    (found,) = linear_dinov2.features_of(network, [images])
    shortened = (next(outputs(at_depth(network, depth), [images], both_of)) for depth in (1, 0))
    (first, _), (last, mean) = shortened
    expected = {"last 1": [last], "last 1 with patches": [last, mean], "last 2": [first, last],
                "last 2 with patches": [first, last, mean]}  # fmt: skip
    assert set(found) == set(expected)
    for kind, parts in expected.items():
        np.testing.assert_allclose(found[kind], np.concatenate(parts, axis=1), atol=1e-5)
    assert (first != last).any()
    monkeypatch.setattr("jax_ssl.encoder.batch_size", lambda encode, size: 3)  # no more at once
    for part, whole in zip(linear_dinov2.features_of(network, [images[:5], images[5:]]), (slice(5), slice(5, None))):
        for kind in expected:
            np.testing.assert_allclose(part[kind], found[kind][whole], atol=1e-5)
    monkeypatch.setattr(linear_dinov2, "BLOCKS", (1,))
    (found,) = linear_dinov2.features_of(network, [images])
    np.testing.assert_allclose(found["last 1"], last, atol=1e-5)  # of two blocks, the last one alone is read


def both_of(features):
    return features.pooled, features.patches.mean(1)


def test_heads_are_trained_by_momentum_sgd():
    random = np.random.RandomState(0)
    kinds = {"a": random.randn(12, 4).astype(np.float32), "b": random.randn(12, 6).astype(np.float32)}
    labels, rates = random.randint(0, 3, 12), np.linspace(0.1, 1, len(linear_dinov2.RATES)).astype(np.float32)
    heads = linear_dinov2.start(jax.random.key(0), kinds, 3)
    first = heads["b"]
    for _ in range(3):
        heads = linear_dinov2.step(heads, kinds, labels, rates)
    for place in (7,):
        tx = optax.sgd(float(rates[place]), momentum=0.9)
        params = first[0][place], first[1][place]
        state = tx.init(params)
        loss = lambda p: optax.softmax_cross_entropy_with_integer_labels(kinds["b"] @ p[0] + p[1], labels).mean()
        for _ in range(3):
            updates, state = tx.update(jax.grad(loss)(params), state)
            params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(heads["b"][0][place], params[0], atol=1e-5)
        np.testing.assert_allclose(heads["b"][1][place], params[1], atol=1e-5)


def test_accuracies_of_all_heads():
    x = np.eye(3, dtype=np.float32)
    heads = {"a": (np.stack([np.eye(3), np.eye(3)[[1, 2, 0]]]).astype(np.float32), np.zeros((2, 3), np.float32))}
    found = linear_dinov2.accuracies(heads, [{"a": x[:2]}, {"a": x[2:]}], np.array([0, 1, 1]))
    assert found == {("a", 0): 2 / 3, ("a", 1): pytest.approx(1 / 3 * sum(np.array([1, 2, 0]) == [0, 1, 1]))}


def colours(encode, batches):
    """Features that cost nothing."""
    return ({kind: x.reshape(len(x), -1, 3).mean(1).astype(np.float32) / 128 - 1 for kind in "ab"} for x in batches)


def test_the_probe_learns_from_crops(monkeypatch):
    labels = np.arange(40, dtype=np.int32) % 2
    images = np.random.RandomState(0).randint(0, 60, (40, 16, 16, 3)).astype(np.uint8)
    images[labels == 1] += 150
    sides = [Side(images.reshape(40, -1).astype(np.float32), labels, images)] * 2
    monkeypatch.setattr(linear_dinov2, "features_of", colours)
    case = Patched(*sides, classes=2)
    found, protocol = linear_dinov2.measure(case, 0, steps=40, batch=8)
    assert found["top1"] > 0.9 and protocol["batch"] == 4
    assert protocol["features"] in protocol["grid"]["features"] and protocol["learning_rate"] in linear_dinov2.RATES
    case.encode.backbone.pool = "mean"
    with pytest.raises(UserError, match="none: take --task=linear"):
        linear_dinov2.measure(case, 0)
