"""Lab as scikit-image computes it, and with a gradient at black."""

import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl.models.lab import rgb_to_lab


def test_colours_as_published():
    """Lindbloom's values of sRGB's corners under D65."""
    corners = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    expected = [[0, 0, 0], [100, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(rgb_to_lab(jnp.asarray(corners)), expected, atol=0.02)


def test_black_has_a_gradient():
    assert np.isfinite(jax.grad(lambda x: rgb_to_lab(x).sum())(jnp.zeros((2, 3)))).all()
