"""The three AlexNets have the channels, groups and maps of the networks that the tables were measured on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_ssl.configs import common

from jax_ssl.encoder import EachDepth, Encoder, at_depth
from jax_ssl.errors import UserError
from jax_ssl.models import alexnet
from jax_ssl.models.input_stage import Grey


def make(kind, **overrides):
    settings = common.alexnet(kind, dtype="float32", **overrides)
    settings.pop("name")
    return alexnet.make(**settings)


def shapes(net, side=224):
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    features, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), images)
    return variables, features


KERNELS = {  # of the official code: rows, columns, channels that a group sees, channels
    "rotnet": [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)],
    "caffe": [(11, 11, 3, 96), (5, 5, 48, 256), (3, 3, 256, 384), (3, 3, 192, 384), (3, 3, 192, 256)],
    "colorization": [(11, 11, 3, 96), (5, 5, 48, 256), (3, 3, 256, 384), (3, 3, 192, 384), (3, 3, 192, 256)],
}


@pytest.mark.parametrize("kind", KERNELS)
def test_kernels_norms_and_the_last_pool(kind):
    variables, features = shapes(make(kind), 227)
    params = variables["params"]
    assert [params[f"Conv_{i}"]["kernel"].shape for i in range(5)] == KERNELS[kind]
    assert ("BatchNorm_4" in params) == (kind != "caffe") == ("bias" not in params["Conv_0"])
    assert features.patches.shape == (2, 36, 256) and features.pooled.shape == (2, 256)


@pytest.mark.parametrize("depth, side, width", [(1, 55, 64), (2, 27, 192), (3, 13, 384), (4, 13, 256), (5, 13, 256)])
def test_rotnets_is_read_behind_each_convolution_before_its_pool(depth, side, width):
    short = at_depth(Encoder(make("rotnet"), shapes(make("rotnet"))[0]), depth)
    assert len(short.variables["params"]) == 2 * depth
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    assert jax.eval_shape(short.backbone.apply, short.variables, images).patches.shape == (2, side**2, width)


def test_on_grey_images_it_has_one_channel():
    variables, _ = shapes(Grey(make("colorization")))
    assert variables["params"]["Conv_0"]["kernel"].shape == (11, 11, 1, 96)


def test_a_jigsaw_tile_of_64_pixels_at_stride_two():
    assert shapes(make("caffe", stride=2), 64)[1].patches.shape == (2, 4, 256)


def test_all_probes_at_once_read_the_fifth_convolution_before_its_pool_too():
    """Caffe's has 12 x 12 places there, of which the papers' probe takes 6 x 6; behind the pool there are 5 x 5."""
    net = make("caffe")
    variables, images = shapes(net)[0], jnp.zeros((1, 224, 224, 3))
    each = jax.eval_shape(EachDepth(net, range(1, 6), lambda found: found.patches).apply, variables, images)
    assert [patches.shape[1] for patches in each] == [54**2, 26**2, 12**2, 12**2, 12**2]


def test_local_response_is_krizhevskys():
    x = np.random.default_rng(0).normal(0, 30, (2, 3, 3, 7)).astype(np.float32)
    expected = np.empty_like(x)
    for channel in range(7):
        near = x[..., max(0, channel - 2) : channel + 3]
        expected[..., channel] = x[..., channel] / (1 + 1e-4 / 5 * (near**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(alexnet.local_response(jnp.asarray(x)), expected, rtol=1e-5)
    assert np.abs(expected / x).min() < 0.97  # it does something here


def test_grouped_convolutions_see_half_of_the_channels():
    net = make("colorization", width=1 / 16)
    images = jax.random.normal(jax.random.key(0), (1, 67, 67, 3))
    variables = jax.jit(net.init)(jax.random.key(1), images)
    short = at_depth(Encoder(net, dict(variables)), 2)
    read = jax.jit(lambda params: short.backbone.apply(short.variables | {"params": params}, images).patches)
    params = short.variables["params"]
    first = params["Conv_0"]
    dark = first | {"kernel": first["kernel"].at[..., :3].set(0.0)}  # the first of its two groups of three
    moved = np.abs(read(params | {"Conv_0": dark}) - read(params)).max((0, 1)) > 1e-7
    assert moved[:8].any() and not moved[8:].any()


@pytest.mark.parametrize("size, stride, fits", [(63, 4, True), (62, 4, False), (32, 2, False), (32, 1, True)])
def test_images_too_small_for_its_pools_are_refused(size, stride, fits):
    check = lambda: alexnet.check(size, kind="rotnet", stride=stride)
    if fits:
        assert check() is None and shapes(make("rotnet", stride=stride), size)[1].patches.shape[1] >= 1
    else:
        with pytest.raises(UserError, match=f"too few for AlexNet.*larger images{', or stride 2' * (stride > 2)}[.]"):
            check()
