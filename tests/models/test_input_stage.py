"""A network is read on the input that it was trained on, and its parameters are those of its backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import encoder, parts
from jax_ssl.encoder import Encoder, at_depth
from jax_ssl.errors import UserError
from jax_ssl.evaluate import finetune
from jax_ssl.models.input_stage import Grey, Patches, Tiles, standardise
from jax_ssl.models.lab import rgb_to_lab
from tests.small import small

IMAGES = jax.random.uniform(jax.random.key(3), (4, 32, 32, 3))


@pytest.fixture(scope="module")
def backbone():
    # Without zero_init, by which an untrained block of stride two sees one place in four.
    return parts.make_backbone(small("simclr", "--config.model.zero_init=False"))


@pytest.fixture(scope="module")
def transformer():
    return parts.make_backbone(small("mae"))


def encode(net) -> Encoder:
    return Encoder(net, jax.jit(net.init)(jax.random.key(0), IMAGES))


def test_grey_features_do_not_change_with_colour(transformer):
    read = encode(Grey(transformer))
    lightness = rgb_to_lab(IMAGES)[..., 1:2] * 0 + IMAGES.mean(-1, keepdims=True)
    grey, other = jnp.broadcast_to(lightness, IMAGES.shape), IMAGES
    linear = jnp.where(grey > 0.04045, ((grey + 0.055) / 1.055) ** 2.4, grey / 12.92)
    # Red up and blue down, so that the sum that makes Y stays what it is: another colour of the same lightness.
    shift = 0.3 * jnp.minimum(linear[..., :1], 1 - linear[..., :1])
    linear = linear + shift * jnp.array([0.072169, 0.0, -0.212671])
    coloured = jnp.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    assert np.abs(coloured - grey).max() > 0.01
    np.testing.assert_allclose(read(coloured).pooled, read(grey).pooled, atol=1e-4)
    assert not np.allclose(read(other).pooled, read(grey).pooled, atol=1e-2)
    assert read.variables["params"]["embed"]["kernel"].shape[0] == 8 * 8  # one channel


def test_tiles_see_nothing_between_them(backbone):
    read = encode(Tiles(backbone, cell=10, tile=8, standardised="none"))
    inside = np.zeros((32, 32), bool)
    for y in range(3):
        for x in range(3):
            inside[2 + 10 * y : 10 + 10 * y, 2 + 10 * x : 10 + 10 * x] = True
    noise = jax.random.normal(jax.random.key(4), IMAGES.shape)
    features = read(IMAGES)
    assert features.patches.shape == (4, 9, 16) and features.registers.shape == (4, 0, 16)
    np.testing.assert_array_equal(read(jnp.where(inside[..., None], IMAGES, noise)).patches, features.patches)
    one = IMAGES.at[:, 2, 2].add(1.0)  # a corner of the first tile
    changed = np.abs(read(one).patches - features.patches).max((0, 2)) > 0
    assert changed.tolist() == [True] + 8 * [False]
    np.testing.assert_allclose(features.pooled, features.patches.mean(1), atol=1e-6)


def test_a_tile_in_units_of_its_own_mean_and_spread():
    tiles = np.random.default_rng(0).normal(3, 2, (2, 9, 8, 8, 3)).astype(np.float32)
    tiles[0, 0] = 0.7
    centred = tiles - tiles.mean((2, 3), keepdims=True)
    spread = tiles.std((2, 3), keepdims=True, ddof=1)
    spread[0, 0] = 1
    np.testing.assert_allclose(standardise(jnp.asarray(tiles)), centred / spread, atol=1e-5)
    together = np.asarray(standardise(jnp.asarray(tiles), "tile")).reshape(*tiles.shape[:-3], -1)
    np.testing.assert_allclose(together.mean(-1), 0, atol=1e-5)
    assert np.isclose(together.std(-1, ddof=1), 1, atol=1e-4).sum() >= together[..., 0].size - 1  # but a flat one
    np.testing.assert_array_equal(standardise(tiles, "none"), tiles)


def test_patches_overlap_and_are_averaged(backbone):
    read = encode(Patches(backbone, square=8, stride=4))
    features = read(IMAGES)
    assert features.patches.shape == (4, 49, 16)
    changed = np.abs(read(IMAGES.at[:, 5, 13].add(1.0)).patches - features.patches).max((0, 2)).reshape(7, 7) > 0
    assert np.argwhere(changed).tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]
    assert list(Patches(backbone, square=8, stride=4).starts(30)) == [1, 5, 9, 13, 17, 21]
    encoder.check_size(read.backbone, 30)  # no multiple of 8, nor are the 300 pixels of CPC v2 one of 80
    encoder.check_size(read.backbone, (36, 30))


@pytest.mark.parametrize("stage", [lambda net: Tiles(net, 10, 8), lambda net: Patches(net, 8, 4)])
def test_the_parameters_are_the_backbones_and_training_works(stage, backbone):
    net = stage(backbone)
    read, plain = encode(net), encode(backbone)
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    assert shapes(read.variables) == shapes(plain.variables)
    moved, stats = net.apply(read.variables, IMAGES, train=True, mutable=["batch_stats"])
    assert moved.pooled.shape == (4, 16) and shapes(stats["batch_stats"]) == shapes(read.variables["batch_stats"])
    short = at_depth(read, 1)
    assert short(IMAGES).pooled.shape == (4, 8) and short.protocol == read.protocol
    assert finetune.with_drop_path(net, 0.0).backbone.norm_groups == 1
    pixels = np.asarray(IMAGES * 255, np.uint8)
    assert encoder.extract(read, pixels).shape == (4, 16)
    assert encoder.adapt(read, pixels, passes=1).variables["params"] is read.variables["params"]


def test_what_is_said_beside_a_number(backbone, transformer):
    assert Encoder(backbone, {}).protocol == {}
    assert Encoder(Grey(transformer), {}).protocol == {"input": "grey"}
    tiles = {"input": "tiles", "tiles": 9, "tile": 8, "standardised": "channel"}
    assert Encoder(Tiles(backbone, 10, 8), {}).protocol == tiles
    assert (Grey(transformer).patch, Grey(transformer).pool, Grey(transformer).depths) == (8, "cls", 2)
    assert Grey(backbone).pool == "mean" and not hasattr(Tiles(transformer, 8, 8), "patch")


@pytest.mark.parametrize("stage, size", [
    (lambda net: Tiles(net, 10, 8), 29), (lambda net: Tiles(net, 8, 9), 32), (lambda net: Patches(net, 33, 4), 32),
])  # fmt: skip
def test_what_can_not_be_cut_is_refused(stage, size, backbone):
    with pytest.raises(UserError, match="can't be cut from"):
        stage(backbone).side(size)
