import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import losses
from jax_ssl.models import puzzle
from jax_ssl.models.input_stage import standardise
from jax_ssl.models.squares import cut_at
from tests.flat import Flat

KEY = jax.random.key(0)


@pytest.fixture
def golden(request):
    return np.load(request.config.rootpath / "tests" / "golden" / "jigsaw.npz")


@pytest.mark.seal(2, "jigsaw")
def test_tiles_their_units_and_their_order_are_those_of_the_reference(golden):
    cell, offset = int(golden["cell"]), golden["offset"]
    at = offset + cell * np.stack(np.divmod(np.arange(9), 3), axis=1)
    tiles = cut_at(golden["picture"][None], at[None, :, 0], at[None, :, 1], golden["tiles"].shape[1])
    np.testing.assert_array_equal(tiles[0], golden["tiles"])
    np.testing.assert_allclose(standardise(tiles)[0], golden["normalised"], rtol=1e-5, atol=1e-5)
    order = golden["permutation"].astype(int)[None]
    shuffled = puzzle.shuffle(standardise(tiles), order[:, None])[:, 0]
    np.testing.assert_allclose(shuffled[0], golden["shuffled"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(puzzle.put_back(shuffled, order), standardise(tiles))


def coordinates(side=32):
    """An image whose first two channels say which pixel it is; the third is their sum."""
    ys, xs = np.mgrid[:side, :side].astype(np.float32)
    return np.stack([ys, xs, ys + xs], axis=-1)


def test_tiles_lie_in_their_cells_anywhere_and_cells_anywhere_in_the_image():
    tiles = np.asarray(puzzle.draw_tiles(KEY, np.stack([coordinates()] * 400), cell=10, tile=8))
    assert tiles.shape == (400, 9, 8, 8, 3)
    top = tiles[:, :, 0, 0, :2]
    np.testing.assert_array_equal(tiles[:, :, -1, -1, :2], top + 7)
    within = top - 10 * np.stack(np.divmod(np.arange(9), 3), axis=1)  # the corner of the cells, and the jitter
    assert within.min() == 0 and within.max() == 4, "a corner of 0 to 2 pixels, and 0 to 2 more in each cell"
    assert np.ptp(within, axis=1).max() == 2 and np.ptp(within, axis=1).mean() > 1.5
    below = top[:, 3:, 0] - top[:, :-3, 0]
    assert below.min() == 8 and below.max() == 12, "the gap is 0 to 4 pixels: never do tiles overlap"


def test_without_room_tiles_touch_and_fill_the_image():
    tiles = puzzle.draw_tiles(KEY, coordinates(24)[None], cell=8, tile=8)
    np.testing.assert_array_equal(puzzle.assemble(tiles, 0, 0.0)[0], coordinates(24))


def test_channels_move_by_themselves_and_stay_inside():
    images = np.repeat(coordinates()[..., :1], 3, axis=-1)[None].repeat(200, 0)
    tiles = np.asarray(puzzle.draw_tiles(KEY, images, cell=10, tile=8, channel_offset=2))
    rows = tiles[:, :, 0, 0]  # the first row of each channel
    apart = rows.max(-1) - rows.min(-1)
    assert set(np.unique(apart)) == {0, 1, 2} and tiles.max() == 31
    still = np.asarray(puzzle.draw_tiles(KEY, images, cell=10, tile=8))
    assert np.ptp(still[:, :, 0, 0], axis=-1).max() == 0


@pytest.mark.parametrize("permutations, count", [(24, 8), (8, 8), (3, 8)])
def test_an_image_is_given_different_permutations_while_there_are_enough(permutations, count):
    answers = np.asarray(puzzle.draw_answers(KEY, 300, permutations, count))
    assert answers.shape == (300, count) and answers.min() == 0 and answers.max() == permutations - 1
    if count <= permutations:
        assert all(len(set(row)) == count for row in answers)
    share = np.bincount(answers.ravel()) / answers.size
    np.testing.assert_allclose(share, 1 / permutations, rtol=0.3)


def test_a_puzzle_as_a_picture():
    tiles = jnp.arange(9.0)[None, :, None, None, None] * jnp.ones((1, 9, 2, 2, 3))
    page = np.asarray(puzzle.assemble(tiles, 1, -1.0))[0, :, :, 0]
    assert page.shape == (8, 8) and (page[2] == -1).all() and (page[:, 5] == -1).all()
    np.testing.assert_array_equal(page[::3, ::3], np.arange(9).reshape(3, 3))


def solver(norm=False, dropout=0.0):
    return puzzle.Solver(Flat(), permutations=6, embedding=4, hidden=7, dropout=dropout, norm=norm)


def by_hand(params, tiles, orders, labels):
    """The context-free network and its loss, puzzle by puzzle in float64."""
    layer = lambda x, name: x @ np.float64(params[name]["kernel"]) + np.float64(params[name]["bias"])
    flat = {"map": params["backbone"]["map"], **{name: params[name] for name in ("embed", "compare", "answer")}}
    params, costs = flat, []
    for image, puzzle_ in np.ndindex(*labels.shape):
        shuffled = tiles[image, orders[image, puzzle_]].astype(np.float64)
        vectors = [np.maximum(layer(layer(tile.ravel(), "map"), "embed"), 0) for tile in shuffled]
        scores = layer(np.maximum(layer(np.concatenate(vectors), "compare"), 0), "answer")
        costs.append(np.log(np.exp(scores).sum()) - scores[labels[image, puzzle_]])
    return np.mean(costs)


@pytest.mark.seal(2, "jigsaw")
def test_the_network_and_its_loss_are_those_of_an_oracle_written_from_the_paper():
    """Permuting the vectors of tiles is the same as permuting the tiles, which the paper does."""
    random = np.random.default_rng(0)
    tiles = random.normal(size=(3, 9, 2, 2, 3)).astype(np.float32)
    orders = np.argsort(random.random((3, 4, 9)))
    labels = random.integers(0, 6, (3, 4))
    net = solver()
    variables = net.init(KEY, tiles, orders)
    scores, vectors = net.apply(variables, tiles, orders)
    loss = losses.label_cross_entropy(scores, jnp.asarray(labels))
    assert scores.shape == (3, 4, 6) and scores.dtype == jnp.float32 and vectors.shape == (27, 5)
    np.testing.assert_allclose(loss, by_hand(variables["params"], tiles, orders, labels), rtol=1e-5)


def test_dropout_and_batch_norm_are_of_training_alone():
    tiles, orders = jax.random.normal(KEY, (4, 9, 2, 2, 3)), jnp.tile(jnp.arange(9), (4, 2, 1))
    net = solver(norm=True, dropout=0.5)
    variables = jax.jit(net.init)(KEY, tiles, orders)

    @jax.jit
    def run(key):
        return net.apply(variables, tiles, orders, train=True, mutable=["batch_stats"], rngs={"drop_path": key})

    (first, _), stats = run(KEY)
    (other, _), _ = run(jax.random.key(1))
    assert np.any(first != other) and np.any(first[:, 0] != first[:, 1])
    assert set(stats["batch_stats"]) == {"embed_norm", "compare_norm"}
    still = jax.jit(net.apply)(variables, tiles, orders)[0]
    np.testing.assert_allclose(still[:, 0], still[:, 1], rtol=1e-5)
