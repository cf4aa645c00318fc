"""The discrete autoencoder against DALL-E's official networks, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl.errors import UserError
from jax_ssl.models import dvae
from tests.near import relative_error

DALLE = dict(vocabulary=16, groups=4, blocks=2, patch=1, dtype="float32")


@pytest.fixture(scope="module")
def golden(request):
    return np.load(request.config.rootpath / "tests" / "golden" / "dalle.npz")


def layer(golden, name):
    """A convolution of the official file as Flax has it; a 1x1 convolution is a Dense too."""
    return {"kernel": golden[f"{name}.w"].transpose(2, 3, 1, 0), "bias": golden[f"{name}.b"]}


def dense(golden, name, outputs=None):
    found = layer(golden, name)
    return {"kernel": found["kernel"][0, 0, :, :outputs], "bias": found["bias"][:outputs]}


def blocks(golden, side):
    """The official file's eight blocks in their order, under Flax's names."""
    names = [f"{side}.blocks.group_{group}.block_{block}" for group in (1, 2, 3, 4) for block in (1, 2)]
    found = {}
    for i, name in enumerate(names):
        convolutions = [f"{name}.res_path.conv_{j}" for j in (1, 2, 3, 4)]
        convolutions += [f"{name}.id_path"] if f"{name}.id_path.w" in golden else []
        found[f"Block_{i}"] = {f"Conv_{j}": layer(golden, path) for j, path in enumerate(convolutions)}
    return found


@pytest.fixture(scope="module")
def tokenizer(golden):
    net = dvae.DVae(dvae.make(width=4, **DALLE))
    params = {
        "backbone": {
            "Conv_0": layer(golden, "encoder.blocks.input"),
            **blocks(golden, "encoder"),
            "codes": dense(golden, "encoder.blocks.output.conv"),
            "codebook": dense(golden, "decoder.blocks.input"),
        },
        # The official decoder gives mean and width of a logit-Laplace, three numbers each: only the mean is painted.
        "decoder": {
            **blocks(golden, "decoder"),
            "Dense_0": dense(golden, "decoder.blocks.output.conv", outputs=3),
        },
    }
    shapes = jax.eval_shape(net.init, jax.random.key(0), golden["x"], jax.random.key(0), 1.0)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    return net, params


@pytest.mark.seal(2, "dvae")
def test_the_scores_of_the_codes_are_those_of_the_official_encoder(golden, tokenizer):
    net, params = tokenizer
    mapped = (golden["x"] + 0.125) / 1.25
    np.testing.assert_allclose(mapped, golden["mapped"], atol=1e-6)
    logits = jax.jit(lambda x: net.apply({"params": params}, x, method="logits"))(mapped)
    assert relative_error(logits, golden["logits"].reshape(2, 4, 16)) <= 1e-5


@pytest.mark.seal(2, "dvae")
def test_the_painting_is_that_of_the_official_decoder(golden, tokenizer):
    net, params = tokenizer
    paint = jax.jit(lambda z: net.apply({"params": params}, z, 2, method="paint_shares"))
    painted = paint(golden["z"].reshape(2, 4, 16))
    assert relative_error(painted, golden["painted"][..., :3]) <= 1e-5


def test_a_code_is_painted_as_a_draw_that_is_sure_of_it(tokenizer):
    net, params = tokenizer
    codes = jnp.array([[0, 3, 15, 2]])
    paint = lambda z, method: jax.jit(lambda z: net.apply({"params": params}, z, 2, method=method))(z)
    np.testing.assert_allclose(paint(codes, "paint"), paint(jax.nn.one_hot(codes, 16), "paint_shares"), rtol=1e-5)


def test_a_relaxed_draw_follows_the_scores_and_hardens_as_it_cools():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.2])) * jnp.ones((4000, 1))
    cold, warm = (dvae.relax(jax.random.key(0), logits, temperature) for temperature in (0.01, 1.0))
    np.testing.assert_allclose(jnp.sum(warm, axis=-1), 1, rtol=1e-5)
    assert jnp.mean(cold.max(-1)) > 0.98 > 0.8 > jnp.mean(warm.max(-1))
    np.testing.assert_allclose(cold.mean(0), [0.5, 0.3, 0.2], atol=0.03)


@pytest.mark.parametrize("patch, groups", [(4, 1), (2, 2), (1, 3)])
def test_a_code_covers_the_stem_s_patch_halved_between_groups(patch, groups):
    backbone = dvae.make(vocabulary=6, width=8, groups=groups, blocks=1, patch=patch, dtype="float32")
    net = dvae.DVae(backbone)
    images = jnp.ones((2, 16, 8, 3))
    (logits, painted), _ = jax.eval_shape(net.init_with_output, jax.random.key(0), images, jax.random.key(0), 1.0)
    assert (backbone.stride, logits.shape, painted.shape) == (4, (2, 8, 6), images.shape)


def test_what_a_tokenizer_keeps_of_an_image_is_what_its_decoder_is_told(golden, tokenizer):
    net, params = tokenizer
    shares = jax.nn.softmax(jax.jit(lambda x: net.apply({"params": params}, x, method="logits"))(golden["x"]))
    told = shares @ params["backbone"]["codebook"]["kernel"]
    features = jax.jit(net.backbone.apply)({"params": params["backbone"]}, golden["x"])
    np.testing.assert_allclose(features.pooled, told.reshape(2, -1), rtol=1e-4, atol=1e-5)
    assert features.patches.shape == (2, 4, 32)


def test_wrong_sizes_are_told():
    with pytest.raises(UserError, match="vocabulary=1 must be a whole number of at least 2"):
        dvae.make(width=4, **DALLE | dict(vocabulary=1))
    with pytest.raises(UserError, match="width=6 must be a multiple of 4"):
        dvae.make(width=6, **DALLE)
    with pytest.raises(UserError, match="30 pixels are no multiple of 8"):
        dvae.check(30, **DALLE)
