import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import sharding
from jax_ssl.models.norm import BatchNorm

X = np.random.RandomState(0).randn(16, 3, 3, 5).astype(np.float32) * [1, 2, 3, 4, 5] + [0, 1, -2, 3, -4]
SCALE, BIAS = np.arange(1, 6, dtype=np.float32), np.arange(5, dtype=np.float32) - 2


def standardised(x, epsilon=1e-5):
    """By the textbook, in float64, over all axes but the last."""
    x = x.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / np.sqrt(x.var(axes) + epsilon)


def variables(**overrides):
    stats = dict(mean=jnp.zeros(5), var=jnp.ones(5)) | overrides
    return {"params": {"scale": jnp.asarray(SCALE), "bias": jnp.asarray(BIAS)}, "batch_stats": stats}


def run(x, train=True, **settings):
    return BatchNorm(**settings).apply(variables(), jnp.asarray(x), train, mutable=["batch_stats"])


@pytest.mark.parametrize("x", [X, X[:, 0, 0]])
def test_one_group_is_the_whole_batch(x):
    y, _ = run(x)
    np.testing.assert_allclose(y, standardised(x) * SCALE + BIAS, rtol=1e-4, atol=1e-4)


def test_groups_are_runs_of_neighbours_normalised_each_by_itself():
    y, _ = run(X, groups=4)
    expected = np.concatenate([standardised(part) for part in X.reshape(4, 4, 3, 3, 5)])
    np.testing.assert_allclose(y, expected * SCALE + BIAS, rtol=1e-4, atol=1e-4)
    assert np.abs(y - run(X)[0]).max() > 0.1


@pytest.mark.parametrize("groups", [1, 4])
def test_running_values_move_by_a_tenth_to_the_mean_over_groups_of_the_biased_statistics(groups):
    start = dict(mean=jnp.full(5, 2.0), var=jnp.full(5, 3.0))
    _, moved = BatchNorm(groups).apply(variables(**start), X.astype(np.float32), True, mutable=["batch_stats"])
    parts = X.reshape(groups, -1, 5).astype(np.float64)
    np.testing.assert_allclose(moved["batch_stats"]["mean"], 0.9 * 2 + 0.1 * parts.mean(1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(moved["batch_stats"]["var"], 0.9 * 3 + 0.1 * parts.var(1).mean(0), rtol=1e-4)


def test_evaluation_uses_the_running_values_whatever_the_batch_and_leaves_them():
    stats = dict(mean=jnp.arange(5.0), var=jnp.arange(1.0, 6.0))
    net = BatchNorm(groups=4)  # a batch of 3 is no multiple of the groups, and need not be
    y, kept = net.apply(variables(**stats), X[:3].astype(np.float32), False, mutable=["batch_stats"])
    expected = (X[:3] - np.arange(5)) / np.sqrt(np.arange(1, 6) + 1e-5) * SCALE + BIAS
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(kept["batch_stats"]["mean"], stats["mean"])
    np.testing.assert_array_equal(kept["batch_stats"]["var"], stats["var"])


def test_initialisation_leaves_the_running_values_and_starts_where_it_was_told():
    fresh = BatchNorm(zero_scale=True).init(jax.random.key(0), X.astype(np.float32), True)
    np.testing.assert_array_equal(fresh["batch_stats"]["mean"], np.zeros(5))
    np.testing.assert_array_equal(fresh["batch_stats"]["var"], np.ones(5))
    np.testing.assert_array_equal(fresh["params"]["scale"], np.zeros(5))
    bare = BatchNorm(use_scale=False, use_bias=False)
    assert "params" not in bare.init(jax.random.key(0), X.astype(np.float32), True)


def test_half_precision_in_and_out_with_statistics_in_float32():
    many = 3 + np.random.RandomState(1).randn(4096, 5)  # a bfloat16 sum of this many would stop growing
    half = jnp.asarray(many, jnp.bfloat16)
    y, moved = run(half)
    assert y.dtype == jnp.bfloat16
    assert moved["batch_stats"]["mean"].dtype == jnp.float32
    np.testing.assert_allclose(moved["batch_stats"]["mean"], 0.1 * np.asarray(half, np.float64).mean(0), rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("fsdp", [1, 2])
def test_values_gradients_and_statistics_do_not_depend_on_the_mesh(groups, fsdp):
    """Four groups over eight devices cut across both: a group is two devices' images."""

    def loss(params, x):
        both = {"params": params, "batch_stats": variables()["batch_stats"]}
        y, stats = BatchNorm(groups).apply(both, x, True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y)), (y, stats)

    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    params, x = variables()["params"], jnp.asarray(X, jnp.float32)
    expected = jax.jit(gradient)(params, x)
    mesh = sharding.make_mesh(fsdp, jax.devices()[:8])
    assert mesh.size == 8
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, sharding.batched(mesh))
        found = jax.jit(gradient)(jax.device_put(params, sharding.replicated(mesh)), placed)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), jax.device_get(found), expected)
    assert not found[0][1][0].sharding.is_fully_replicated
