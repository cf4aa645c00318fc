"""What DINO, iBOT, DINOv2, I-JEPA, BEiT and SimMIM ask of the vision transformer beyond MAE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax_ssl.configs import common

from jax_ssl import sharding
from jax_ssl.errors import UserError
from jax_ssl.models import relative, vit
from jax_ssl.models.transformer import REMAT, SwiGlu, rescale_residuals
from jax_ssl.plan import collectives, flops
from tests.models.test_vit import IMAGES, SMALL, close, init

FRESH = dict(width=128, depth=2, heads=2, patch=8, mlp_ratio=2.0)
EIGHT = jax.random.normal(jax.random.key(3), (16, 8, 8, 3))  # 2 x 2 patches


def fresh(**overrides):
    """The parameters that training starts from."""
    net = vit.make(**(SMALL | FRESH | overrides))
    return jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]


def test_the_defaults_of_a_config_are_those_of_the_network():
    settings = common.vit("Ti")
    settings.pop("name")
    plain = {name: value for name, value in settings.items() if name in SMALL}
    assert vit.make(**settings) == vit.make(**plain)


# ---- the gated MLP


def test_swiglu_is_the_gate_times_the_value_and_of_dinov2s_size():
    net, params = init(mlp="swiglu", mlp_ratio=4.0, depth=1)
    block = jax.tree.map(lambda x: x[0], params["encoder"]["blocks"])
    assert block["mlp"]["w12"]["kernel"].shape == (16, 2 * 48)  # 64 * 2 / 3 = 42.7, up to a multiple of 8
    for width, hidden in ((384, 1024), (1024, 2736), (1536, 4096)):
        wide = vit.make(**(SMALL | dict(width=width, mlp="swiglu", mlp_ratio=4.0)))
        shapes = jax.eval_shape(wide.init, jax.random.key(0), IMAGES)["params"]["encoder"]["blocks"]["mlp"]
        assert shapes["w12"]["kernel"].shape == (2, width, 2 * hidden)
    x = np.random.RandomState(0).randn(3, 16).astype(np.float32)
    both = x @ block["mlp"]["w12"]["kernel"] + block["mlp"]["w12"]["bias"]
    gate, value = both[:, :48], both[:, 48:]
    expected = (gate / (1 + np.exp(-gate)) * value) @ block["mlp"]["w3"]["kernel"] + block["mlp"]["w3"]["bias"]
    close(SwiGlu(4.0, jnp.float32).apply({"params": block["mlp"]}, x), expected)


# ---- first values


def test_first_values_are_those_of_the_papers_code():
    """DINO leaves torch's convolution as it is, I-JEPA does not, BEiT cuts at one standard deviation."""
    xavier, normal, every, cut = (fresh(init=kind) for kind in ("xavier", "normal", "normal_all", "cut_normal"))
    inside = lambda params: params["encoder"]["blocks"]["mlp"]["fc1"]["kernel"]
    np.testing.assert_allclose(np.std(inside(normal)), 0.02, rtol=0.03)
    assert np.abs(inside(normal)).max() > 0.06
    np.testing.assert_allclose(np.std(inside(cut)), 0.02 * 0.5396, rtol=0.03)
    assert np.abs(inside(cut)).max() <= 0.02
    bound = (8 * 8 * 3) ** -0.5
    for leaf in normal["embed"].values():
        np.testing.assert_allclose([leaf.min(), leaf.max()], [-bound, bound], rtol=0.06)
    for params, spread in ((every, 0.02), (cut, 0.02 * 0.5396), (xavier, np.sqrt(2 / (192 + 128)))):
        np.testing.assert_allclose(np.std(params["embed"]["kernel"]), spread, rtol=0.03)
        assert not params["embed"]["bias"].any()
    assert np.abs(cut["cls_token"]).max() <= 0.02 < np.abs(every["positions"]).max()
    for params in (xavier, normal, every, cut):
        linears = (("attention", "qkv"), ("attention", "out"), ("mlp", "fc1"), ("mlp", "fc2"))
        assert not any(params["encoder"]["blocks"][branch][name]["bias"].any() for branch, name in linears)


@pytest.mark.parametrize("mlp, last", [("gelu", "fc2"), ("swiglu", "w3")])
def test_what_later_blocks_add_starts_smaller_and_nothing_else_changes(mlp, last):
    before = fresh(mlp=mlp, depth=3)
    after = rescale_residuals(before)
    factors = np.sqrt([2.0, 4.0, 6.0])[:, None, None]
    for part in (("attention", "out"), ("mlp", last)):
        ours, theirs = (tree["encoder"]["blocks"][part[0]][part[1]].pop("kernel") for tree in (after, before))
        np.testing.assert_allclose(ours * factors, theirs, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, after, before)


# ---- biases and relative positions


def test_without_a_bias_of_the_keys_it_is_zero_and_the_others_act():
    net, params = init(key_bias=False)
    whole, with_key = init()
    attention = params["encoder"]["blocks"]["attention"]
    bias = np.concatenate([attention["query_bias"], np.zeros((2, 16)), attention["value_bias"]], axis=1)
    assert "bias" not in attention["qkv"]
    same = jax.tree.map(lambda x: x, params)
    qkv = attention["qkv"] | {"bias": jnp.asarray(bias)}
    same["encoder"]["blocks"]["attention"] = {"qkv": qkv, "out": attention["out"]}
    assert jax.tree.structure(same) == jax.tree.structure(with_key)
    close(net(params, IMAGES).patches, whole(same, IMAGES).patches)


def test_rows_of_the_relative_table_by_hand():
    """A row of two patches behind a class token: offsets -1, 0, 1, then class as query, as key, as both."""
    np.testing.assert_array_equal(relative.index(1, 2, True), [[5, 3, 3], [4, 1, 0], [4, 2, 1]])
    whole = relative.index(3, 4, False)
    assert whole.shape == (12, 12) and set(whole.ravel()) == set(range(5 * 7))
    assert whole[0, 11] == 0 and whole[11, 0] == 34 and (np.diag(whole) == 17).all()


@pytest.mark.parametrize("pool, rows", [("cls", 49 + 3), ("mean", 49)])
@pytest.mark.parametrize("kind", ["shared", "block"])
def test_a_relative_bias_starts_at_zero_and_is_added_to_the_logits(kind, pool, rows):
    settings = dict(relative_bias=kind, positions="none", pool=pool)
    net, params = init(**settings)
    tree = params["encoder"] if kind == "shared" else params["encoder"]["blocks"]
    table = tree["relative_bias"]["table"]
    assert table.shape == ((rows, 2) if kind == "shared" else (2, rows, 2))
    start = fresh(**settings)["encoder"]
    assert not (start if kind == "shared" else start["blocks"])["relative_bias"]["table"].any()
    # A table that forbids all but the token itself: attention is the identity.
    own = relative.index(4, 4, pool == "cls").diagonal()
    alone = np.full(table.shape, -1e4, np.float32)
    alone[..., np.unique(own), :] = 0
    tree["relative_bias"] = {"table": jnp.asarray(alone)}
    weights = vit.attention(vit.make(**(SMALL | settings)), {"params": params}, IMAGES)
    close(weights, np.broadcast_to(np.eye(len(own)), weights.shape))


@pytest.mark.parametrize("kind", ["shared", "block"])
def test_without_positions_order_is_lost_and_relative_ones_bring_it_back(kind):
    rows = lambda x, size: x.reshape(3, 4, size, *x.shape[2:])[:, ::-1].reshape(x.shape)
    flipped = rows(IMAGES, 4)
    plain, params = init(positions="none")
    close(plain(params, flipped).patches, rows(plain(params, IMAGES).patches, 4))
    net, params = init(positions="none", relative_bias=kind)
    assert np.abs(net(params, flipped).patches - rows(net(params, IMAGES).patches, 4)).max() > 1e-2


def test_relative_positions_serve_another_grid_and_refuse_what_they_cannot():
    net, params = init(positions="none", relative_bias="shared")
    larger = jax.random.normal(jax.random.key(1), (2, 24, 20, 3))
    assert net(params, larger).patches.shape == (2, 30, 16)
    ramp = jnp.concatenate([jnp.tile(jnp.arange(7.0), 7), jnp.array([7.0, 8.0, 9.0])])[:, None]  # the column's offset
    apply = lambda rows, columns: relative.RelativeBias(1, rows, columns, True).apply({"params": {"table": ramp}})
    assert apply(4, 4).shape == (1, 17, 17)
    resized = apply(4, 6)[0]
    np.testing.assert_allclose(resized[0], [9] + 24 * [7])
    np.testing.assert_allclose(resized[1, 1:7], np.clip((np.arange(5, -1, -1) + 0.5) * 7 / 11 - 0.5, 0, 6), rtol=1e-5)
    with pytest.raises(UserError, match="no square"):
        oblong, params = init(jnp.zeros((1, 16, 12, 3)), positions="none", relative_bias="shared")
        oblong(params, IMAGES)
    with pytest.raises(UserError, match="relative_bias='none'"):
        net(params, IMAGES, keep=jnp.zeros((3, 2), int))
    with pytest.raises(UserError, match="registers=2"):
        vit.make(**(SMALL | dict(registers=2, relative_bias="block")))


@pytest.mark.parametrize("remat", REMAT)
def test_gradients_reach_everything_that_beit_has(remat):
    settings = dict(relative_bias="shared", positions="none", key_bias=False, layer_scale=0.1, remat=remat)
    net, params = init(**settings)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(net(p, IMAGES).patches ** 3 * jnp.arange(16.0))))(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


# ---- drop path that skips work


@pytest.mark.parametrize("batch, group", [(48, 16), (24, 8)])
def test_a_fixed_number_of_rows_in_each_group_gets_the_branch_scaled_up(batch, group):
    """With one branch made zero, a row is either untouched or has the other branch times group / kept."""
    net = vit.make(**(SMALL | dict(depth=1, drop_path=0.4, drop_path_uniform=True, pool="mean")))
    _, params = init(EIGHT[:1], depth=1, pool="mean")
    block = params["encoder"]["blocks"]
    block["mlp"]["fc2"] = jax.tree.map(jnp.zeros_like, block["mlp"]["fc2"])
    images = jnp.tile(EIGHT, (3, 1, 1, 1))[:batch]
    tokens = lambda train: jax.jit(lambda p, k: net.apply(
        {"params": p}, images, train, rngs={"drop_path": k}, capture_intermediates=lambda m, _: m.name == "encoder"
    )[1]["intermediates"]["encoder"]["__call__"][0])  # fmt: skip
    out, full = tokens(True)(params, jax.random.key(1)), tokens(False)(params, jax.random.key(1))
    block["attention"]["out"] = jax.tree.map(jnp.zeros_like, block["attention"]["out"])
    before = tokens(False)(params, jax.random.key(1))
    added = np.abs(np.asarray(out - before)).max((1, 2)) > 1e-6
    kept = int(group * 0.6)
    assert (added.reshape(-1, group).sum(1) == kept).all()
    close(out, np.where(added[:, None, None], before + (full - before) * group / kept, before))
    other = np.abs(np.asarray(tokens(True)(params, jax.random.key(2)) - before)).max((1, 2)) > 1e-6
    assert not np.array_equal(added.reshape(-1, group)[0], added.reshape(-1, group)[1]) or (added != other).any()


def test_compiled_work_falls_by_about_the_rate_and_only_where_it_may():
    def work(batch=16, **overrides):
        net = vit.make(**(SMALL | dict(width=64, depth=1) | overrides))
        params = jax.eval_shape(net.init, jax.random.key(0), IMAGES)["params"]
        images = jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.float32)
        step = jax.jit(jax.grad(lambda p, x, k: net.apply(
            {"params": p}, x, True, rngs={"drop_path": k}).patches.sum()))  # fmt: skip
        traced = step.trace(params, images, jax.random.key(0))
        return flops.count(traced.jaxpr), traced.lower().compile().cost_analysis()["flops"]

    uniform = dict(drop_path_uniform=True)
    (all_of_it, compiled), (some, compiled_some) = work(), work(drop_path=0.4, **uniform)
    assert 0.55 < some / all_of_it < 0.60  # 9 of 16 rows, and the patch embedding in full
    assert 0.5 < compiled_some / compiled < 0.65
    for exception in (dict(drop_path=0.4), dict(drop_path=0.1, **uniform), dict(drop_path=0.4, batch=12, **uniform)):
        assert work(**exception)[0] / work(batch=exception.get("batch", 16))[0] > 0.99


@pytest.mark.parametrize("rate, batch", [(0.1, 512), (0.3, 508)])
def test_small_rates_and_odd_batches_drop_each_image_by_chance_at_the_same_rate_in_all_blocks(rate, batch):
    _, params = init(EIGHT[:1], pool="mean")
    net = vit.make(**(SMALL | dict(pool="mean", drop_path=rate, drop_path_uniform=True)))
    images = jnp.tile(EIGHT[:1], (batch, 1, 1, 1))
    apply = jax.jit(lambda images: net.apply({"params": params}, images, True, rngs={"drop_path": jax.random.key(0)}))
    out = apply(images).pooled
    outcomes, counts = np.unique(np.round(np.asarray(out), 3), axis=0, return_counts=True)
    assert len(outcomes) > 4  # two blocks of two branches, each of which may be missing
    assert abs(counts.max() / batch - (1 - rate) ** 4) < 0.08


@pytest.mark.parametrize("remat", ["none", "dots"])
def test_dropped_work_is_the_same_on_any_mesh_and_moves_nothing_between_devices(remat):
    net = vit.make(**(SMALL | dict(drop_path=0.4, drop_path_uniform=True, remat=remat)))
    _, params = init(EIGHT[:1])
    images = jax.random.normal(jax.random.key(5), (128, 8, 8, 3))

    def step(params, images):
        apply = lambda p: net.apply({"params": p}, images, True, rngs={"drop_path": jax.random.key(2)})
        return jax.value_and_grad(lambda p: jnp.sum(apply(p).patches ** 3 * jnp.arange(16.0)) / 128)(params)

    results, programs = [], []
    for devices, fsdp in ((1, 1), (8, 2)):
        mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
        with jax.set_mesh(mesh):
            laid = sharding.shard_batch(np.asarray(images), mesh)
            compiled = jax.jit(step).lower(sharding.replicate(params, mesh), laid).compile()
            results.append(jax.device_get(compiled(sharding.replicate(params, mesh), laid)))
            programs.append(compiled.as_text())
    (expected, expected_gradient), (value, gradient) = results
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
    jax.tree.map(same, gradient, expected_gradient)
    assert set(collectives.census(programs[1])) == {"all-reduce"}  # of the gradients


# ---- pictures


@pytest.mark.parametrize("remat", REMAT)
def test_attention_of_the_last_block_comes_out(remat):
    settings = dict(remat=remat, registers=2)
    (_, params), net = init(**settings), vit.make(**(SMALL | settings))
    weights = vit.attention(net, {"params": params}, IMAGES)
    assert weights.shape == (3, 2, 19, 19) and weights.dtype == jnp.float32
    close(weights.sum(-1), np.ones((3, 2, 19)))
    stacked = jax.jit(lambda params: net.apply({"params": params}, IMAGES, mutable=["intermediates"])[1])(params)
    (every,) = stacked["intermediates"]["encoder"]["blocks"]["attention"]["attention"]
    assert every.shape == (2, 3, 2, 19, 19)
    np.testing.assert_array_equal(every[-1], weights)
    assert np.abs(every[0] - weights).max() > 0.01


def test_keys_of_the_last_block_come_out():
    (_, params), net = init(registers=2), vit.make(**(SMALL | dict(registers=2)))
    bias = params["encoder"]["blocks"]["attention"]["qkv"]["bias"]  # (depth, 3 D)

    @jax.jit
    def keys(bias):
        changed = traverse_util.flatten_dict(params) | {("encoder", "blocks", "attention", "qkv", "bias"): bias}
        return net.keys({"params": traverse_util.unflatten_dict(changed)}, IMAGES)

    found = keys(bias)
    assert found.shape == (3, 16, 16)  # without class token and registers
    close(keys(bias.at[1, 16:32].add(1)), found + 1)
    np.testing.assert_array_equal(keys(bias.at[1, :16].add(1).at[1, 32:].add(1)), found)  # queries and values
    assert np.abs(keys(bias.at[0].add(1)) - found).max() > 0.01


def test_the_norm_of_the_mean_comes_behind_the_pooling():
    net, params = init(pool="norm_of_mean")
    features = net(params, IMAGES)
    mean = features.patches.mean(1)
    normed = (mean - mean.mean(-1, keepdims=True)) / np.sqrt(mean.var(-1, keepdims=True) + 1e-6)
    close(features.pooled, normed * params["norm"]["scale"] + params["norm"]["bias"])
    assert "cls_token" in params
