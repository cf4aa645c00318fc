import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl.models.context import TURNS, Context, Cpc
from tests.flat import Flat

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def context():
    """The masked network with random weights, and the grid that it is given."""
    net, z = Context(depth=3, width=8), jax.random.normal(KEY, (2, 6, 5, 4))
    return jax.jit(lambda z: net.apply(net.init(KEY, z), z)), z


def test_a_row_knows_of_itself_and_of_those_above_and_of_nothing_below(context):
    run, z = context
    before = run(z)
    for row in range(6):
        after = np.asarray(run(z.at[:, row:].add(1.0)) != before).any((0, 2, 3))
        assert not after[:row].any() and after[row:].all()


def test_a_row_knows_of_all_columns_that_its_depth_reaches(context):
    run, z = context
    moved = np.asarray(run(z.at[:, 0, 2].add(1.0)) != run(z)).any((0, 3))
    np.testing.assert_array_equal(moved[:3], np.ones((3, 5)))  # three blocks, one column to each side and one row each


def by_hand(params, z, depth):
    """The pseudo-code of v2's appendix, place by place in float64."""
    dense = lambda number, x: x @ np.float64(params[f"Dense_{number}"]["kernel"]) + params[f"Dense_{number}"]["bias"]
    z, number = np.float64(z), 0
    at = lambda x, r, c: x[:, r, c] if r >= 0 and 0 <= c < x.shape[2] else np.zeros_like(x[:, 0, 0])
    over = lambda x, function: np.stack(
        [np.stack([function(x, r, c) for c in range(x.shape[2])], 1) for r in range(x.shape[1])], 1
    )
    for _ in range(depth):
        x = np.maximum(dense(number, z), 0)
        wide = over(x, lambda x, r, c: np.concatenate([at(x, r, c - 1), at(x, r, c), at(x, r, c + 1)], -1))
        x = dense(number + 1, wide)
        high = over(x, lambda x, r, c: np.concatenate([at(x, r - 1, c), at(x, r, c)], -1))
        x = np.maximum(dense(number + 2, high), 0)
        z, number = z + dense(number + 3, x), number + 4
    return np.maximum(z, 0)


@pytest.mark.seal(2, "cpc")
def test_the_masked_network_is_that_of_the_pseudo_code():
    net, z = Context(depth=2, width=6), jax.random.normal(KEY, (2, 4, 3, 5))
    variables = net.init(KEY, z)
    np.testing.assert_allclose(net.apply(variables, z), by_hand(variables["params"], z, 2), rtol=1e-5, atol=1e-5)


def test_turns_bring_each_side_to_the_top():
    grid = jnp.arange(9).reshape(1, 3, 3)
    tops = [np.asarray(jnp.rot90(grid, turn, (1, 2)))[0, 0] for turn in TURNS]
    assert [sorted(top.tolist()) for top in tops] == [[0, 1, 2], [6, 7, 8], [2, 5, 8], [0, 3, 6]]


@pytest.mark.parametrize("directions, target", [(1, 0), (2, 6), (4, 6)])
def test_each_direction_has_a_network_of_its_own_and_every_offset_a_map(directions, target):
    net = Cpc(Flat(), directions, depth=1, width=8, offsets=3, target=target)
    patches = jax.random.normal(KEY, (2, 16, 4, 4, 3))
    variables = net.init(KEY, patches, 4)
    preds, targets, z = net.apply(variables, patches, 4)
    width = target or 5
    assert preds.shape == (directions, 2, 4, 4, 3, width) and targets.shape == (directions, 2, 4, 4, width)
    assert z.shape == (2, 16, 5) and ("target" in variables["params"]) == bool(target)
    assert variables["params"]["predict"]["steps"]["kernel"].shape == (directions, 5, 3 * width)
    if not target:
        np.testing.assert_array_equal(targets[0], z.reshape(2, 4, 4, 5))
