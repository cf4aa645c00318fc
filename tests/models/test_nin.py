"""Network in Network has the blocks, the maps and the parameters of the official code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_ssl.configs import common

from jax_ssl.encoder import Encoder, at_depth
from jax_ssl.models import nin


def make(blocks=4, **overrides):
    settings = common.nin(blocks, dtype="float32", **overrides)
    settings.pop("name")
    return nin.make(**settings)


def shapes(net):
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    features, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), images)
    return variables, features


def test_the_maps_and_parameters_of_four_blocks():
    """Kernels 5x5, 1x1, 1x1 and 3x3, 1x1, 1x1 without a bias; two numbers a channel for batch norm."""
    variables, features = shapes(make())
    assert features.patches.shape == (2, 64, 192) and features.pooled.shape == (2, 192)
    kernels = 25 * 3 * 192 + 192 * 160 + 160 * 96 + 25 * 96 * 192 + 2 * 192**2 + 2 * (9 + 2) * 192**2
    norms = 2 * (192 + 160 + 96 + 9 * 192)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == kernels + norms


@pytest.mark.parametrize("depth, positions, width", [(1, 256, 96), (2, 64, 192), (3, 64, 192), (4, 64, 192)])
def test_it_is_read_behind_each_block_and_its_pool(depth, positions, width):
    variables, _ = shapes(make())
    short = at_depth(Encoder(make(), variables), depth)
    assert set(short.variables["params"]) == {f"Block_{number}" for number in range(depth)}
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    assert jax.eval_shape(short.backbone.apply, short.variables, images).patches.shape == (2, positions, width)


def test_the_first_half_of_a_network_is_its_beginning():
    net = make(3, width=1 / 32)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    encode = Encoder(net, dict(net.init(jax.random.key(1), images)))
    np.testing.assert_array_equal(at_depth(encode, 3)(images).pooled, encode(images).pooled)
    other = make(2, width=1 / 32)
    short = at_depth(encode, 2)
    np.testing.assert_array_equal(other.apply(short.variables, images).patches, short(images).patches)


def test_the_average_pool_counts_the_border_as_zeros_as_torch_does():
    net = nin.Block((1, 1, 1), 1, 1, jnp.dtype("float32"), nin.partial(nin.nn.avg_pool, **nin.POOL))
    ones = jnp.ones((1, 4, 4, 1))
    variables = net.init(jax.random.key(0), ones, False)
    plain = nin.Block((1, 1, 1), 1, 1, jnp.dtype("float32"), None).apply(variables, ones, False)
    pooled = net.apply(variables, ones, False)
    np.testing.assert_allclose(pooled[0, :, :, 0], plain[0, 0, 0, 0] * np.array([[4, 6], [6, 9]]) / 9, rtol=1e-6)
