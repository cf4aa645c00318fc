"""Which implementation of attention is taken, and that a transformer with a kernel is the same transformer."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import sharding
from jax_ssl.models import fused_attention, implementation
from jax_ssl.models.implementation import Chip, choose
from jax_ssl.models.predictor import Predictor
from jax_ssl.models.transformer import Transformer
from jax_ssl.plan import collectives
from tests.models.test_fused_attention import by_definition, error, interpreter  # noqa: F401

V5E, V3, CPU = Chip("tpu", "TPU v5 lite"), Chip("tpu", "TPU v3"), Chip("cpu", "cpu")
H100, OLD_GPU = Chip("gpu", "NVIDIA H100 80GB HBM3", cudnn=True), Chip("gpu", "Tesla P100")
HALF, FULL = jnp.dtype("bfloat16"), jnp.dtype("float32")


@pytest.mark.parametrize(
    "wish, chip, shape, dtype, kernel, reason",
    [
        ("auto", V5E, (197, 384, 6), HALF, "pallas", ""),
        ("auto", V3, (257, 1536, 24), HALF, "pallas", ""),
        ("auto", V3, (257, 1280, 16), HALF, "plain", "257 tokens of 80 channels a head"),
        ("plain", V5E, (197, 384, 6), HALF, "plain", ""),
        ("auto", V5E, (197, 384, 6), FULL, "plain", "asked for"),
        ("fused", V5E, (197, 384, 6), FULL, "pallas", ""),
        ("fused", V5E, (197, 192, 3), HALF, "plain", "whole tiles"),  # ViT-Ti: one head and a half a tile
        ("fused", V5E, (1370, 1024, 16), HALF, "plain", "1370 tokens .* of 12 MiB"),
        ("auto", CPU, (197, 384, 6), HALF, "plain", "no kernel for a cpu"),
        ("auto", H100, (197, 384, 6), HALF, "cudnn", ""),
        ("fused", H100, (197, 384, 6), FULL, "plain", "no float32"),
        ("auto", H100, (197, 384, 2), HALF, "plain", "up to 128 channels"),
        ("auto", OLD_GPU, (197, 384, 6), HALF, "plain", "no cuDNN"),
    ],
)
def test_the_wish_the_chip_and_the_shape_decide(wish, chip, shape, dtype, kernel, reason):
    choice = choose(wish, chip, *shape, dtype)
    assert choice.kernel == kernel and bool(choice.reason) == bool(reason)
    assert re.search(reason, choice.reason)


@pytest.mark.parametrize(
    "chip, bias, kernel",
    [(V5E, (12, 197, 197), "pallas"), (V5E, (1, 1, 197), "pallas"), (V5E, (8, 12, 197, 197), "plain"),
     (V5E, (3, 197, 197), "plain"), (H100, (1, 1, 197), "plain")],
)  # fmt: skip
def test_a_bias_decides_too(chip, bias, kernel):
    assert choose("auto", chip, 197, 768, 12, HALF, bias).kernel == kernel


@pytest.fixture
def on_a_tpu(monkeypatch, interpreter):  # noqa: F811
    """Transformers believe that they are traced for a TPU; Pallas's interpreter runs their kernels."""
    monkeypatch.setattr(implementation, "chip", lambda: V5E)


def gradients(net, params, x, **kwargs):
    loss = lambda params: (net.apply({"params": params}, x, **kwargs).astype(jnp.float32) ** 2).mean()
    return jax.jit(jax.value_and_grad(loss))(params)


def test_a_transformer_with_a_kernel_is_the_same(on_a_tpu):
    make = partial(Transformer, depth=2, heads=1, mlp_ratio=1.0, relative_bias="block", initial="normal", remat="dots")
    x, window = jax.random.normal(jax.random.key(0), (2, 5, 128)), (2, 2, True)
    params = make().init(jax.random.key(1), x, window=window)["params"]
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), params)
    kernel = make(attention="fused")
    assert "attend" in str(jax.make_jaxpr(lambda p: kernel.apply({"params": p}, x, window=window))(params))
    fused, plain = (gradients(net, params, x, window=window) for net in (kernel, make(attention="plain")))
    for found, wanted in zip(jax.tree.leaves(fused), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_on_a_mesh_the_gradients_of_all_blocks_are_summed_once(on_a_tpu):
    make = partial(Transformer, depth=3, heads=1, mlp_ratio=1.0, initial="normal")
    x, mesh = jax.random.normal(jax.random.key(0), (8, 5, 128)), sharding.make_mesh()
    params = make().init(jax.random.key(1), x)["params"]
    wanted = gradients(make(attention="plain"), params, x)
    with jax.set_mesh(mesh):
        loss = lambda p, x: (make(attention="fused").apply({"params": p}, x) ** 2).mean()
        shards = (sharding.replicated(mesh), sharding.batched(mesh))
        step = jax.jit(jax.value_and_grad(loss), in_shardings=shards).lower(params, x).compile()
        found = step(params, x)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    sums = collectives.census(step.as_text())
    assert list(sums) == ["all-reduce"] and sums["all-reduce"]["count"] <= 1 + len(jax.tree.leaves(params))


def test_where_parameters_are_split_the_compiler_places_the_sums():
    asked = []
    for fsdp in (1, 2):
        with jax.set_mesh(sharding.make_mesh(fsdp)):
            asked.append(sharding.replicates_parameters())
    assert asked == [True, False] and not sharding.replicates_parameters()  # nor without a mesh


def test_padding_is_masked_in_the_predictor_by_a_kernel_too(on_a_tpu):
    tokens, index = jnp.ones((1, 3, 8)), jnp.array([[0, 1, 2]])
    asked, weight = jnp.array([[[4, 5, 0]]]), jnp.array([1.0, 1.0, 0.0])
    make = partial(Predictor, width=128, depth=1, heads=1, outputs=4)
    params = make().init(jax.random.key(0), tokens, index, asked, (3, 3))["params"]
    show = lambda wish: make(attention=wish).apply({"params": params}, tokens, index, asked, (3, 3), False, weight)
    fused, plain = jax.jit(lambda: [show("fused")[:, :, :2], show("plain")[:, :, :2]])()
    assert error(fused, plain) < 1e-5


def test_what_is_kept_beside_a_kernel_is_the_two_widest_results(on_a_tpu, capsys):
    net, x = Transformer(1, 1, mlp_ratio=2.0, remat="dots", attention="fused"), jnp.ones((2, 5, 128))
    params = net.init(jax.random.key(0), x)["params"]
    jax.ad_checkpoint.print_saved_residuals(lambda p: net.apply({"params": p}, x).sum(), params)
    kept = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "argument" not in line]
    assert {"f32[1,2,5,384]", "f32[1,2,5,256]"} <= set(kept)  # qkv and fc1
    assert not any(shape.endswith("5,5]") for shape in kept)


def test_a_picture_of_attention_gets_its_weights_from_plain_attention(on_a_tpu):
    net, x = Transformer(1, 2, attention="fused"), jnp.ones((2, 5, 128))
    params = jax.eval_shape(net.init, jax.random.key(0), x)["params"]
    _, seen = jax.eval_shape(lambda p: net.apply({"params": p}, x, mutable=["intermediates"]), params)
    assert seen["intermediates"]["blocks"]["attention"]["attention"][0].shape == (1, 2, 2, 5, 5)


def test_choices_are_noted_for_a_plan_and_nowhere_else():
    net, x = Transformer(1, 2, dtype=HALF), jnp.ones((2, 5, 128))
    with implementation.noted() as found:
        jax.eval_shape(net.init, jax.random.key(0), x)
    assert found == {(5, 128, 2): choose("auto", CPU, 5, 128, 2, HALF)}
    jax.eval_shape(net.init, jax.random.key(0), jnp.ones((2, 6, 128)))
    assert len(found) == 1


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
def test_cudnn_is_plain_attention_to_the_rounding_of_bfloat16():
    qkv = jax.random.normal(jax.random.key(0), (4, 197, 3 * 384), HALF)
    kernel = choose("auto", implementation.chip(), 197, 384, 6, HALF).kernel
    if kernel != "cudnn":
        pytest.skip("no cuDNN with attention")

    def both(function):
        y, back = jax.vjp(function, qkv.astype(FULL))
        return y, back(jnp.ones_like(y))[0]

    rounded = lambda x: implementation.attend("cudnn", x.astype(HALF), 6, jnp.zeros(3 * 384)).astype(FULL)
    for found, wanted in zip(both(rounded), both(lambda x: by_definition(x, 6)), strict=True):
        assert error(found, wanted) < 2e-2


def test_sizes_on_the_chip_grow_with_the_square_of_the_tokens():
    half, whole = (fused_attention.vmem_bytes(tokens, 64, 2) for tokens in (512, 1024))
    assert 3 < whole / half < 4 and fused_attention.vmem_bytes(197, 64, 2, 12) > fused_attention.vmem_bytes(197, 64, 2)
