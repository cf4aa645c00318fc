import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jax_ssl import config
from jax_ssl.models.fused_attention import fused_attention
from jax_ssl.plan import flops
from jax_ssl.plan.compile import trace


def counted(function, *shapes):
    return flops.count(jax.jit(function).trace(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes)).jaxpr)


def test_a_matmul_is_two_for_each_multiply_add():
    assert counted(lambda a, b: a @ b, (8, 16), (16, 32)) == 2 * 8 * 16 * 32
    logits = lambda query, key: jnp.einsum("bqhd,bkhd->bhqk", query, key)
    assert counted(logits, (3, 5, 2, 7), (3, 6, 2, 7)) == 2 * 3 * 5 * 6 * 2 * 7


def test_a_scan_counts_as_often_as_it_runs():
    layers = lambda x, w: lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]
    assert counted(layers, (4, 8), (24, 8, 8)) == 24 * 2 * 4 * 8 * 8


def test_the_gradient_of_a_remat_scan_counts_what_is_computed_again():
    layer = jax.checkpoint(lambda x, w: (jnp.sin(x @ w), None))
    loss = lambda x, w: lax.scan(layer, x, w)[0].sum()
    # Forward, the same again, and two matmuls backwards.
    assert counted(jax.grad(loss, argnums=(0, 1)), (4, 8), (6, 8, 8)) == 6 * (1 + 1 + 2) * 2 * 4 * 8 * 8


def test_a_cond_counts_its_dearest_branch():
    branches = lambda x, w: lax.cond(x.sum() > 0, lambda: x @ w, lambda: x)
    assert counted(branches, (4, 8), (8, 8)) == 2 * 4 * 8 * 8


def test_a_kernel_counts_as_what_it_says_of_itself():
    kernel = lambda qkv: fused_attention(qkv, 2, jnp.zeros(3 * 128))
    assert counted(kernel, (3, 5, 3 * 128)) == 2 * 2 * 3 * 5 * 5 * 128  # logits, and their sums of values
    back = lambda qkv: jax.vjp(kernel, qkv)[1](jnp.ones((3, 5, 128)))
    assert counted(back, (3, 5, 3 * 128)) == (2 + 5) * 2 * 3 * 5 * 5 * 128  # forward, and back


def test_a_shard_map_counts_all_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = jax.P("data"), jax.P()
    product = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(split, whole), out_specs=split)
    assert counted(product, (16, 8), (8, 8)) == 2 * 16 * 8 * 8


@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 1, 1), (2, 1, 1), (2, 3, 1), (1, 0, 4)])
@pytest.mark.parametrize("argument", [0, 1])
def test_convolutions_and_their_gradients_agree_with_xla(stride, padding, groups, argument):
    def energy(x, w):
        y = lax.conv_general_dilated(
            x, w, (stride, stride), [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip
        return jnp.square(y).sum()

    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((4, 12, 10, 8), (3, 3, 8 // groups, 16))]
    traced = jax.jit(jax.grad(energy, argument)).trace(*shapes)
    # The lowered program is not optimised yet: it has the same convolutions, none of them rewritten.
    assert flops.count(traced.jaxpr) == pytest.approx(traced.lower().cost_analysis()["flops"], rel=0.02)


def test_maes_encoder_runs_on_a_quarter_of_the_patches():
    """ViT-L/16 and its decoder, forward and backward: hiding 75 % leaves under a third of the work of hiding none."""
    step = {}
    for ratio in (0.75, 0.0):
        settings = config.load("mae:paper", [f"--config.method.mask_ratio={ratio}", "--config.batch_size=8"])
        step[ratio] = flops.count(trace(settings, jax.devices()[:1])[-1].jaxpr)
    assert 3 < step[0.0] / step[0.75] < 4
