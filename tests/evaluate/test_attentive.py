"""The attentive probe is attention as it is written, and finds the one patch that tells the class."""

import jax
import numpy as np
import optax
import pytest

from jax_ssl.errors import UserError
from jax_ssl.evaluate import attentive
from jax_ssl.evaluate.case import Side
from tests.evaluate.patched import Patched


def tokens(count=200, patches=6, width=8, seed=0):
    """One patch of each image is marked, by its first number, and its second is the class; others have any class."""
    random = np.random.RandomState(seed)
    x = random.randn(count, patches, width).astype(np.float32)
    labels, marked = random.randint(0, 2, count).astype(np.int32), random.randint(0, patches, count)
    x[..., 1] = 4 * random.choice([-1, 1], (count, patches))
    x[..., 0] = 0
    x[np.arange(count), marked, 0] = 6
    x[np.arange(count), marked, 1] = 8 * labels - 4
    return x, labels


def probe(width, classes=3, seed=0):
    found = attentive.start(jax.random.key(seed), width, classes)
    return jax.tree.map(lambda x: 20 * np.asarray(x) + 0.1, found)


@pytest.mark.parametrize("width", [24, 128])  # one head, and two
def test_logits_are_attention_with_keys_and_values(width):
    x, given, heads = tokens(5, width=width)[0].astype(np.float64), probe(width), max(1, width // 64)
    split = lambda a: a.reshape(*a.shape[:-1], heads, width // heads)
    key_bias = np.random.RandomState(1).randn(width)  # CAPI has one
    keys, values = split(x @ given.key + key_bias), split(x @ given.value + given.value_bias)
    scores = np.einsum("hk,bphk->bhp", split(given.query), keys) / (width // heads) ** 0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    seen = np.einsum("bhp,bphk->bhk", weights, values).reshape(5, width)
    np.testing.assert_allclose(attentive.logits(given, x), seen @ given.kernel + given.bias, rtol=1e-4, atol=1e-3)


def steps_by_optax(kind, first, x, labels, rate, decay, count=3):
    """A probe after so many steps on the same batch, by optax's own AdamW."""
    schedule, falls = (optax.cosine_decay_schedule(1.0, count, alpha) for alpha in (0.0, kind.last_decay))
    adam = optax.scale_by_adam(0.9, kind.second_moment, 1e-8)
    tx = optax.chain(optax.clip_by_global_norm(kind.clip), adam)

    @jax.jit
    def step(params, state, now):
        update, state = tx.update(jax.grad(lambda p: attentive._loss(kind, p, x, labels))(params), state)
        now, shrink = rate * schedule(now), decay * falls(now)
        return jax.tree.map(lambda p, u, d: p * (1 - now * shrink * d) - now * u, params, update, kind.decayed), state

    params, state = first, jax.jit(tx.init)(first)
    for now in range(count):
        params, state = step(params, state, now)
    return params


def test_a_step_is_that_of_adamw_without_decay_of_biases():
    x, labels = tokens(8)
    first, key = attentive.start(jax.random.key(0), 8, 2), jax.random.key(1)
    grid = np.array([[1e-3, 0.3], [1e-2, 0.0]], np.float32)
    found = attentive.train(attentive.CAPI, x, labels, np.arange(8), grid, first, key, steps=3, batch=8)
    assert attentive.CAPI.decayed == (1, 1, 1, 0, 1, 0)
    for place, setting in enumerate(grid.tolist()):
        expected = steps_by_optax(attentive.CAPI, first, x, labels, *setting)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a[place], b, atol=2e-5)


def test_it_finds_the_patch_that_tells_the_class():
    (x, labels), (y, truth) = tokens(), tokens(seed=1)
    found, chosen = attentive.fit(attentive.CAPI, x, labels, 2, steps=150, seed=0)
    assert np.mean(np.asarray(attentive.logits(found, y)).argmax(1) == truth) > 0.95
    mean = np.sign(y[..., 1].mean(1)) > 0
    assert np.mean(mean == truth) < 0.85  # what the mean of the patches tells
    assert chosen["learning_rate"] in attentive.RATES and chosen["held_out_top1"] > 0.9


def test_the_ruler_measures_a_network(monkeypatch):
    images = np.random.RandomState(0).randint(0, 256, (24, 16, 16, 3)).astype(np.uint8)
    labels = np.arange(24, dtype=np.int32) % 2
    images[labels == 1] //= 4
    sides = (Side(None, labels[part], images[part]) for part in (slice(0, 16), slice(16, 24)))
    case = Patched(*sides, classes=2)
    found, protocol = attentive.measure(case, 0, steps=20)
    assert set(found) == set(attentive.SHOWN) and 0 <= found["top1"] <= 1
    assert protocol["name"] == "attentive-capi" and protocol["patches"] == 16 and protocol["probe_images"] == 16
    monkeypatch.setattr(attentive, "MEMORY", 4000)
    with pytest.raises(UserError, match="--config.attentive.images=1 or less"):
        attentive.measure(case, 0, steps=20)


def test_what_cannot_be_probed_is_a_sentence():
    x, labels = tokens(20)
    with pytest.raises(UserError, match="one class"):
        attentive.fit(attentive.CAPI, x, 0 * labels, 2, 5, 0)
    with pytest.raises(UserError, match="10 labelled images"):
        attentive.fit(attentive.CAPI, x[:9], labels[:9], 2, 5, 0)
    with pytest.raises(UserError, match="not finite"):
        attentive.fit(attentive.CAPI, x * np.nan, labels, 2, 5, 0)
