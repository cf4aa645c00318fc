import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.models.decoder import Decoder
from jax_ssl.models.positions import sincos

GRID, KEPT, HIDDEN = (2, 3), 2, 4
CLS, TOKENS = jax.random.normal(jax.random.key(0), (2, 8)), jax.random.normal(jax.random.key(1), (2, KEPT, 8))
RESTORE = jnp.array([[3, 0, 5, 1, 2, 4], [0, 1, 2, 3, 4, 5]])


def make(**overrides):
    """A decoder and parameters for it, all of them random, `positions` included."""
    net = Decoder(**(dict(width=16, depth=1, heads=2, outputs=5) | overrides))
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), CLS, TOKENS, RESTORE, GRID))["params"]
    random = np.random.RandomState(0)
    return net, jax.tree.map(lambda x: jnp.asarray(random.randn(*x.shape) / 2, jnp.float32), shapes)


def apply(net, params, restore=RESTORE, tokens=TOKENS):
    return jax.jit(lambda p: net.apply({"params": p}, CLS, tokens, restore, GRID))(params)


def test_fixed_positions_are_learned_ones_that_hold_the_codes_and_none_for_the_class_token():
    learned, params = make(positions="learned")
    codes = jnp.concatenate([jnp.zeros((1, 16)), sincos(GRID, 16)])[None]
    fixed, without = make()
    assert params["positions"].shape == (1, 7, 16)
    assert "positions" not in without
    shared = {name: params[name] for name in without}
    np.testing.assert_allclose(apply(fixed, shared), apply(learned, params | {"positions": codes}), atol=1e-5)
    assert np.abs(apply(fixed, shared) - apply(learned, params)).max() > 0.1


def test_kept_tokens_go_back_to_their_places_and_the_mask_token_to_all_others():
    """Without blocks and positions a token's prediction tells where it stands."""
    net, params = make(depth=0, positions="learned")
    params = params | {"positions": jnp.zeros((1, 7, 16))}
    prediction = np.asarray(apply(net, params))
    assert prediction.dtype == np.float32
    swapped = np.asarray(apply(net, params, tokens=TOKENS[:, ::-1]))
    hole = prediction[0, 0]  # patch 0 stands third among [kept, hidden], so it is hidden
    for image in range(2):
        for place in range(6):
            rank = int(RESTORE[image, place])
            if rank >= KEPT:
                np.testing.assert_allclose(prediction[image, place], hole, atol=1e-5)
            else:
                other = int(np.flatnonzero(RESTORE[image] == 1 - rank)[0])
                np.testing.assert_allclose(prediction[image, place], swapped[image, other], atol=1e-5)
                assert np.abs(prediction[image, place] - hole).max() > 0.1
    assert np.abs(prediction[0, 1] - prediction[0, 3]).max() > 0.1
