"""The kernels against the definition in float32, in Pallas's interpreter, and compiled by the TPU's own compiler."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jax_ssl import sharding
from jax_ssl.models import fused_attention as fused
from jax_ssl.models.implementation import Chip, choose
from jax_ssl.plan import collectives, topology

# Images, tokens, heads, channels of a head.
SHAPES = [(2, 37, 2, 64), (1, 19, 8, 80)]
REAL = [(1, 197, 2, 64), (1, 257, 2, 64)]
LONG = [(1, 20, 4, 96), (1, 197, 4, 32), (2, 65, 16, 24), (1, 257, 8, 80), (2, 50, 16, 64)]
WITHIN = {"float32": (1e-5, 1e-4), "bfloat16": (1.2e-2, 1.2e-2)}  # of the largest entry: values, gradients
CHIPS = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2", "v3": "v3:2x2", "v2": "v2:2x2"}


@pytest.fixture(autouse=True)
def interpreter(monkeypatch, request):
    """Pallas's interpreter runs the kernels, unless a test is for the compiler of a chip."""
    if "chip" not in request.fixturenames:
        replaced = vars(pl) | {"pallas_call": partial(pl.pallas_call, interpret=True)}
        monkeypatch.setattr(fused, "pl", SimpleNamespace(**replaced))


def by_definition(qkv, heads, offset=0.0, bias=None, rope=None):
    """softmax(q k^T / sqrt(d) + bias) v of qkv + offset, q and k rotated: (B, N, 3D) -> (B, N, D)."""
    batch, tokens, width = qkv.shape
    q, k, v = jnp.moveaxis((qkv + offset).reshape(batch, tokens, 3, heads, -1), 2, 0)
    if rope is not None:
        halves = lambda x: jnp.split(x, 2, axis=-1)
        turn = lambda x: x * rope[0][:, None] + jnp.concatenate([-halves(x)[1], halves(x)[0]], -1) * rope[1][:, None]
        q, k = turn(q), turn(k)
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    weights = jax.nn.softmax(logits if bias is None else logits + bias)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, tokens, width // 3)


def rotation(tokens, size):
    angle = jnp.tile(jax.random.uniform(jax.random.key(3), (tokens, size // 2), maxval=6.0), 2)
    return jnp.cos(angle), jnp.sin(angle)


def draw(shape, dtype, bias_shape=None):
    """qkv, what comes back, the offset of qkv, and a bias or None."""
    count, tokens, heads, size = shape
    keys = jax.random.split(jax.random.key(0), 4)
    qkv = jax.random.normal(keys[0], (count, tokens, 3 * heads * size), dtype)
    g = jax.random.normal(keys[1], (count, tokens, heads * size), dtype)
    offset = jax.random.normal(keys[3], (3 * heads * size,)).astype(dtype).astype(jnp.float32)
    return qkv, g, offset, None if bias_shape is None else jax.random.normal(keys[2], bias_shape)


def error(found, wanted):
    return float(jnp.abs(found.astype(jnp.float32) - wanted).max() / jnp.abs(wanted).max())


def compare(shape, dtype, bias_shape=None, rope=None):
    """Value and gradients of the kernels against the definition in float32."""
    (qkv, g, *added), heads = draw(shape, dtype, bias_shape), shape[2]

    @jax.jit
    def both(qkv, g, *added):
        kernel = jax.vjp(lambda q, *more: fused.fused_attention(q, heads, *more, rope), qkv, *added)
        with jax.default_matmul_precision("highest"):
            plain = jax.vjp(lambda q, *more: by_definition(q, heads, *more, rope), qkv.astype(jnp.float32), *added)
            return [(y, *back(g.astype(y.dtype))) for y, back in (kernel, plain)]

    (value, *grads), (wanted, *wanted_grads) = both(qkv, g, *added)
    values, gradients = WITHIN[jnp.dtype(dtype).name]
    assert value.dtype == grads[0].dtype == dtype and error(value, wanted) < values
    for found, exact in list(zip(grads, wanted_grads, strict=True))[: 2 + (bias_shape is not None)]:
        assert found.shape == exact.shape and error(found, exact) < gradients


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_the_definition(shape):
    compare(shape, jnp.float32)


def test_in_bfloat16_they_are_within_its_rounding():
    compare((1, 20, 2, 64), jnp.bfloat16)


@pytest.mark.parametrize("shape", REAL, ids=str)
def test_at_the_lengths_of_vision_transformers(shape):
    compare(shape, jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", LONG, ids=str)
def test_more_heads_and_lengths(shape, dtype):
    compare(shape, dtype)


@pytest.mark.parametrize("heads, bias", [(4, (4, 9, 9)), (2, (1, 1, 9))], ids=str)
def test_a_bias_of_each_head_or_of_keys_and_a_rotation_have_their_gradients(heads, bias, monkeypatch):
    monkeypatch.setattr(fused, "MOST_IMAGES", 1)  # sums over images go over several programs
    compare((2, 9, heads, 64), jnp.float32, bias, rotation(9, 64))  # of four heads there are two groups


@pytest.mark.slow
def test_a_rotation_of_heads_that_cross_tiles():
    compare((1, 20, 8, 80), jnp.float32, rope=rotation(20, 80))


def test_a_masked_key_counts_for_nothing():
    qkv, _, offset, _ = draw((1, 12, 1, 128), jnp.float32)
    bias = jnp.where(jnp.arange(12) < 9, 0.0, -1e9)[None, None]
    whole = jax.jit(lambda qkv: fused.fused_attention(qkv, 1, offset, bias))(qkv)[:, :9]
    np.testing.assert_allclose(whole, by_definition(qkv[:, :9], 1, offset), atol=1e-5)


def test_widened_operands_change_nothing_but_rounding():
    """What TPU v2 and v3 get: a matmul of what was bfloat16, in float32."""
    qkv, _, offset, _ = draw((1, 12, 1, 128), jnp.bfloat16)
    both = jax.jit(lambda qkv: [fused.fused_attention(qkv, 1, offset, None, None, widen) for widen in (True, False)])
    wide, narrow = both(qkv)
    assert error(wide, narrow.astype(jnp.float32)) < 1e-2


def test_each_device_has_its_own_images_and_a_bias_sums_over_all():
    qkv, g, offset, bias = draw((16, 9, 1, 128), jnp.float32, (1, 9, 9))

    @jax.jit
    def gradients(qkv, g, offset, bias):
        return jax.vjp(lambda q, *added: fused.fused_attention(q, 1, *added), qkv, offset, bias)[1](g)

    alone, mesh = gradients(qkv, g, offset, bias), sharding.make_mesh(fsdp=2)
    with jax.set_mesh(mesh):
        split, whole = sharding.batched(mesh), sharding.replicated(mesh)
        over = jax.jit(gradients, in_shardings=(split, split, whole, whole), out_shardings=(split, whole, whole))
        census = collectives.census(over.lower(qkv, g, offset, bias).compile().as_text())
        for found, wanted in zip(over(qkv, g, offset, bias), alone, strict=True):
            assert error(found, wanted) < 1e-5
    assert list(census) == ["all-reduce"] and census["all-reduce"]["bytes"] == 4 * (9 * 9 + 3 * 128)


# ---- the compiler's word


def compile_for(chip, count, tokens, heads, size, bias=None):
    """The compiled gradient of a kernel, for one chip."""
    pytest.importorskip("libtpu")
    mesh = sharding.make_mesh(1, topology.describe(topology.parse(CHIPS[chip]))[:1])
    shaped = lambda shape, dtype="bfloat16": jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P()))
    given = shaped((count, tokens, 3 * heads * size)), shaped((count, tokens, heads * size))
    given += (shaped((3 * heads * size,), "float32"), None if bias is None else shaped(bias, "float32"))

    def back(qkv, g, *added):
        kernel = lambda q, *more: fused.fused_attention(q, heads, *more, None, chip in ("v2", "v3"))
        return jax.vjp(kernel, qkv, *added)[1](g)

    with jax.set_mesh(mesh):
        return jax.jit(back).lower(*given).compile().as_text()


# A cache of compiled programs cannot give one of a described chip back: then it is compiled again.
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache")
@pytest.mark.parametrize("chip", CHIPS)
def test_the_compiler_of_each_chip_takes_the_kernels(chip):
    text = compile_for(chip, 8, 197, 6, 64)
    assert text.count('custom_call_target="tpu_custom_call"') == 1 and "197,197]" not in text  # no logits


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache")
@pytest.mark.parametrize("chip, kind", [("v3", "TPU v3"), ("v5e", "TPU v5 lite")])
@pytest.mark.parametrize(
    "shape",
    [(8, 37, 6, 64), (8, 50, 16, 64), (4, 257, 16, 80), (2, 257, 24, 64), (4, 197, 16, 32), (4, 176, 16, 24),
     (8, 197, 12, 64, (12, 197, 197)), (4, 130, 16, 24, (1, 1, 130))], ids=str,
)  # fmt: skip
def test_the_compiler_takes_what_the_rule_gives_it_of_the_shipped_configs(chip, kind, shape):
    _, tokens, heads, size, *bias = shape
    chosen = choose("auto", Chip("tpu", kind), tokens, heads * size, heads, jnp.dtype("bfloat16"), *bias)
    assert (chosen.kernel == "plain") == (chip == "v3" and size == 80), chosen.reason
    if chosen.kernel == "pallas":
        assert "tpu_custom_call" in compile_for(chip, *shape)
