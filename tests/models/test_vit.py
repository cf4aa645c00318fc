import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_ssl.configs import common

from jax_ssl.errors import UserError
from jax_ssl.models import positions, vit
from jax_ssl.models.transformer import REMAT

SMALL = dict(
    patch=4, width=16, depth=2, heads=2, mlp_ratio=2.0, positions="learned", pool="cls", registers=0, layer_scale=0.0,
    drop_path=0.0, epsilon=1e-6, remat="none", dtype="float32",
)  # fmt: skip
IMAGES = jax.random.normal(jax.random.key(0), (3, 16, 16, 3))  # 4 x 4 patches


def init(images=IMAGES, mask=None, **overrides):
    """(jitted application, parameters) of a small network whose every parameter is random, biases and tokens too."""
    net = vit.make(**(SMALL | overrides))
    shapes = jax.eval_shape(lambda key: net.init(key, images, mask=mask), jax.random.key(0))["params"]
    random = np.random.RandomState(0)
    params = jax.tree.map(lambda x: jnp.asarray(0.3 * random.randn(*x.shape), jnp.float32), shapes)
    return jax.jit(lambda params, *args, **kwargs: net.apply({"params": params}, *args, **kwargs)), params


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["learned", "sincos_column", "sincos_row"])
def test_keeping_all_patches_in_another_order_gathers_the_same_outputs(kind):
    net, params = init(positions=kind, registers=3)
    order = jnp.stack([jax.random.permutation(jax.random.key(i), 16) for i in range(3)])
    full, gathered = net(params, IMAGES), net(params, IMAGES, keep=order)
    close(gathered.patches, jnp.take_along_axis(full.patches, order[..., None], axis=1))
    close(gathered.pooled, full.pooled)
    close(gathered.registers, full.registers)
    assert np.abs(full.patches[:, 0] - full.patches[:, 1]).max() > 0.1


def test_what_is_not_kept_does_not_enter_and_what_is_kept_does():
    net, params = init()
    keep = jnp.array([[5, 0], [1, 2], [15, 3]])
    before = net(params, IMAGES, keep=keep)
    assert before.patches.shape == (3, 2, 16)
    inside = np.zeros((3, 4, 4), bool)
    inside[np.arange(3)[:, None], keep // 4, keep % 4] = True
    inside = inside.repeat(4, 1).repeat(4, 2)[..., None]
    close(net(params, jnp.where(inside, IMAGES, 9.0), keep=keep).patches, before.patches)
    assert np.abs(net(params, jnp.where(inside, 9.0, IMAGES), keep=keep).patches - before.patches).max() > 0.1


def test_the_mask_token_stands_where_the_mask_is_and_keeps_the_position():
    mask = np.zeros((3, 16), bool)
    mask[0, 3], mask[1, 5:9] = True, True
    net, params = init(mask=jnp.asarray(mask))
    pixels = np.array(IMAGES)
    pixels[0, 0:4, 12:16] = 7.0  # hidden patch 3: its pixels must not matter
    masked = net(params, IMAGES, mask=mask)
    close(net(params, pixels, mask=mask).patches, masked.patches)
    # A token equal to the embedding of some patch makes a masked patch that patch, at the place of the masked one.
    same = np.array(IMAGES)
    cut = jnp.full((48,), 0.25)
    params["mask_token"] = (cut @ params["embed"]["kernel"] + params["embed"]["bias"]).reshape(1, 1, -1)
    same[np.repeat(np.repeat(mask.reshape(3, 4, 4), 4, 1), 4, 2)] = 0.25
    close(net(params, IMAGES, mask=mask).patches, net(params, same).patches)
    close(net(params, IMAGES, mask=np.zeros_like(mask)).patches, net(params, IMAGES).patches)


def test_bicubic_resizing_by_hand():
    """a = -0.75. Twice the size: taps at 1/4 and 3/4; half of it without antialiasing: taps at 1/2 and 3/2."""
    up = [-0.10546875, 0.2265625, 0.7734375, 1.10546875]
    np.testing.assert_allclose(positions.resize(jnp.array([[[0.0], [1.0]]]), (1, 4))[0, :, 0], up, atol=1e-6)
    np.testing.assert_allclose(positions.resize(jnp.array([[[0.0]], [[1.0]]]), (4, 1))[:, 0, 0], up, atol=1e-6)
    corner = positions.resize(jnp.array([[[0.0], [0.0]], [[0.0], [1.0]]]), (4, 4))[..., 0]
    np.testing.assert_allclose(corner, np.outer(up, up), atol=1e-6)
    down = positions.resize(jnp.arange(4.0).reshape(4, 1, 1), (2, 1))[:, 0, 0]
    np.testing.assert_allclose(down, [0.40625, 2.59375], atol=1e-6)


def test_learned_positions_follow_the_size_and_the_aspect_of_the_images():
    net, params = init()
    larger = jax.random.normal(jax.random.key(1), (2, 24, 20, 3))
    resized = params | {"positions": positions.resize(params["positions"], (6, 5))}
    close(net(params, larger).patches, net(resized, larger).patches)
    assert net(params, larger).patches.shape == (2, 30, 16)
    moved = params | {"positions": params["positions"] + jnp.arange(16.0)}
    assert np.abs(net(moved, larger).patches - net(params, larger).patches).max() > 0.1


def test_registers_take_part_and_come_out_apart():
    net, params = init(registers=3)
    features = net(params, IMAGES)
    assert (features.registers.shape, features.patches.shape) == ((3, 3, 16), (3, 16, 16))
    moved = net(params | {"registers": params["registers"] + jnp.arange(16.0)}, IMAGES)
    assert np.abs(moved.pooled - features.pooled).max() > 0.1


@pytest.mark.parametrize("registers", [0, 3])
def test_mean_pooling_is_over_patches_alone_and_needs_no_class_token(registers):
    net, params = init(pool="mean", registers=registers)
    features = net(params, IMAGES)
    close(features.pooled, features.patches.mean(1))
    assert features.registers.shape == (3, registers, 16)
    assert "cls_token" not in params


def test_drop_path_drops_whole_branches_of_images_in_training_and_nothing_in_evaluation():
    net, params = init(drop_path=0.9)
    plain, _ = init(drop_path=0.0)
    close(net(params, IMAGES).pooled, plain(params, IMAGES).pooled)
    train = jax.jit(lambda key: vit.make(**(SMALL | dict(drop_path=0.9))).apply(
        {"params": params}, jnp.tile(IMAGES[:1], (64, 1, 1, 1)), True, rngs={"drop_path": key}).pooled)  # fmt: skip
    one, again, other = train(jax.random.key(0)), train(jax.random.key(0)), train(jax.random.key(1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1
    # The first block keeps both branches, the last drops each with 0.9: four outcomes, both dropped is the usual one.
    outcomes, counts = np.unique(np.round(np.asarray(one), 3), axis=0, return_counts=True)
    assert 2 <= len(outcomes) <= 4
    assert 40 <= counts.max() <= 62


def test_rematerialisation_changes_memory_and_not_gradients():
    def gradient(remat):
        net, params = init(remat=remat)
        return jax.jit(jax.grad(lambda p: jnp.sum(net(p, IMAGES).patches ** 2 * jnp.arange(16.0))))(params)

    expected = gradient("none")
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(expected))
    for remat in REMAT.keys() - {"none"}:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), gradient(remat), expected)


def test_an_unrolled_stack_is_the_same_network_without_a_loop():
    def program(unroll):
        net, params = init(unroll=unroll)
        lowered = jax.jit(jax.grad(lambda p: jnp.sum(net(p, IMAGES).patches ** 2 * jnp.arange(16.0)))).lower(params)
        return lowered.as_text(), lowered.compile()(params)

    (looped, expected), (flat, found) = program(False), program(True)
    assert "stablehlo.while" in looped and "stablehlo.while" not in flat
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), found, expected)


def test_blocks_differ_though_one_scanned_program_makes_them():
    net = vit.make(**SMALL)
    kernel = jax.jit(net.init)(jax.random.key(0), IMAGES)["params"]["encoder"]["blocks"]["mlp"]["fc1"]["kernel"]
    assert kernel.shape == (2, 16, 32)
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1
    np.testing.assert_allclose(np.abs(kernel).max(), np.sqrt(6 / 48), rtol=0.05)  # Xavier of one block, not of all


@pytest.mark.parametrize(
    "size, patch, millions",
    [("Ti", 16, 5.5), ("S", 16, 21.7), ("B", 16, 85.8), ("L", 16, 303.3), ("H", 14, 630.8), ("g", 14, 1134.6)],
)
def test_sizes_have_the_published_numbers_of_parameters(size, patch, millions):
    """DeiT, ViT and MAE without their classifiers. g: 40 (12 D^2 + 13 D) and the ends, as our MLP is not SwiGLU."""
    settings = common.vit(size, patch=patch, positions="learned")
    settings.pop("name")
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(vit.make(**settings).init, jax.random.key(0), images)["params"]
    assert abs(sum(x.size for x in jax.tree.leaves(params)) / 1e6 - millions) < 0.06


def test_half_precision_computes_in_half_and_returns_float32():
    net, params = init(dtype="bfloat16")
    features, exact = net(params, IMAGES), init()[0](params, IMAGES)
    assert {leaf.dtype for leaf in features} == {jnp.dtype("float32")}
    assert 0 < np.abs(features.pooled - exact.pooled).max() < 0.3


@pytest.mark.parametrize(
    "wrong, told", [(dict(positions="sincos"), "sincos_column"), (dict(pool="max"), "cls, mean"),
                    (dict(remat="all"), "dots"), (dict(heads=3), "multiple of"), (dict(width=18), "multiple of 4"),
                    (dict(mlp="relu"), "gelu, swiglu"), (dict(init="zeros"), "xavier, normal"),
                    (dict(relative_bias=True), "none, shared, block"), (dict(attention="flash"), "auto, fused, plain")],
)  # fmt: skip
def test_wrong_settings_are_told_with_the_right_ones(wrong, told):
    with pytest.raises(UserError, match=told):
        vit.make(**(SMALL | wrong))


def test_an_image_that_cannot_be_cut_is_told_with_one_that_can():
    vit.check(224, **SMALL)
    with pytest.raises(UserError, match="222.*220"):
        vit.check(222, **SMALL)
