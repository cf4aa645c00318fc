import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import losses
from jax_ssl.models.prototypes import DinoHead, matrix, scores

SMALL = dict(prototypes=30, hidden=16, bottleneck=6)
X = jax.random.normal(jax.random.key(0), (2, 5, 12))


def make(**overrides):
    """A head and parameters for it, all of them random, biases and lengths too."""
    net = DinoHead(**(SMALL | overrides))
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), X))["params"]
    random = np.random.RandomState(0)
    return net, jax.tree.map(lambda x: jnp.asarray(random.randn(*x.shape) / 2, jnp.float32), shapes)


@functools.partial(jax.jit, static_argnums=0)
def embed(net, params):
    return net.apply({"params": params}, X)


@functools.partial(jax.jit, static_argnums=0)
def logits(net, params):
    return scores(embed(net, params), matrix(params))


def oracle(params, x):
    """Caron et al. 2021, App. C, "Projection head", in float64: (embedding, scores)."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    length = lambda rows: np.sqrt(np.sum(rows * rows, axis=-1, keepdims=True))
    gelu = np.vectorize(lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2)
    for i in range(3):
        x = x @ params[f"layers_{i}"]["kernel"] + params[f"layers_{i}"]["bias"]
        x = gelu(x) if i < 2 else x / length(x)
    v = params["directions"]
    return x, x @ (params.get("length", 1.0) * v / length(v)).T


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_the_head_is_that_of_the_paper(norm_last_layer):
    net, params = make(norm_last_layer=norm_last_layer)
    assert ("length" in params) != norm_last_layer and all("bias" in params[f"layers_{i}"] for i in range(3))
    embedding, expected = oracle(params, np.asarray(X, np.float64))
    np.testing.assert_allclose(logits(net, params), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(embed(net, params), embedding, rtol=1e-4, atol=1e-5)


def test_prototypes_of_length_one_are_learned_in_direction_only():
    net, params = make()
    loss = lambda p: jnp.sum(logits(net, p)[..., 0] ** 2)
    grad, rows = jax.jit(jax.grad(loss))(params)["directions"], params["directions"]
    assert np.abs(grad[0]).max() > 1e-3
    np.testing.assert_allclose(np.sum(grad * rows, axis=1), 0, atol=1e-5)
    doubled = params | {"directions": 2 * rows}
    np.testing.assert_allclose(logits(net, doubled), logits(net, params), atol=1e-5)


def test_a_learned_length_begins_at_one_and_gets_a_gradient():
    net = DinoHead(**SMALL, norm_last_layer=False)
    params = jax.jit(net.init)(jax.random.key(1), X)["params"]
    assert params["length"].shape == (30, 1) and (params["length"] == 1).all()
    assert jax.jit(jax.grad(lambda p: jnp.sum(logits(net, p) ** 2)))(params)["length"].all()
    fixed = {name: params[name] for name in params if name != "length"}
    np.testing.assert_allclose(logits(net, params), logits(DinoHead(**SMALL), fixed), rtol=1e-6)


def test_parameters_begin_as_in_the_official_code():
    params = jax.jit(DinoHead(prototypes=400, hidden=64, bottleneck=25).init)(jax.random.key(0), X)["params"]
    np.testing.assert_allclose(params["layers_1"]["kernel"].std(), 0.02, rtol=0.05)
    assert not params["layers_1"]["bias"].any()
    assert 0.19 < np.abs(params["directions"]).max() <= 0.2


def test_in_half_precision_only_the_layers_are_rounded():
    net, params = make(dtype=jnp.bfloat16)
    embedding, rows = embed(net, params), matrix(params)
    assert embedding.dtype == rows.dtype == scores(embedding, rows).dtype == jnp.float32
    np.testing.assert_allclose(scores(embedding, rows), logits(make()[0], params), atol=0.05)
    text = str(jax.make_jaxpr(scores)(embedding, rows))
    assert "precision=(Precision.HIGHEST, Precision.HIGHEST)" in text


def test_the_mean_score_is_the_score_of_the_mean_embedding():
    net, params = make(norm_last_layer=False)
    embedding, rows = embed(net, params), matrix(params)
    center = jnp.linspace(-1, 1, 30)
    expected = losses.dino_center(center, scores(embedding, rows), 0.9)
    found = losses.dino_center(center, scores(embedding.mean((0, 1), keepdims=True), rows), 0.9)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_head_and_loss_in_chunks_are_the_same():
    """How a method uses the head when the scores of a batch are too many to store."""
    net, params = make(norm_last_layer=False)
    teacher = jax.tree.map(lambda p: p + 0.1, params)
    views = jax.random.normal(jax.random.key(3), (4, 8, 12))  # (V, B, width)

    def loss(params, count):
        ours, theirs = matrix(params), matrix(teacher)
        dino = lambda s, t: losses.dino(scores(s, ours), scores(t, theirs), jnp.zeros(30), 0.1, 0.04)
        s, t = net.apply({"params": params}, views), net.apply({"params": teacher}, views[:2])
        return losses.sum_in_chunks(dino, count, s, t, axis=1) / count if count else dino(s, t)

    value_and_grad = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    (value, grads), (expected, expected_grads) = value_and_grad(params, 4), value_and_grad(params, 0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads, expected_grads)
