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
    loss = lambda p: losses.mae(p, patches, jnp.asarray(mask), norm_pix=True)
    gradient = jax.jit(jax.grad(loss))(jnp.asarray(golden["pred"]))
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


def hidden_at_random(shape):
    """A prediction and patches (B, N, 12), and which are hidden."""
    random = np.random.RandomState(1)
    prediction, patches = random.randn(2, *shape, 12).astype(np.float32)
    mask = random.rand(*shape) < 0.6
    return prediction, patches, mask


@pytest.mark.seal(2, "simmim")
def test_simmim_is_the_mean_absolute_error_of_hidden_pixels_and_so_is_its_gradient():
    prediction, patches, mask = hidden_at_random((3, 8))
    expected = np.abs(prediction.astype(np.float64) - patches)[mask].mean()
    value, gradient = jax.jit(jax.value_and_grad(losses.simmim))(jnp.asarray(prediction), patches, jnp.asarray(mask))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    sign = np.sign(prediction - patches) * mask[..., None]
    np.testing.assert_allclose(gradient, sign / (mask.sum() * 12), rtol=1e-5, atol=1e-9)


def test_simmim_of_nothing_hidden_is_zero():
    prediction, patches, mask = hidden_at_random((2, 4))
    assert losses.simmim(jnp.asarray(prediction), patches, jnp.zeros_like(mask)) == 0


@pytest.mark.seal(2, "beit")
def test_beit_is_the_mean_cross_entropy_of_the_codes_and_so_is_its_gradient():
    """By an oracle in NumPy: the official code hands the scores of all hidden patches to torch's cross-entropy."""
    random = np.random.RandomState(0)
    logits, codes = random.randn(3, 5, 7) * 3, random.randint(0, 7, (3, 5))
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.eye(7)[codes]
    value, gradient = jax.jit(jax.value_and_grad(losses.beit))(jnp.asarray(logits, jnp.float32), jnp.asarray(codes))
    np.testing.assert_allclose(value, -np.log((share * chosen).sum(-1)).mean(), rtol=1e-5)
    np.testing.assert_allclose(gradient, (share - chosen) / 15, rtol=1e-5, atol=1e-7)


def test_beit_of_equal_scores_is_the_logarithm_of_the_vocabulary():
    np.testing.assert_allclose(losses.beit(jnp.ones((2, 3, 8192)), jnp.zeros((2, 3), int)), 9.0109, rtol=1e-5)


@pytest.mark.seal(2, "dvae")
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_dvae_is_the_squared_error_and_the_divergence_from_a_uniform_choice(weight):
    """By an oracle in NumPy, from the formula of the paper: KL(q || uniform) = sum of q log(K q)."""
    random = np.random.RandomState(0)
    painted, images, logits = random.randn(2, 4, 4, 3), random.randn(2, 4, 4, 3), random.randn(2, 4, 6) * 2
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    divergence = (share * np.log(6 * share)).sum(-1).mean()
    arrays = [jnp.asarray(x, jnp.float32) for x in (painted, images, logits)]
    value, (to_painted, to_logits) = jax.jit(jax.value_and_grad(losses.dvae, (0, 2)))(*arrays, weight)
    np.testing.assert_allclose(value, np.mean((painted - images) ** 2) + weight * divergence, rtol=1e-5)
    np.testing.assert_allclose(to_painted, 2 * (painted - images) / painted.size, rtol=1e-5, atol=1e-8)
    logs = np.log(share)
    expected = weight * share * (logs - (share * logs).sum(-1, keepdims=True)) / 8
    np.testing.assert_allclose(to_logits, expected, rtol=1e-5, atol=1e-7)
