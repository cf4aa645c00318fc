"""RotNet's turns are the official ones, its loss is over all four of each image, and its picture says what is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import core, parts, train
from jax_ssl.data import pipeline
from jax_ssl.methods import rotnet
from jax_ssl.visualize import pictures
from jax_ssl.visualize import rotnet as page
from tests.small import small


@pytest.fixture(scope="module")
def made():
    config = small("rotnet")
    data = pipeline.open_data(config)
    method, tx, _ = train.build(config, data.source.count)
    batch = jax.jit(train.preparation(config))(next(data.batches(0)), data.resident)
    return method, jax.jit(lambda b: core.create(method, tx, jax.random.key(0), b))(batch), batch


@pytest.mark.seal(2, "rotnet")
def test_the_turns_are_the_official_ones_to_the_bit(request):
    golden = np.load(request.config.rootpath / "tests" / "golden" / "rotnet.npz")
    turned = rotnet.rotations(jnp.asarray(golden["image"])[None])
    np.testing.assert_array_equal(turned, golden["rotated"])
    np.testing.assert_array_equal(rotnet.answers(4), golden["label"])


@pytest.mark.seal(2, "rotnet")
def test_the_loss_is_the_mean_over_all_turns_of_all_images(made):
    """An oracle in NumPy of Eq. 2 and 3, on the scores of the network."""
    method, state, batch = made
    images = np.asarray(batch["views"][:, 0])
    turned = np.stack([np.rot90(image, k) for image in images for k in range(4)])
    kernel = 0.1 * jax.random.normal(jax.random.key(1), state.params["projector"]["Dense_0"]["kernel"].shape)
    params = state.params | {"projector": {"Dense_0": {"kernel": kernel, "bias": jnp.arange(4.0)}}}
    (value, (extra, metrics)), grads = jax.jit(jax.value_and_grad(method.loss, has_aux=True))(
        params, state, batch, jax.random.key(2)
    )
    backbone = parts.make_backbone(small("rotnet"))
    stats = {"batch_stats": state.extra["stats"]["batch_stats"]["backbone"]}
    variables = {"params": params["backbone"], **stats}
    features, new = jax.jit(lambda v, x: backbone.apply(v, x, train=True, mutable=["batch_stats"]))(variables, turned)
    scores = np.asarray(features.pooled, np.float64) @ np.asarray(kernel, np.float64) + np.arange(4)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    labels = np.tile(np.arange(4), len(images))
    np.testing.assert_allclose(value, -np.log(shares[np.arange(len(labels)), labels]).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        grads["projector"]["Dense_0"]["bias"], (shares - np.eye(4)[labels]).mean(0), rtol=1e-4, atol=1e-6
    )
    assert float(metrics["turns_right"]) == pytest.approx((scores.argmax(1) == labels).mean())
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, extra["stats"]["batch_stats"]["backbone"], new["batch_stats"])


def test_what_is_right_is_turned_back_upright(made):
    method, state, batch = made
    shown = jax.jit(method.show)(state.params, state, batch, jax.random.key(0))
    images, right = np.asarray(shown["rotations"]), np.asarray(shown["right"])
    upright = images[:, :1]
    same = np.isclose(images[:, 4:], upright, atol=1e-6).all((2, 3, 4))
    np.testing.assert_array_equal(same, right)


def test_the_page_frames_right_and_wrong_in_two_colours():
    images = np.full((2, 32, 32, 3), 0.5, np.float32)
    framed = pictures.framed(images, np.array([True, False]))
    np.testing.assert_allclose(framed[0, 0, 5], pictures.RIGHT, atol=1e-6)
    np.testing.assert_allclose(framed[1, 31, 5], pictures.WRONG, atol=1e-6)
    np.testing.assert_allclose(framed[:, 16, 16], 0.5)
    drawn = page.draw({"rotations": np.zeros((2, 8, 16, 16, 3), np.float32), "right": np.ones((2, 4), bool)})
    assert set(drawn) == {"rotations"} and drawn["rotations"].width > 500


def test_turned_first_a_picture_on_its_side_shows_its_bars():
    images = 1 + jax.random.uniform(jax.random.key(0), (16, 32, 32, 3))
    turned = np.asarray(jax.jit(rotnet.turned_first)(images, jax.random.key(1)))
    assert turned.shape == (64, 32, 32, 3)
    bars = (np.abs(turned) < 1e-3).mean((1, 2, 3)).reshape(16, 4)
    assert (bars[:, [0, 2]] == 0).all() and bars[:, [1, 3]].mean() > 0.1
