"""Lab as scikit-image computes it, and with a gradient at black."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl.models.lab import lab_to_rgb, rgb_to_lab


def test_colours_as_published():
    """Lindbloom's values of sRGB's corners under D65."""
    corners = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    expected = [[0, 0, 0], [100, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(rgb_to_lab(jnp.asarray(corners)), expected, atol=0.02)


def test_black_has_a_gradient():
    assert np.isfinite(jax.jit(jax.grad(lambda x: rgb_to_lab(x).sum()))(jnp.zeros((2, 3)))).all()


@pytest.mark.seal(2, "colorization")
def test_there_and_back_is_as_in_scikit_image(request):
    golden = np.load(request.config.rootpath / "tests" / "golden" / "colorization.npz")
    rgb = jnp.asarray(golden["rgb"], jnp.float32) / 255
    np.testing.assert_allclose(rgb_to_lab(rgb), golden["lab"], atol=1e-3)
    np.testing.assert_allclose(lab_to_rgb(jnp.asarray(golden["lab"])), golden["rgb_back"], atol=1e-4)


def test_what_no_screen_can_show_is_cut_off():
    rgb = lab_to_rgb(jnp.array([[50.0, -110.0, 110.0], [5.0, 0.0, 100.0], [120.0, 0.0, 0.0]]))
    assert np.isfinite(rgb).all() and rgb.min() == 0 and rgb.max() == 1
