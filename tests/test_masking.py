import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import masking
from jax_ssl.errors import UserError

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


def test_each_image_hides_as_many_patches_as_it_is_told():
    count = jnp.array([0, 3, 7, 16])
    mask = masking.hide(masking.block_scores(jax.random.key(0), 4, (4, 4), count), count)
    np.testing.assert_array_equal(mask.sum(1), count)
    index, weight = masking.hidden_places(mask, 8)
    for image, hidden in enumerate(np.asarray(mask)):
        places = np.flatnonzero(hidden)[:8]
        np.testing.assert_array_equal(index[image][: len(places)], places)
        np.testing.assert_allclose(weight[image][: len(places)], 1 / max(count[image], 1))
        assert not weight[image][len(places) :].any()


def test_shares_to_hide_are_those_of_ibot_and_of_dinov2():
    mixed = np.asarray(masking.mixed_ratios(jax.random.key(0), 4000, (0.0, 0.3), (0.0, 0.2)))
    assert np.mean(mixed == 0) == pytest.approx(0.5, abs=0.03)
    some = mixed[mixed > 0]
    assert 0.1 <= some.min() < 0.11 and 0.49 < some.max() <= 0.5 and some.mean() == pytest.approx(0.3, abs=0.01)
    even = np.asarray(masking.stratified_ratios(jax.random.key(0), 40, 0.5, 0.1, 0.5))
    assert np.sum(even > 0) == 20 and np.any(even != np.asarray(
        masking.stratified_ratios(jax.random.key(1), 40, 0.5, 0.1, 0.5)))  # fmt: skip
    np.testing.assert_array_equal(np.floor((np.sort(even[even > 0]) - 0.1) / 0.02 + 1e-4), np.arange(20))  # one a bin


def test_a_context_has_no_target_in_it_and_targets_are_rectangles_of_one_size():
    cut = jax.jit(lambda key: masking.multi_block(key, 64, (16, 16), 4, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0), 76))
    sizes = set()
    for seed in range(8):
        context, target, weight = (np.asarray(x) for x in cut(jax.random.key(seed)))
        real = int(weight.sum())
        assert context.shape == (64, 76) and target.shape[:2] == (64, 4) and real <= target.shape[2]
        for row, blocks in zip(context, target[:, :, :real]):
            assert not set(row) & set(blocks.ravel())
            for block in blocks:
                ys, xs = np.divmod(block, 16)
                box = {(y, x) for y in range(ys.min(), ys.max() + 1) for x in range(xs.min(), xs.max() + 1)}
                assert box == set(zip(ys, xs)) and len(box) == real  # each patch once
                assert ys.max() < 15 and xs.max() < 15  # officially the last place is never drawn
        assert 0.13 < real / 256 < 0.2
        assert np.mean([len(set(row)) for row in context]) > 70  # few images have to repeat
        sizes.add((np.ptp(ys) + 1, np.ptp(xs) + 1))
    assert len(sizes) > 1, "sizes change from batch to batch"


def test_a_block_is_as_large_as_the_official_one_for_the_same_draw():
    """multiblock.py, _sample_block_size, by hand: r = 0.5 on 14 x 14 gives scale 0.175, ratio 1.125."""
    assert tuple(map(int, masking.block_size(0.175, 1.125, (14, 14)))) == (6, 5)  # 34 patches: sqrt(38.25), sqrt(30.2)
    assert tuple(map(int, masking.block_size(1.0, 1.0, (14, 14)))) == (13, 13)  # never the whole side
    assert masking.largest_block((0.15, 0.2), (0.75, 1.5), (14, 14)) == max(
        int(np.prod(masking.block_size(0.15 + 0.05 * r, 0.75 + 0.75 * r, (14, 14)))) for r in np.linspace(0, 1, 101)
    )


@pytest.mark.parametrize(("hidden", "grid"), [(0, (4, 4)), (16, (4, 4)), (1, (1, 1)), (0, (1, 1))])
def test_a_mask_hides_some_patches_and_leaves_some(hidden, grid):
    masking.check_hidden(1, (1, 2), "")
    with pytest.raises(UserError, match=f"ratio=0.5 hides {hidden} of the {grid[0]} x {grid[1]} patches"):
        masking.check_hidden(hidden, grid, "ratio=0.5")


def test_a_random_region_hides_its_share_in_blotches():
    regions = np.stack([masking.region(jax.random.key(seed), 32, 0.25, 8) for seed in range(8)])
    assert regions.shape == (8, 32, 32) and (regions.sum((1, 2)) == 256).all()
    alike = (regions[:, 1:] == regions[:, :-1]).mean()
    assert 0.8 < alike < 0.98  # of pixels that are as their neighbour: at random it would be 0.63
    assert len({region.tobytes() for region in regions}) == 8


def test_a_square_in_the_middle():
    square = masking.centre_square(8, 4)
    assert square.sum() == 16 and square[2:6, 2:6].all()
