"""Against the official layers' formulas (golden values) and an oracle in NumPy, written from the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import losses
from tests.near import relative_error


@pytest.fixture(scope="module")
def golden(request):
    return np.load(request.config.rootpath / "tests" / "golden" / "colorization.npz")


@pytest.mark.seal(2, "colorization")
def test_the_bins_are_the_official_ones_in_the_official_order(golden):
    bins = losses.colour_bins()
    assert bins.shape == (313, 2)
    np.testing.assert_array_equal(bins, golden["bins"])


def test_the_second_choice_are_the_bins_that_some_colour_is_nearest_to():
    bins, official = ({tuple(b) for b in losses.colour_bins(which)} for which in ("gamut", "official"))
    assert len(bins) == 261 and bins < official


@pytest.mark.seal(2, "colorization")
def test_codes_and_weights_are_the_official_ones(golden):
    code = losses.colour_code(jnp.asarray(golden["ab"]), golden["bins"])
    assert relative_error(code, golden["code"]) < 1e-5
    assert relative_error(losses.colour_weights(jnp.asarray(golden["prior"])), golden["weights"]) < 1e-5


@pytest.mark.seal(2, "colorization")
def test_loss_and_gradients_are_the_official_ones(golden):
    logits, code, weights = (jnp.asarray(golden[name]) for name in ("logits", "code", "weights"))
    np.testing.assert_allclose(losses.colorization(logits, code), golden["loss"], rtol=1e-5)
    value, gradient = jax.jit(jax.value_and_grad(losses.colorization))(logits, code, weights)
    np.testing.assert_allclose(value, golden["loss_rebalanced"], rtol=1e-5)
    assert relative_error(gradient, golden["dlogits_rebalanced"]) < 1e-5


@pytest.mark.seal(2, "colorization")
@pytest.mark.parametrize("name, temperature", [("mean_1", 1.0), ("mean_038", 0.38), ("mean_deploy", 1 / 2.606)])
def test_the_annealed_mean_is_the_official_one(golden, name, temperature):
    mean = losses.annealed_mean(jnp.asarray(golden["logits"]), golden["bins"], temperature)
    assert relative_error(mean, golden[name]) < 1e-5


@pytest.mark.seal(2, "colorization")
def test_grey_images_are_told_from_others(golden):
    np.testing.assert_array_equal(losses.colourful(jnp.asarray(golden["lab"][..., 1:])), golden["colourful"])


@pytest.mark.seal(2, "colorization")
def test_loss_is_that_of_an_oracle_point_by_point():
    """In NumPy, from the paper's Eq. 2 to 4: each point's ten nearest bins, found by sorting."""
    random = np.random.RandomState(0)
    bins, ab = losses.colour_bins("gamut").astype(np.float64), random.uniform(-60, 60, (2, 3, 2))
    logits, prior = random.randn(2, 3, len(bins)), random.dirichlet(np.ones(len(bins)))
    expected, mixed = [], 0.5 * prior + 0.5 / len(bins)
    weights = 1 / mixed / (prior / mixed).sum()
    for point, scores in zip(ab.reshape(-1, 2), logits.reshape(-1, len(bins))):
        nearest = sorted(range(len(bins)), key=lambda q: np.hypot(*(point - bins[q])))[:10]
        near = np.array([np.exp(-(np.hypot(*(point - bins[q])) ** 2) / 50) for q in nearest])
        surprise = np.log(np.exp(scores).sum()) - scores[nearest]
        expected.append(weights[nearest[0]] * (near / near.sum() * surprise).sum())
    code = losses.colour_code(jnp.asarray(ab, jnp.float32), bins)
    ours = losses.colour_weights(jnp.asarray(prior, jnp.float32))
    value = losses.colorization(jnp.asarray(logits, jnp.float32), code, ours)
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-5)


def test_no_power_of_rarity_is_too_large():
    prior = jnp.array([0.5, 0.4999, 0.0001, 0.0])
    weights = losses.colour_weights(prior, uniform=0.0, power=40.0)
    np.testing.assert_allclose(weights, [0, 0, 1e4, 0], rtol=1e-5)


def test_ten_bins_and_no_more_where_many_are_as_far():
    """On the grid: black is (0, 0), where the ten nearest are one, four, four, and one of four."""
    bins, ab = losses.colour_bins(), np.float32([[0, 0], [5, 5], [0, 5], [-90, 50], [100, -90]])
    distance = np.square(ab[:, None] - bins).sum(-1)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :10]
    expected = np.zeros_like(distance)
    np.put_along_axis(expected, nearest, np.exp(-np.take_along_axis(distance, nearest, 1) / 50), 1)
    np.testing.assert_allclose(losses.colour_code(jnp.asarray(ab), bins), expected / expected.sum(1, keepdims=True),
                               atol=1e-6)  # fmt: skip


def test_a_colour_far_from_all_bins_has_a_code_and_as_many_neighbours_as_there_are():
    code = losses.colour_code(jnp.array([[400.0, 400.0]]), losses.colour_bins())
    np.testing.assert_allclose(code.sum(), 1.0, rtol=1e-6)
    assert int((losses.colour_code(jnp.array([[3.0, 4.0]]), losses.colour_bins()[:5], 10) > 0).sum()) <= 5


def test_points_of_a_grey_image_add_nothing_and_count_as_points():
    code = losses.colour_code(jnp.full((2, 4, 2), 20.0), losses.colour_bins())
    logits = jnp.zeros(code.shape)
    half = losses.colorization(logits, code * jnp.array([1.0, 0.0])[:, None, None])
    np.testing.assert_allclose(half, losses.colorization(logits, code) / 2, rtol=1e-6)
    np.testing.assert_allclose(losses.colorization(logits, code), np.log(313), rtol=1e-6)


def test_a_smooth_prior_keeps_its_mass_and_reaches_neighbours_alone():
    bins = losses.colour_bins()
    middle = int(losses.nearest_bin(jnp.zeros(2), bins))
    np.testing.assert_array_equal(bins[middle], [0, 0])
    prior = np.asarray(losses.smooth_prior(jnp.zeros(313).at[middle].set(7.0), bins))
    np.testing.assert_allclose(prior.sum(), 1.0, rtol=1e-6)
    assert {tuple(b) for b in bins[prior > 0]} == {(a, b) for a in (-10, 0, 10) for b in (-10, 0, 10)}
    weights = losses.colour_weights(jnp.asarray(prior))
    np.testing.assert_allclose((prior * weights).sum(), 1.0, rtol=1e-6)
    assert np.isfinite(weights).all() and (np.asarray(weights)[prior == 0] == 0).all()


def test_rarer_colours_count_more_and_with_power_zero_all_count_one():
    prior = jnp.array([0.7, 0.2, 0.1])
    weights = losses.colour_weights(prior)
    assert weights[0] < weights[1] < weights[2]
    np.testing.assert_allclose(losses.colour_weights(prior, power=0.0), 1.0, rtol=1e-6)
