"""V-JEPA's probe is its block as it is written, and is trained as attentive.py trains, with its own recipe."""

import math

import jax
import numpy as np
import pytest

from jax_ssl.evaluate import attentive, attentive_vjepa
from jax_ssl.evaluate.case import Side
from tests.evaluate.patched import Patched
from tests.evaluate.test_attentive import steps_by_optax, tokens


def norm(x, scale, offset):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + offset


def block(p, x, heads, key_bias):
    """The classifier of src/models/attentive_pooler.py, patch by patch, in double precision."""
    width = len(p.query)
    split = lambda a: a.reshape(*a.shape[:-1], heads, width // heads)
    normal = norm(x, p.scale, p.offset)
    query, keys, values = (
        split(a) for a in (p.query @ p.query_kernel + p.query_bias, normal @ p.key + key_bias,
                           normal @ p.value + p.value_bias)
    )  # fmt: skip
    scores = np.einsum("hk,bphk->bhp", query, keys) / (width // heads) ** 0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    q = p.query + np.einsum("bhp,bphk->bhk", weights, values).reshape(len(x), width)
    wide = norm(q, p.mlp_scale, p.mlp_offset) @ p.widen + p.widen_bias
    gelu = wide * np.vectorize(lambda a: (1 + math.erf(a / 2**0.5)) / 2)(wide)
    return (q + gelu @ p.narrow + p.narrow_bias) @ p.kernel + p.bias


@pytest.mark.parametrize("heads, taken", [(3, 3), (0, 1), (7, 1)])
def test_logits_are_those_of_the_block(heads, taken):
    random = np.random.RandomState(0)
    probe = jax.tree.map(lambda x: np.asarray(x, np.float64) + 0.3 * random.randn(*x.shape),
                         attentive_vjepa.start(jax.random.key(0), 12, 4))  # fmt: skip
    x = 2 * random.randn(5, 6, 12) + 1
    logits = jax.jit(attentive_vjepa.kind_of(heads).logits)
    found = logits(jax.tree.map(np.float32, probe), x.astype(np.float32))
    np.testing.assert_allclose(found, block(probe, x, taken, random.randn(12)), rtol=1e-4, atol=1e-4)


def test_a_step_clips_and_its_decay_falls():
    x, labels = tokens(8)
    kind = attentive_vjepa.kind_of(2)._replace(clip=0.1)
    first, grid = kind.start(jax.random.key(0), 8, 2), np.array([[1e-2, 0.3]], np.float32)
    found = attentive.train(kind, x, labels, np.arange(8), grid, first, jax.random.key(1), steps=3, batch=8)
    expected = steps_by_optax(kind, first, x, labels, 1e-2, 0.3)
    for name, a, b in zip(first._fields, found, expected, strict=True):
        np.testing.assert_allclose(a[0], b, atol=5e-5, err_msg=name)
    assert kind.decays[0] * kind.last_decay == pytest.approx(1e-6) and kind.warmup == 0 and kind.second_moment == 0.999
    assert {name for name, d in kind.decayed._asdict().items() if not d} == {
        name for name, value in first._asdict().items() if value.ndim == 1 and name != "query"
    }


def test_the_ruler_measures_a_network():
    images = np.random.RandomState(0).randint(0, 256, (24, 16, 16, 3)).astype(np.uint8)
    labels = np.arange(24, dtype=np.int32) % 2
    images[labels == 1, ..., 0] //= 4  # less red; the norm of a patch does not see its brightness
    sides = (Side(None, labels[part], images[part]) for part in (slice(0, 16), slice(16, 24)))
    found, protocol = attentive_vjepa.measure(Patched(*sides, classes=2), 0, steps=40)
    assert set(found) == set(attentive_vjepa.SHOWN) and found["train_top1"] > 0.8
    assert protocol["name"] == "attentive-vjepa" and protocol["learning_rate"] in attentive_vjepa.RATES
    assert protocol["heads"] == "of 64 features" and protocol["weight_decay"] == 1e-3
