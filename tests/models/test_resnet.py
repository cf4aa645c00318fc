from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_ssl.configs import common

from jax_ssl.errors import UserError
from jax_ssl.models import resnet
from jax_ssl.models.norm import BatchNorm


def make(depth=18, **overrides):
    settings = common.resnet(depth, dtype="float32", **overrides)
    settings.pop("name")
    return resnet.make(**settings)


def shapes(net, side=64):
    """(parameters, features) as shapes, without computing anything."""
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    features, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), images)
    return variables["params"], features


@pytest.mark.parametrize(
    "depth, count", [(18, 11176512), (34, 21284672), (50, 23508032), (101, 42500160), (152, 58143808)]
)
def test_depths_have_the_parameters_of_torchvision_without_its_classifier(depth, count):
    params, _ = shapes(make(depth))
    assert sum(x.size for x in jax.tree.leaves(params)) == count


@pytest.mark.parametrize("depth, width, features", [(18, 1, 512), (50, 1, 2048), (50, 2, 4096), (18, 0.25, 128)])
def test_width_multiplies_every_stage(depth, width, features):
    params, out = shapes(make(depth, width=width))
    assert out.pooled.shape == (2, features)
    assert params["Conv_0"]["kernel"].shape == (7, 7, 3, 64 * width)


@pytest.mark.parametrize(
    "stem, patch, positions", [("imagenet", 4, 4), ("cifar", 4, 64), ("patch", 2, 16), ("patch", 4, 4)]
)
def test_stems_reduce_by_four_by_one_or_by_their_patch(stem, patch, positions):
    _, out = shapes(make(stem=stem, patch=patch))
    assert out.patches.shape == (2, positions, 512)
    assert out.registers.shape == (2, 0, 512)


def test_fewer_stages_make_a_smaller_network():
    params, out = shapes(make(stages=(1, 2)))
    assert out.patches.shape == (2, 64, 128)
    assert sum("Block" in name for name in params) == 3


def test_the_patch_stem_is_a_convolution_whose_stride_is_its_size():
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    stem = resnet.ResNet((), False, 16, "patch", 4, 1, True, jnp.dtype("float32"))
    features, variables = stem.init_with_output(jax.random.key(1), images)
    kernel = np.asarray(variables["params"]["Dense_0"]["kernel"]).reshape(4, 4, 3, 16)
    expected = np.einsum("pqc,pqcd->d", images[1, 4:8, 0:4], kernel) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(features.patches[1, 2], np.maximum(expected, 0), rtol=1e-4, atol=1e-5)


def test_pooled_is_the_mean_of_the_positions():
    net = make(stem="cifar", width=0.125, stages=(1, 1))
    features, _ = jax.jit(net.init_with_output)(jax.random.key(0), jax.random.normal(jax.random.key(1), (2, 8, 8, 3)))
    assert features.patches.shape == (2, 16, 16)
    np.testing.assert_allclose(features.pooled, features.patches.mean(1), rtol=1e-5, atol=1e-6)
    assert np.abs(features.pooled).max() > 0.01


@pytest.mark.parametrize("bottleneck, width", [(False, 8), (True, 2)])
def test_a_new_block_is_the_identity_because_its_last_norm_starts_at_zero(bottleneck, width):
    conv = partial(resnet._padded, partial(nn.Conv, use_bias=False))
    block = resnet.Block(width, 1, bottleneck, True, conv, BatchNorm)
    x = jax.random.uniform(jax.random.key(0), (4, 6, 6, 8))
    (y, _), variables = block.init_with_output(jax.random.key(1), x, False), block.init(jax.random.key(1), x, False)
    np.testing.assert_allclose(y, x, atol=1e-6)
    zero = [name for name, tree in variables["params"].items() if "scale" in tree and not np.any(tree["scale"])]
    assert zero == ["BatchNorm_2" if bottleneck else "BatchNorm_1"]


@pytest.mark.parametrize("depth", [18, 50])
def test_every_block_of_a_network_begins_so(depth):
    net = make(depth, width=0.125, stem="cifar", stages=(2, 1))
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    scales = [value for keys, value in jax.tree_util.tree_leaves_with_path(params) if keys[-1].key == "scale"]
    assert sum(not np.any(scale) for scale in scales) == 3


@pytest.mark.parametrize("kernel", [1, 3])
def test_strided_convolutions_are_centred_as_in_torch(kernel):
    """A kernel that is one in its middle picks every second pixel from the first; XLA's SAME would begin at another."""
    conv = resnet._padded(partial(nn.Conv, use_bias=False), 1, (kernel, kernel), 2)
    delta = np.zeros((kernel, kernel, 1, 1), np.float32)
    delta[kernel // 2, kernel // 2] = 1
    x = jnp.arange(64.0).reshape(1, 8, 8, 1)
    np.testing.assert_array_equal(conv.apply({"params": {"kernel": delta}}, x), x[:, ::2, ::2])


def test_wrong_settings_are_told_with_the_right_ones():
    with pytest.raises(UserError, match="18, 34, 50"):
        make(20)
    with pytest.raises(UserError, match="choose one of imagenet, cifar, patch"):
        make(stem="vgg")
    with pytest.raises(UserError, match="multiple of model.patch=5"):
        resnet.check(32, stem="patch", patch=5)
    resnet.check(33, stem="imagenet", patch=4)


def test_with_layer_norm_no_image_knows_of_another_and_there_are_no_statistics():
    net = make(stages=(1,), stem="patch", width=0.125, norm="layer")
    images = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))
    variables = net.init(jax.random.key(1), images)
    assert set(variables) == {"params"}
    run = lambda images: net.apply(variables, images, train=True).pooled
    np.testing.assert_allclose(run(images)[:1], run(images[:1]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(7 * images), run(images), rtol=1e-3)  # each in units of its own spread
    with pytest.raises(UserError, match="model.norm='instance'"):
        make(norm="instance")
