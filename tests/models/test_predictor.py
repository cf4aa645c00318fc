import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.models.positions import sincos
from jax_ssl.models.predictor import Predictor

GRID = (3, 4)
CONTEXT = jax.random.normal(jax.random.key(0), (2, 3, 8))
SEEN = jnp.array([[0, 5, 7], [11, 2, 1]])
ASKED = jnp.array([[[1, 2], [8, 9]], [[3, 4], [6, 10]]])


def make(**overrides):
    """A predictor and random parameters for it."""
    net = Predictor(**(dict(width=16, depth=2, heads=2, outputs=5) | overrides))
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), CONTEXT, SEEN, ASKED, GRID))["params"]
    random = np.random.RandomState(0)
    params = jax.tree.map(lambda x: jnp.asarray(random.randn(*x.shape) / 2, jnp.float32), shapes)
    return jax.jit(lambda *args: net.apply({"params": params}, *args, GRID)), params


def test_each_block_is_predicted_from_the_context_alone_whatever_the_other_blocks_are():
    predict, _ = make()
    both = predict(CONTEXT, SEEN, ASKED)
    assert both.shape == (2, 2, 2, 5) and both.dtype == jnp.float32
    for block in range(2):
        np.testing.assert_allclose(predict(CONTEXT, SEEN, ASKED[:, block : block + 1])[:, 0], both[:, block], atol=1e-5)
    order = jnp.array([2, 0, 1])
    np.testing.assert_allclose(predict(CONTEXT[:, order], SEEN[:, order], ASKED), both, atol=1e-5)
    np.testing.assert_allclose(predict(CONTEXT, SEEN, ASKED[..., ::-1]), both[:, :, ::-1], atol=1e-5)


def test_where_a_token_is_and_where_one_is_asked_for_both_matter():
    predict, _ = make()
    both = predict(CONTEXT, SEEN, ASKED)
    assert np.abs(predict(CONTEXT, SEEN.at[0, 0].set(4), ASKED) - both)[0].max() > 0.01
    np.testing.assert_array_equal(predict(CONTEXT, SEEN.at[0, 0].set(4), ASKED)[1], both[1])
    assert np.abs(predict(CONTEXT, SEEN, ASKED.at[0, 0, 0].set(4)) - both)[0, 0].max() > 0.01


def test_fixed_positions_are_learned_ones_that_hold_the_codes():
    fixed, without = make()
    _, params = make(positions="learned")
    assert params["positions"].shape == (1, 12, 16) and "positions" not in without
    held = without | {"positions": jnp.asarray(sincos(GRID, 16))[None]}
    learned = Predictor(16, 2, 2, 5, positions="learned")
    apply = jax.jit(lambda *arrays: learned.apply({"params": held}, *arrays, GRID))
    np.testing.assert_allclose(apply(CONTEXT, SEEN, ASKED), fixed(CONTEXT, SEEN, ASKED), atol=1e-5)


def test_half_precision_computes_in_half_and_returns_float32():
    half, exact = make(dtype=jnp.bfloat16)[0], make()[0]
    out = half(CONTEXT, SEEN, ASKED)
    assert out.dtype == jnp.float32
    assert 0 < np.abs(out - exact(CONTEXT, SEEN, ASKED)).max() < 0.5
