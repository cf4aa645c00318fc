import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import sharding
from jax_ssl.models.norm import BatchNorm

RNG = np.random.RandomState(0)
X = np.maximum(RNG.randn(16, 3, 3, 6), 0).astype(np.float32)  # as behind a ReLU
KERNEL = RNG.randn(1, 1, 6, 24).astype(np.float32)
VARIABLES = {
    "params": {"scale": np.linspace(0.5, 2, 24, dtype=np.float32), "bias": np.linspace(-1, 1, 24, dtype=np.float32)},
    "batch_stats": {"mean": np.linspace(-2, 2, 24, dtype=np.float32), "var": np.linspace(1, 3, 24, dtype=np.float32)},
}


def in_one(params, x, kernel, train=True):
    return BatchNorm().apply(VARIABLES | {"params": params}, x, train, kernel, mutable=["batch_stats"])


def one_after_the_other(params, x, kernel, train=True):
    y = jnp.einsum("bhwd,dc->bhwc", x, kernel[0, 0], precision="highest")
    return BatchNorm().apply(VARIABLES | {"params": params}, y, train, mutable=["batch_stats"])


def with_gradients(network, train=True):
    def loss(params, x, kernel):
        y, stats = network(params, x, kernel, train)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), (y, stats)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


def assert_close(found, expected, error):
    """Each array, in units of its largest entry."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=error * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize("train", [True, False])
def test_values_statistics_and_gradients_are_those_of_a_convolution_and_then_its_norm(train):
    found, expected = (with_gradients(f, train)(VARIABLES["params"], X, KERNEL) for f in (in_one, one_after_the_other))
    assert_close(found[0], expected[0], 1e-5)
    assert_close(found[1], expected[1], 1e-4)


def test_they_do_not_depend_on_the_mesh():
    expected = with_gradients(in_one)(VARIABLES["params"], X, KERNEL)
    mesh = sharding.make_mesh(2, jax.devices()[:8])
    with jax.set_mesh(mesh):
        placed = jax.device_put(X, sharding.batched(mesh))
        found = jax.device_get(with_gradients(in_one)(VARIABLES["params"], placed, KERNEL))
    assert_close(found, expected, 1e-5)


def test_in_bfloat16_they_differ_by_rounding_and_the_statistics_hardly():
    half = lambda x: jnp.asarray(x, jnp.bfloat16)
    exact = lambda x: np.asarray(half(x), np.float32)
    found = with_gradients(in_one)(VARIABLES["params"], half(X), half(KERNEL))
    expected = with_gradients(one_after_the_other)(VARIABLES["params"], exact(X), exact(KERNEL))
    (_, (y, stats)), gradients = found
    assert y.dtype == gradients[1].dtype == jnp.bfloat16
    assert_close(jax.tree.map(exact, y), expected[0][1][0], 0.01)
    assert_close(stats, expected[0][1][1], 1e-5)
    assert_close(jax.tree.map(exact, gradients), expected[1], 0.03)


def test_a_kernel_of_zeros_has_no_variance_and_finite_gradients():
    value, gradients = with_gradients(in_one)(VARIABLES["params"], X, np.zeros_like(KERNEL))
    np.testing.assert_allclose(value[1][0], np.broadcast_to(VARIABLES["params"]["bias"], (16, 3, 3, 24)), atol=1e-6)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
