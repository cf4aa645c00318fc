import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jax_ssl import sharding
from jax_ssl.models.dense import Dense, gelu, multiply, native
from jax_ssl.plan import collectives, flops
from tests.near import relative_error


def draw(leading=(16, 5), width=12, outputs=20, dtype=np.float32):
    """x, kernel and what comes back to the outputs."""
    shapes = (*leading, width), (width, outputs), (*leading, outputs)
    return [np.random.RandomState(0).randn(*shape).astype(dtype) for shape in shapes]


def both_ways(function, x, kernel, g):
    """Output and both gradients."""
    y, back = jax.vjp(lambda x, kernel: function(x, kernel, None), x, kernel)
    return y, *back(g)


@pytest.mark.parametrize("leading", [(80,), (16, 5), (4, 2, 10)])
def test_outputs_and_gradients_are_those_of_xla(leading):
    given = draw(leading)
    mine = jax.jit(lambda *a: both_ways(multiply, *a))(*given)
    for a, b in zip(mine, both_ways(native, *given), strict=True):
        assert a.dtype == b.dtype
        assert relative_error(a, b) < 1e-6


def test_a_layer_is_flaxs_own_in_name_shape_and_start():
    x, _, _ = draw()
    ours, theirs = (
        nn.Sequential([layer(7), nn.relu, layer(3)]).init(jax.random.key(0), x) for layer in (Dense, nn.Dense)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_on_a_cpu_the_kernels_gradient_sums_over_one_axis_and_elsewhere_over_all():
    """Joined axes are a copy on a TPU; two of them are a slow loop on a CPU."""
    step = jax.jit(lambda *a: both_ways(multiply, *a)[2])
    lowered = step.trace(*draw()).lower(lowering_platforms=("tpu",)).as_text()
    assert "contracting_dims = [0, 1] x [0, 1]" in lowered and "stablehlo.reshape" not in lowered
    assert "contracting_dims = [0] x [0]" in step.lower(*draw()).as_text()


def test_the_batch_may_be_split_over_devices_and_is_not_gathered():
    given, mesh = draw(), sharding.make_mesh()
    split, whole = sharding.batched(mesh), sharding.replicated(mesh)
    step = jax.jit(
        lambda *a: both_ways(multiply, *a),
        in_shardings=(split, whole, split),
        out_shardings=(split, split, whole),
    )
    with jax.set_mesh(mesh):
        compiled = step.lower(*given).compile()
    assert set(collectives.census(compiled.as_text())) == {"all-reduce"}  # of the kernel's gradient


def test_flops_and_dtype_are_those_of_a_matmul():
    x, kernel, g = draw()
    count = lambda function: flops.count(jax.jit(lambda *a: both_ways(function, *a)).trace(x, kernel, g).jaxpr)
    assert count(multiply) == count(native)
    layer = Dense(4, dtype=jnp.bfloat16)
    assert layer.apply(layer.init(jax.random.key(0), x), x).dtype == jnp.bfloat16


def test_gelu_is_the_exact_one_and_in_bfloat16_it_is_rounded_once():
    x = np.linspace(-12, 12, 20001, dtype=np.float32)
    exact = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64)])
    slope = jax.vmap(jax.grad(gelu))(jnp.asarray(x))
    np.testing.assert_allclose(gelu(x), exact, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(slope, np.gradient(exact, x.astype(np.float64)), atol=1e-4)
    halves = jnp.asarray(x, jnp.bfloat16)
    np.testing.assert_array_equal(gelu(halves), gelu(halves.astype(jnp.float32)).astype(jnp.bfloat16))
