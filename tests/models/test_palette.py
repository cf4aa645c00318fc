"""The colours of images as a puzzle, and its cheap baselines, against what can be said by hand."""

import jax.numpy as jnp
import numpy as np

from jax_ssl import losses
from jax_ssl.models.lab import lab_to_rgb, rgb_to_lab
from jax_ssl.models.palette import Palette, baselines, level_of, summary

BINS = losses.colour_bins()
GREY = int(losses.nearest_bin(jnp.zeros(2), BINS))


def flat(*colours):
    """Images of one colour each: (N, 8, 8, 3), from L, a and b."""
    return jnp.broadcast_to(lab_to_rgb(jnp.array(colours, jnp.float32))[:, None, None], (len(colours), 8, 8, 3))


def test_points_are_every_fourth_pixel_or_the_mean_of_its_square():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 8, 8, 3)), jnp.float32)
    lab = rgb_to_lab(images)
    lightness, ab = Palette(BINS).points(images)
    np.testing.assert_array_equal(lightness, lab[:, ::4, ::4, 0])
    np.testing.assert_array_equal(ab[1, 1, 0], lab[1, 4, 0, 1:])
    ab = Palette(BINS, mean=True).points(images)[1]
    np.testing.assert_allclose(ab[1, 0, 1], np.asarray(lab)[1, :4, 4:, 1:].mean((0, 1)), rtol=1e-4, atol=1e-4)


def test_bins_are_counted_and_rare_ones_count_more():
    images = flat((50, 0, 0), (60, 0, 0), (70, 0, 0), (50, 30, 30))
    counts = np.asarray(Palette(BINS).count(images))
    assert counts[GREY] == 12 and counts.sum() == 16
    rare = int(np.argmax(np.where(np.arange(313) == GREY, 0, counts)))
    np.testing.assert_array_equal(BINS[rare], [30, 30])
    weights = Palette(BINS).weights(counts)
    assert weights[rare] > weights[GREY] > 0
    np.testing.assert_allclose(np.asarray(Palette(BINS).weights(counts, 0.0))[[rare, GREY]], 1.0, rtol=1e-6)


def test_before_anything_is_counted_all_bins_are_alike():
    weights = Palette(BINS).weights(jnp.zeros(313))
    assert weights.min() > 0 and weights.max() / weights.min() < 3  # at the hull a bin has fewer neighbours


def test_the_table_knows_the_colour_of_a_lightness_and_its_prior_does_not():
    dark, light = (25.0, 20.0, 20.0), (75.0, -20.0, 20.0)
    train = [{"views": flat(*[dark, light] * 8)[:, None]}]
    test = {"views": flat(dark, light)[:, None]}
    found = {name: summary(fit(train, None, None)(test, None)) for name, fit in baselines(Palette(BINS)).items()}
    table, prior, grey = (found[name] for name in ("p(bin | L)", "p(bin)", "grey"))
    code = losses.colour_code(jnp.array([20.0, 20.0]), BINS)
    entropy = float(-jnp.sum(jnp.where(code > 0, code * jnp.log(jnp.maximum(code, 1e-30)), 0)))
    assert entropy < table["cross_entropy"] < entropy + 0.5 < prior["cross_entropy"]
    assert table["rmse"] < 2 < prior["rmse"] < grey["rmse"]
    np.testing.assert_allclose(grey["rmse"], 20.0, rtol=0.05)
    assert table["auc_rebalanced"] > prior["auc_rebalanced"] > 0.5 and "cross_entropy" not in grey


def test_area_under_the_curve_of_colours_that_are_a_known_distance_off():
    """Of 151 distances from 0 to 150, a point that is 30 off is within those from 30."""
    ab, counts = jnp.zeros((1, 2, 2, 2)), jnp.zeros(313)
    off = jnp.broadcast_to(jnp.array([30.0, 0.0]), ab.shape)
    means = summary(Palette(BINS).errors(off, off, ab, counts))
    np.testing.assert_allclose(means["auc"], 121 / 151, rtol=1e-6)
    np.testing.assert_allclose(means["auc_rebalanced"], 121 / 151, rtol=1e-6)
    np.testing.assert_allclose(means["rmse"], np.sqrt(450), rtol=1e-6)


def test_levels_of_lightness():
    assert level_of(jnp.array([0.0, 9.9, 10.1, 55.0, 100.0])).tolist() == [0, 0, 1, 5, 9]
