import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import losses


@pytest.fixture
def golden(request):
    return np.load(request.config.rootpath / "tests" / "golden" / "official_mae_io.npz")


@pytest.mark.seal(2, "mae")
def test_mae_is_that_of_the_official_code(golden):
    patches = losses.patchify(jnp.asarray(golden["x"]), 8)
    loss = losses.mae(jnp.asarray(golden["pred"]), patches, jnp.asarray(golden["mask"]), norm_pix=True)
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-5)


@pytest.mark.seal(2, "mae")
def test_the_gradient_is_that_of_the_mean_over_hidden_patches(golden):
    patches, mask = losses.patchify(jnp.asarray(golden["x"]), 8), golden["mask"]
    gradient = jax.grad(lambda p: losses.mae(p, patches, jnp.asarray(mask), norm_pix=True))(jnp.asarray(golden["pred"]))
    target = np.asarray(patches, np.float64)
    target = (target - target.mean(-1, keepdims=True)) / np.sqrt(target.var(-1, ddof=1, keepdims=True) + 1e-6)
    expected = 2 * (golden["pred"] - target) * mask[..., None] / (target.shape[-1] * mask.sum())
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)


def test_mae_without_norm_pix_is_the_mean_over_hidden_patches_only():
    random = np.random.RandomState(0)
    prediction, patches = random.randn(2, 2, 6, 12).astype(np.float32)
    mask = np.array([[1, 0, 0, 1, 0, 1], [0, 0, 1, 0, 0, 0]], bool)
    loss = losses.mae(jnp.asarray(prediction), jnp.asarray(patches), jnp.asarray(mask), norm_pix=False)
    np.testing.assert_allclose(loss, np.mean((prediction - patches)[mask] ** 2), rtol=1e-5)


def test_norm_pix_uses_the_unbiased_variance():
    patches = jnp.array([[[0.0, 1.0]]])  # mean 1/2, unbiased variance 1/2
    loss = losses.mae(jnp.zeros((1, 1, 2)), patches, jnp.ones((1, 1)), norm_pix=True)
    np.testing.assert_allclose(loss, 0.25 / 0.5, rtol=1e-5)


def test_patches_are_ordered_by_row_and_their_values_by_row_column_channel():
    images = jnp.arange(4 * 6 * 3).reshape(1, 4, 6, 3)
    patches = losses.patchify(images, 2)
    assert patches.shape == (1, 6, 12)
    np.testing.assert_array_equal(patches[0, 1], images[0, 0:2, 2:4].reshape(-1))
    np.testing.assert_array_equal(patches[0, 3], images[0, 2:4, 0:2].reshape(-1))


def test_unpatchify_is_the_inverse_for_any_aspect():
    images = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    np.testing.assert_array_equal(losses.unpatchify(losses.patchify(images, 2), 2, rows=2), images)
