import jax
import jax.numpy as jnp
import numpy as np

from jax_ssl import losses


def test_smooth_l1_of_normalised_features_is_that_of_ijepa(request):
    g = np.load(request.config.rootpath / "tests" / "golden" / "ijepa_io.npz")
    features = jax.nn.standardize(jnp.asarray(g["full"]), epsilon=1e-5)
    blocks = jnp.stack([features[np.arange(2)[:, None], g["targets"][:, m]] for m in range(2)])  # official order
    np.testing.assert_allclose(losses.smooth_l1(jnp.asarray(g["pred"]), blocks), g["loss"], rtol=1e-5)


def test_smooth_l1_is_squared_below_one_and_absolute_beyond():
    error = jnp.array([0.0, 0.5, -0.5, 1.0, -3.0])
    value, grads = jax.jit(jax.value_and_grad(losses.smooth_l1, (0, 1)))(error + 7, jnp.full(5, 7.0))
    np.testing.assert_allclose(value, np.mean([0, 0.125, 0.125, 0.5, 2.5]), rtol=1e-6)
    np.testing.assert_allclose(grads[0], np.array([0, 0.5, -0.5, 1, -1]) / 5, rtol=1e-6)
    assert not grads[1].any()


def test_half_precision_inputs_are_computed_in_fp32():
    a, b = jax.random.normal(jax.random.key(0), (2, 8, 3), jnp.bfloat16)
    loss = losses.smooth_l1(a, b)
    assert loss.dtype == jnp.float32
    assert loss == losses.smooth_l1(a.astype(jnp.float32), b.astype(jnp.float32))
