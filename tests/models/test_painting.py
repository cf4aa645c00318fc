"""Holes filled without learning, and how wrong a filling is."""

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl import masking
from jax_ssl.models import painting

HOLE = masking.centre_square(12, 6)


def test_a_harmonic_fill_is_the_solution_of_laplaces_equation():
    """By an oracle in NumPy that solves the linear equations of all hidden pixels at once."""
    image = np.random.default_rng(0).normal(size=(12, 12))
    places = {tuple(at): number for number, at in enumerate(np.argwhere(HOLE))}
    equations, right = np.zeros((2, len(places), len(places)))[0], np.zeros(len(places))
    for (y, x), number in places.items():
        equations[number, number] = 4
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if near in places:
                equations[number, places[near]] = -1
            else:
                right[number] += image[near]
    expected = image.copy()
    expected[HOLE] = np.linalg.solve(equations, right)
    filled = painting.harmonic_fill(jnp.asarray(image, jnp.float32)[None, ..., None], jnp.asarray(HOLE))
    np.testing.assert_allclose(filled[0, ..., 0], expected, atol=1e-4)


def test_a_linear_picture_is_filled_as_it_was():
    ramp = jnp.broadcast_to(jnp.arange(12.0)[None, :, None, None] / 12, (1, 12, 12, 3))
    filled = painting.harmonic_fill(ramp, jnp.asarray(HOLE))
    np.testing.assert_allclose(filled, ramp, atol=1e-4)
    errors = painting.summary(jax.tree.map(float, painting.hole_errors(filled, ramp, jnp.asarray(HOLE))))
    assert errors["l2"] < 1e-8 and abs(errors["gradient_energy"] - 1) < 1e-2


def test_the_most_similar_image_is_found_by_what_is_seen():
    random = np.random.default_rng(1)
    others = random.normal(size=(5, 12, 12, 3)).astype(np.float32)
    images = others[[3, 0]] + 0.1 * random.normal(size=(2, 12, 12, 3)).astype(np.float32)
    images[:, HOLE] = others[1][HOLE]  # what is hidden is another one's
    filled = painting.nearest_fill(jnp.asarray(images), jnp.asarray(HOLE), jnp.asarray(others))
    np.testing.assert_array_equal(filled[:, HOLE], others[[3, 0]][:, HOLE])
    np.testing.assert_array_equal(filled[:, ~HOLE], images[:, ~HOLE])


def test_errors_are_of_hidden_pixels_and_of_pixels_from_zero_to_one():
    images = jnp.zeros((2, 12, 12, 3))
    errors = painting.hole_errors(images + jnp.where(HOLE, 0.5, 9.0)[..., None], images, jnp.asarray(HOLE))
    np.testing.assert_allclose(errors["l2"], 0.0625, rtol=1e-6)
    assert errors["energy"] == errors["true_energy"] == 0


def test_a_painter_paints_each_square_from_its_place():
    painter = painting.Painter((), 4)
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 8))
    variables = painter.init(jax.random.key(1), x, False)
    painted, other = painter.apply(variables, x, False), painter.apply(variables, x.at[:, 1, 2].add(1.0), False)
    changed = np.abs(other - painted).max((0, 3)) > 0
    assert painted.shape == (2, 12, 12, 3) and changed[4:8, 8:12].all() and changed.sum() == 16
