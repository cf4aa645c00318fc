import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import sharding
from jax_ssl.models import conv
from jax_ssl.plan import collectives, flops

SHAPES = [  # images, side, channels in, out, taps, stride
    (4, 8, 32, 48, 3, 1),  # Winograd
    (40, 16, 32, 32, 3, 1),  # in several pieces
    (4, 8, 32, 48, 3, 2),
    (4, 8, 32, 48, 1, 2),
    (4, 6, 32, 32, 3, 1),  # no multiple of four
    (2, 4, 32, 256, 3, 1),  # too few tiles
    (4, 2, 32, 48, 3, 1),  # small maps, by their shifts
    (4, 2, 32, 48, 3, 2),
    (4, 2, 32, 48, 1, 2),
    (4, 1, 32, 48, 3, 1),  # one position: all but the middle of the kernel lies outside
]


def draw(images, side, channels, out, taps, stride):
    """x, kernel and what comes back to the outputs, so scaled that outputs are about one."""
    shapes = (images, side, side, channels), (taps, taps, channels, out), (images, side // stride, side // stride, out)
    x, kernel, g = (np.random.RandomState(0).randn(*shape).astype(np.float32) for shape in shapes)
    return x, kernel / np.sqrt(channels * taps**2).astype(np.float32), g


def both_ways(function, x, kernel, g):
    """Output and both gradients."""
    y, back = jax.vjp(function, x, kernel)
    return y, *back(g)


def assert_near(mine, expected, tolerance=1e-5):
    for a, b in zip(mine, expected, strict=True):
        b = np.asarray(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_are_those_of_xla(shape):
    stride, given = shape[-1], draw(*shape)
    mine = jax.jit(lambda *a: both_ways(lambda x, k: conv.conv(x, k, stride), *a))(*given)
    assert_near(mine, both_ways(lambda x, k: conv.native(x, k, stride), *given))


def test_the_batch_may_be_split_over_devices_and_is_not_gathered():
    shape = SHAPES[1]
    given, mesh = draw(*shape), sharding.make_mesh()
    split, whole = sharding.batched(mesh), sharding.replicated(mesh)
    step = jax.jit(
        lambda *a: both_ways(lambda x, k: conv.conv(x, k, 1), *a),
        in_shardings=(split, whole, split),
        out_shardings=(split, split, whole),
    )
    with jax.set_mesh(mesh):
        compiled = step.lower(*given).compile()
        assert set(collectives.census(compiled.as_text())) == {"all-reduce"}  # of the kernel's gradient
        assert_near(compiled(*given), both_ways(lambda x, k: conv.native(x, k, 1), *given))


def test_other_platforms_get_the_convolution_of_their_own_compiler():
    x, kernel, g = draw(*SHAPES[0])
    step = jax.jit(lambda *a: both_ways(lambda x, k: conv.conv(x, k, 1), *a))
    text = step.trace(x, kernel, g).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("stablehlo.convolution") == 3 and "dot_general" not in text
    assert "stablehlo.convolution" not in step.lower(x, kernel, g).as_text()


def test_flops_are_counted_as_those_of_a_convolution():
    x, kernel, _ = draw(*SHAPES[0])
    count = lambda function: flops.count(jax.jit(function).trace(x, kernel).jaxpr)
    assert count(lambda x, k: conv.conv(x, k, 1)) == count(lambda x, k: conv.native(x, k, 1))


def test_only_plain_float32_convolutions_of_many_channels_take_the_fast_way():
    numbers = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def fast(shape, dtype=jnp.float32, padding=((1, 1), (1, 1))):
        x, kernel, _ = draw(*shape)
        call = lambda x, k: conv.convolve(x, k, (shape[-1],) * 2, padding, **numbers)
        return "custom_vjp" in str(jax.make_jaxpr(call)(x.astype(dtype), kernel.astype(dtype)))

    assert fast(SHAPES[0])
    assert not fast(SHAPES[0], dtype=jnp.bfloat16)
    assert not fast(SHAPES[0], padding=((0, 0), (0, 0)))
    assert not fast((4, 8, 3, 64, 3, 1))


def test_the_transforms_are_exact_on_polynomials():
    """F(4, 3) of a row: outputs of a correlation of six inputs with three weights."""
    inputs, weights = np.random.RandomState(0).randn(6), np.random.RandomState(1).randn(3)
    y = conv.OUTPUTS @ ((conv.KERNELS @ weights) * (conv.INPUTS @ inputs))
    np.testing.assert_allclose(y, np.correlate(inputs, weights), rtol=1e-12)
