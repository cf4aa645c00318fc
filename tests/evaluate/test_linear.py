import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl.errors import UserError
from jax_ssl.evaluate import linear


def separable(count=600, width=20, classes=4, seed=0):
    """Classes apart by 6 standard deviations, in features of very different scale and offset."""
    random = np.random.RandomState(seed)
    labels = random.randint(0, classes, count)
    x = 6 * np.eye(classes, width)[labels] + random.randn(count, width)
    return (x * 10.0 ** np.linspace(-2, 2, width) + np.linspace(-50, 50, width)).astype(np.float32), labels


def test_separable_classes_are_separated():
    x, labels = separable()
    found = linear.measure(x[:400], labels[:400], x[400:], labels[400:], 4)
    assert found["top1"] > 0.98 and found["train_top1"] > 0.98 and found["held_out_top1"] > 0.9
    assert found["learning_rate"] in linear.LEARNING_RATES and found["epochs"] == 100


def test_random_labels_give_chance_on_test_and_on_held_out_but_not_on_train():
    random = np.random.RandomState(0)
    x, labels = random.randn(3000, 200).astype(np.float32), random.randint(0, 10, 3000)
    found = linear.measure(x[:1000], labels[:1000], x[1000:], labels[1000:], 10, epochs=20, learning_rates=(0.1,))
    assert abs(found["top1"] - 0.1) < 0.03
    assert found["held_out_top1"] < 0.25 < 0.4 < found["train_top1"]


def test_the_grid_equals_heads_trained_alone():
    x, labels = separable(count=128)
    x = jnp.asarray((x - x.mean(0)) / x.std(0))
    rates, key = jnp.array([0.01, 0.1, 1.0]), jax.random.key(3)
    arguments = dict(classes=4, epochs=5, batch=32)
    kernels, biases = linear.train_heads(x, jnp.asarray(labels), rates, key, **arguments)
    for i in range(3):
        kernel, bias = linear.train_heads(x, jnp.asarray(labels), rates[i : i + 1], key, **arguments)
        np.testing.assert_allclose(kernels[i], kernel[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(biases[i], bias[0], rtol=1e-4, atol=1e-5)
    assert jnp.abs(kernels[0] - kernels[1]).max() > 0.01


def test_wide_features_train_the_same_heads_with_less_work(monkeypatch):
    random = np.random.RandomState(0)
    x, labels = jnp.asarray(random.randn(40, 90), jnp.float32), jnp.asarray(random.randint(0, 4, 40))
    arguments = dict(classes=4, epochs=3, batch=16)
    found = linear.train_heads(x, labels, jnp.array([0.01, 0.1]), jax.random.key(3), **arguments)
    monkeypatch.setattr(linear, "by_features", linear.by_weights)
    expected = linear.train_heads.__wrapped__(x, labels, jnp.array([0.01, 0.1]), jax.random.key(3), **arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, expected)


def test_training_is_momentum_sgd_with_a_cosine():
    """Full batches, so that the order of the features does not matter: the same four steps in NumPy."""
    x, labels = separable(count=32)
    x = (x - x.mean(0)) / x.std(0)
    target = np.eye(4)[labels]
    key = jax.random.key(5)
    (kernels, biases) = linear.train_heads(
        jnp.asarray(x), jnp.asarray(labels), jnp.array([0.5]), key, classes=4, epochs=4, batch=32
    )
    kernel, bias = np.asarray(0.01 * jax.random.normal(jax.random.split(key)[0], (20, 4)), np.float64), np.zeros(4)
    speeds = 0.0, 0.0
    for step in range(4):
        logits = x @ kernel + bias
        odds = np.exp(logits - logits.max(1, keepdims=True))
        error = (odds / odds.sum(1, keepdims=True) - target) / 32
        speeds = 0.9 * speeds[0] + x.T @ error, 0.9 * speeds[1] + error.sum(0)
        rate = 0.5 * (1 + np.cos(np.pi * step / 4)) / 2
        kernel, bias = kernel - rate * speeds[0], bias - rate * speeds[1]
    np.testing.assert_allclose(kernels[0], kernel, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(biases[0], bias, rtol=1e-3, atol=1e-5)


def test_the_learning_rate_is_chosen_on_held_out_training_features():
    x, labels = separable(count=300)
    probe = linear.fit(x, labels, 4, learning_rates=(1e-9, 0.1, 2e-9))
    assert probe.learning_rate == 0.1
    held_out = np.random.RandomState(0).permutation(300)[:30]
    assert probe.held_out_top1 == pytest.approx(linear.accuracy(probe, x[held_out], labels[held_out]))
    fitted = np.setdiff1d(np.arange(300), held_out)
    np.testing.assert_allclose(probe.mean, x[fitted].mean(0), rtol=1e-4)


def test_a_head_that_diverged_is_not_chosen():
    x, labels = separable(count=300)
    # Held-out features of class 0 only: a head of NaN, which always says 0, is right on all of them.
    held_out = np.random.RandomState(0).permutation(300)[:30]
    order = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels != 0)])
    order = order[np.argsort(np.concatenate([held_out, np.setdiff1d(np.arange(300), held_out)]))]
    assert not labels[order][held_out].any()
    assert linear.fit(x[order], labels[order], 4, learning_rates=(np.inf, 0.1, np.nan)).learning_rate == 0.1


def test_the_same_seed_gives_the_same_head_and_another_another():
    x, labels = separable(count=200)
    one, same, other = (linear.fit(x, labels, 4, epochs=3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.kernel, same.kernel)
    assert not np.array_equal(one.kernel, other.kernel)


def test_predictions_in_blocks_are_the_whole():
    x, labels = separable(count=5000)
    probe = linear.fit(x[:200], labels[:200], 4, epochs=2)
    mean, inverse_std, kernel, bias = (np.asarray(part) for part in probe[:4])
    logits = (x - mean) * inverse_std @ kernel + bias
    assert np.mean(np.asarray(linear.predict(probe, x)) == logits.argmax(1)) > 0.999


def test_steps_are_bounded(monkeypatch):
    monkeypatch.setattr(linear, "MAX_STEPS", 10)
    x, labels = separable(count=600)
    assert linear.fit(x, labels, 4).epochs == 5  # two batches of 256 in 540


def test_too_few_features_are_refused():
    with pytest.raises(UserError, match="at least 10"):
        linear.fit(np.zeros((9, 3)), np.zeros(9, int), 2)


@pytest.mark.parametrize("seed", [-1, -(2**70), 2**32, 2**70])
def test_any_whole_number_is_a_seed(seed):
    x, labels = separable(count=40)
    assert linear.measure(x[:30], labels[:30], x[30:], labels[30:], 4, seed=seed, epochs=1)["epochs"] == 1


def test_one_class_is_refused():
    x, labels = separable(count=40)
    with pytest.raises(UserError, match="of one class"):
        linear.measure(x[:30], 0 * labels[:30], x[30:], labels[30:], 4)
