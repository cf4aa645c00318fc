import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import masking

SAMPLERS = {
    "random": masking.random_scores,
    "grid": masking.grid_scores,
    "block": lambda *args: masking.block_scores(*args, hidden=args[2][0] * args[2][1] // 2),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("grid, keep", [((14, 14), 49), ((4, 6), 7), ((8, 8), 1)])
def test_every_sampler_hides_an_exact_count_and_depends_on_its_key_alone(name, grid, keep):
    sample = jax.jit(lambda seed: SAMPLERS[name](jax.random.key(seed), 5, grid))
    assert sample(0).shape == (5, grid[0] * grid[1])
    kept, restore, hidden = masking.split(sample(0), keep)
    assert (kept.shape, restore.shape, hidden.shape) == ((5, keep), (5, grid[0] * grid[1]), (5, grid[0] * grid[1]))
    np.testing.assert_array_equal(hidden.sum(1), grid[0] * grid[1] - keep)
    np.testing.assert_array_equal(sample(0), sample(0))
    assert np.any(sample(0) != sample(1))


def test_split_keeps_the_lowest_and_restores_every_patch_to_its_place():
    scores = jnp.asarray(np.random.RandomState(0).rand(4, 12), jnp.float32)
    keep, restore, hidden = masking.split(scores, 5)
    for row in range(4):
        order = np.argsort(scores[row])
        np.testing.assert_array_equal(keep[row], order[:5])
        np.testing.assert_array_equal(np.flatnonzero(hidden[row]), np.sort(order[5:]))
        parted = np.concatenate([keep[row], order[5:]])  # as a decoder has them: kept ones, then holes
        np.testing.assert_array_equal(parted[restore[row]], np.arange(12))
    np.testing.assert_array_equal(jnp.take_along_axis(hidden, keep, axis=1), 0)
    assert (keep.dtype, restore.dtype, hidden.dtype) == (jnp.int32, jnp.int32, jnp.float32)


def test_random_masks_are_even_over_places_and_differ_between_images():
    _, _, hidden = masking.split(masking.random_scores(jax.random.key(0), 2000, (4, 4)), 4)
    np.testing.assert_allclose(hidden.mean(0), 0.75, atol=0.05)
    assert len(np.unique(hidden, axis=0)) > 1000  # of 1 820


@pytest.mark.parametrize("grid", [(14, 14), (8, 8), (4, 6)])
def test_at_three_quarters_the_grid_keeps_one_patch_of_every_two_by_two(grid):
    keep, _, hidden = masking.split(masking.grid_scores(jax.random.key(0), 3, grid), grid[0] * grid[1] // 4)
    cells = 1 - hidden.reshape(3, grid[0] // 2, 2, grid[1] // 2, 2)
    np.testing.assert_array_equal(cells.sum((2, 4)), 1)
    np.testing.assert_array_equal(np.unique(keep // grid[1] % 2).size, 1)  # the same one: a lattice
    np.testing.assert_array_equal(np.unique(keep % grid[1] % 2).size, 1)


def test_at_one_half_the_grid_is_a_chequerboard_and_beyond_it_stays_even():
    hidden = lambda keep: masking.split(masking.grid_scores(jax.random.key(0), 1, (8, 8)), keep)[2].reshape(8, 8)
    ys, xs = np.mgrid[:8, :8]
    colour = (ys + xs) % 2
    assert np.array_equal(hidden(32), colour) or np.array_equal(hidden(32), 1 - colour)
    sixteenth = 1 - hidden(4).reshape(2, 4, 2, 4)
    np.testing.assert_array_equal(sixteenth.sum((1, 3)), 1)  # one in every 4 x 4


def neighbours_alike(hidden):
    """Share of pairs of neighbours, across and down, of which both are hidden or both are not."""
    across, down = hidden[:, :, 1:] == hidden[:, :, :-1], hidden[:, 1:] == hidden[:, :-1]
    return (across.mean() + down.mean()) / 2


@pytest.fixture(scope="module")
def blocks():
    """Scores and the mask of 75 hidden patches of 14 x 14, for 64 images."""
    scores = jax.jit(lambda key: masking.block_scores(key, 64, (14, 14), hidden=75))(jax.random.key(0))
    hidden = masking.split(scores, 196 - 75)[2]
    return np.asarray(scores).reshape(64, 14, 14), np.asarray(hidden).reshape(64, 14, 14)


def test_blocks_hide_contiguous_regions(blocks):
    _, hidden = blocks
    np.testing.assert_array_equal(hidden.sum((1, 2)), 75)
    scattered = masking.split(masking.random_scores(jax.random.key(0), 64, (14, 14)), 196 - 75)[2]
    assert neighbours_alike(np.asarray(scattered).reshape(64, 14, 14)) < 0.6
    assert neighbours_alike(hidden) > 0.8
    assert len(np.unique(hidden.reshape(64, -1), axis=0)) == 64


def test_the_first_rectangle_is_hidden_whole(blocks):
    """Scores at or above zero are those of the rectangle that was laid first, and all of it is hidden."""
    for score, hidden in zip(*blocks):
        inside = score >= 0
        ys, xs = np.nonzero(inside)
        box = (slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1))
        assert inside[box].all()
        assert inside.sum() == inside[box].size >= 75 // 10
        assert hidden[box].all()
