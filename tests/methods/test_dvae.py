"""The tokenizer as a method of its own: its loss, its codes, its picture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_ssl import core, losses, parts, train
from jax_ssl.errors import UserError
from jax_ssl.methods import dvae
from jax_ssl.models.dvae import DVae
from jax_ssl.optim.schedules import Clock
from tests.small import small


@pytest.fixture(scope="module")
def begun():
    """(method, network, first state, batch)."""
    settings = small("dvae", "--config.method.kl_weight=0.5")
    method = train.build(settings, examples=320)[0]
    batch = {"views": jax.random.normal(jax.random.key(0), (6, 1, 32, 32, 3))}
    state = jax.jit(lambda b: core.create(method, optax.sgd(0.1), jax.random.key(0), b))(batch)
    return method, DVae(parts.make_backbone(settings)), state, batch


@functools.partial(jax.jit, static_argnums=(0, 3), static_argnames="method")
def apply(net, state, x, rows=None, *, method):
    return net.apply({"params": state.params}, x, *(() if rows is None else (rows,)), method=method)


@pytest.mark.seal(2, "dvae")
def test_the_loss_is_the_error_of_a_relaxed_draw_and_the_weighted_divergence(begun):
    """Against the parts put together by hand, at the temperature of the first step and of the last."""
    method, net, state, batch = begun
    images, rng = batch["views"][:, 0], jax.random.key(5)
    logits = apply(net, state, images, method="logits")
    for step, temperature in ((0, 1.0), (10**6, 0.0625)):
        value, (_, metrics) = jax.jit(method.loss)(state.params, state.replace(step=step), batch, rng)
        share = np.exp(jax.nn.log_softmax(logits))
        noisy = jax.nn.softmax((logits + jax.random.gumbel(rng, logits.shape)) / temperature)
        painted = apply(net, state, noisy, 8, method="paint_shares")
        error = np.mean((np.asarray(painted) - images) ** 2)
        np.testing.assert_allclose(metrics["reconstruction"], error, rtol=1e-4)
        np.testing.assert_allclose(value, error + 0.5 * (share * np.log(24 * share)).sum(-1).mean(), rtol=1e-4)
        np.testing.assert_allclose(metrics["uniform_loss"], np.var(images, axis=(0, 1, 2)).mean(), rtol=1e-4)


def test_codes_in_use_are_counted_from_what_beit_would_get(begun):
    method, net, state, batch = begun
    codes = jnp.argmax(apply(net, state, batch["views"][:, 0], method="logits"), axis=-1)
    share = np.unique(codes, return_counts=True)[1] / codes.size
    _, (_, metrics) = jax.jit(method.loss)(state.params, state, batch, state.rng)
    np.testing.assert_allclose(metrics["prototype_use"], np.exp(-(share * np.log(share)).sum()), rtol=1e-4)


def test_what_a_person_sees_are_images_beside_what_their_likeliest_codes_are_painted_as(begun):
    method, net, state, batch = begun
    shown = jax.jit(method.show)(state.params, state, batch, state.rng)["reconstruction"]
    logits = apply(net, state, batch["views"][:, 0], method="logits")
    painted = apply(net, state, jnp.argmax(logits, axis=-1), 8, method="paint")
    np.testing.assert_array_equal(shown[:, 0], batch["views"][:, 0])
    np.testing.assert_allclose(shown[:, 1], painted, rtol=1e-4, atol=1e-5)


def test_of_one_colour_the_best_guess_is_as_bad_as_a_painting_of_nothing():
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    value = losses.dvae(jnp.broadcast_to(images.mean((0, 1, 2)), images.shape), images, jnp.zeros((4, 1, 24)), 1.0)
    np.testing.assert_allclose(value, jnp.var(images, axis=(0, 1, 2)).mean(), rtol=1e-5)


@pytest.mark.parametrize("override", ["temperature=0.0", "final_temperature=-1.0"])
def test_wrong_settings_are_told(override):
    with pytest.raises(UserError, match=f"method.{override}"):
        train.build(small("dvae", f"--config.method.{override}"), examples=320)


def test_another_network_is_refused():
    with pytest.raises(UserError, match="model.name='dvae'"):
        dvae.make(object(), Clock(1.0, 1))
