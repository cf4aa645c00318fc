import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import sharding
from jax_ssl.models.attend import attend
from jax_ssl.models.transformer import Attention
from jax_ssl.plan import collectives
from tests.near import relative_error

BIAS = {"none": None, "of heads": (3, 7, 7), "of tokens": (1, 1, 7)}


def draw(relative, batch=8):
    """query, key, value, what is added to the logits, and what comes back."""
    shapes = dict.fromkeys("qkvg", (batch, 7, 3, 4))
    q, k, v, g = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes.values()))
    return (q, k, v, None if relative is None else jax.random.normal(jax.random.key(9), relative)), g


def by_definition(query, key, value, relative):
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) / 2
    weights = jax.nn.softmax(logits if relative is None else logits + relative)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def both_ways(function, given, g):
    """Output and the gradients of all that is given."""
    y, back = jax.vjp(function, *given)
    return jax.tree.leaves((y, back(g)))


@pytest.mark.parametrize("relative", BIAS.values(), ids=BIAS)
def test_outputs_and_gradients_are_those_of_the_definition(relative):
    given, g = draw(relative)
    mine = jax.jit(lambda *a: both_ways(attend, *a))(given, g)
    expected = both_ways(by_definition, given, g)
    assert len(mine) == len(expected) == 4 + (relative is not None)
    for a, b in zip(mine, expected, strict=True):
        assert a.shape == b.shape
        assert relative_error(a, b) < 1e-5


def test_weights_that_a_picture_asks_for_are_those_that_were_used():
    layer, x = Attention(heads=2, dtype=jnp.float32), jax.random.normal(jax.random.key(0), (3, 5, 8))
    variables = {"params": layer.init(jax.random.key(1), x)["params"]}
    shown, seen = layer.apply(variables, x, mutable=["intermediates"])
    np.testing.assert_allclose(layer.apply(variables, x), shown, rtol=1e-4, atol=1e-6)
    assert seen["intermediates"]["attention"][0].shape == (3, 2, 5, 5)


def test_steps_are_held_apart_on_a_cpu_and_nowhere_else():
    given, g = draw(None)
    step = jax.jit(lambda *a: both_ways(attend, *a))
    assert "optimization_barrier" in step.lower(given, g).as_text()
    assert "optimization_barrier" not in step.trace(given, g).lower(lowering_platforms=("tpu",)).as_text()


def test_half_precision_keeps_to_its_own_way():
    layer, x = Attention(heads=2, dtype=jnp.bfloat16), jnp.ones((3, 5, 8))
    params = layer.init(jax.random.key(1), x)["params"]
    assert "custom_vjp" not in str(jax.make_jaxpr(lambda p: layer.apply({"params": p}, x))(params))


def test_the_batch_may_be_split_over_devices_and_is_not_gathered():
    (given, g), mesh = draw(None, batch=16), sharding.make_mesh()
    split = sharding.batched(mesh)
    step = jax.jit(lambda *a: both_ways(attend, *a), in_shardings=split, out_shardings=split)
    with jax.set_mesh(mesh):
        assert not collectives.census(step.lower(given, g).compile().as_text())
