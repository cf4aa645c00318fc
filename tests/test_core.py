"""Large batches in little memory: the loss and gradient of the whole batch, piece by piece."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_ssl import core, parts
from jax_ssl.errors import UserError
from jax_ssl.methods import mae, moco_v3, simclr, vicreg
from jax_ssl.models.micro import MicroBatched
from jax_ssl.optim import schedules
from tests.small import small

CLOCK = schedules.Clock(10.0, 100)
BATCH = {"views": jax.random.normal(jax.random.key(1), (16, 2, 32, 32, 3))}
METHODS = {
    "simclr": lambda backbone: simclr.make(backbone, CLOCK, projector=(32, 16)),
    "moco_v3": lambda backbone: moco_v3.make(backbone, CLOCK, projector=(32, 16), predictor=(32, 16)),
    "vicreg": lambda backbone: vicreg.make(backbone, CLOCK, projector=(32, 16)),
}


def transformer():
    """A backbone without batch norm; the heads have it, and see the whole batch either way."""
    return parts.make_backbone(small("mae"))


def create(method, batch=BATCH):
    """The first state of a method."""
    return jax.jit(lambda batch: core.create(method, optax.sgd(0.1), jax.random.key(0), batch))(batch)


def gradient(method, batch=BATCH):
    """(loss, extra, gradient, compiled program) of a method's first step."""
    arguments = (state := create(method, batch)).params, state, batch, jax.random.key(2)
    program = jax.jit(jax.value_and_grad(method.loss, has_aux=True)).lower(*arguments).compile()
    (loss, (extra, _)), grads = jax.device_get(program(*arguments))  # on the host no subtraction is compiled
    return loss, extra, grads, program


def assert_close(a, b, tolerance=1e-5):
    whole = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(b)))
    jax.tree.map(lambda x, y: np.testing.assert_array_less(np.linalg.norm(x - y), tolerance * whole), a, b)


@pytest.mark.parametrize("name", METHODS)
def test_the_cached_gradient_is_the_one_of_the_whole_batch(name):
    loss, extra, grads, _ = gradient(METHODS[name](transformer()))
    cached_loss, cached_extra, cached, _ = gradient(METHODS[name](MicroBatched(transformer(), 4)))
    np.testing.assert_allclose(cached_loss, loss, rtol=1e-5)
    assert jax.tree.structure(cached) == jax.tree.structure(grads)
    assert_close(cached, grads)
    assert_close(cached_extra, extra)


def test_the_cached_gradient_has_the_memory_of_a_piece():
    batch = {"views": jnp.zeros((256, 2, 32, 32, 3))}
    whole = gradient(METHODS["simclr"](transformer()), batch)[-1].memory_analysis().temp_size_in_bytes
    pieces = gradient(METHODS["simclr"](MicroBatched(transformer(), 32)), batch)[-1].memory_analysis()
    images = batch["views"].nbytes
    assert pieces.temp_size_in_bytes - 2 * images < (whole - 2 * images) / 4


def test_batch_norm_in_the_backbone_sees_one_piece_at_a_time_and_keeps_its_statistics():
    backbone = parts.make_backbone(small("simclr"))
    _, extra, _, _ = gradient(METHODS["simclr"](backbone))
    _, cached, grads, _ = gradient(METHODS["simclr"](MicroBatched(backbone, 4)))
    assert jax.tree.structure(extra) == jax.tree.structure(cached)
    start = create(METHODS["simclr"](backbone)).extra
    mean = lambda tree: np.asarray(tree["stats"]["batch_stats"]["backbone"]["BatchNorm_0"]["mean"])
    assert np.abs(mean(cached) - mean(start)).max() > 3 * np.abs(mean(extra) - mean(start)).max()  # eight moves to one
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))


def test_a_picture_of_fewer_images_than_a_piece_can_be_drawn():
    method = METHODS["simclr"](MicroBatched(parts.make_backbone(small("simclr")), 32))
    state = create(method)
    assert jnp.all(jnp.isfinite(jax.jit(method.show)(state.params, state, BATCH, jax.random.key(0))["similarity"]))


def test_a_loss_that_is_a_mean_over_images_is_summed_up_in_pieces():
    make = lambda: mae.make(transformer(), CLOCK, decoder_width=16, decoder_depth=1, decoder_heads=2)
    pieces = core.in_pieces(make(), 4)
    batch = {"views": BATCH["views"][:, :1]}
    state = create(pieces, batch)
    function = jax.jit(jax.value_and_grad(pieces.loss, has_aux=True))
    (loss, _), grads = jax.device_get(function(state.params, state, batch, jax.random.key(2)))
    # Each piece draws its masks from its own number, so the oracle is the mean over the pieces.
    losses, total, of_piece = [], None, jax.jit(jax.value_and_grad(make().loss, has_aux=True))
    for number in range(4):
        piece = {"views": batch["views"][number::4]}
        key = jax.random.fold_in(jax.random.key(2), number)
        (value, _), g = jax.device_get(of_piece(state.params, state, piece, key))
        losses.append(value)
        total = g if total is None else jax.tree.map(np.add, total, g)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    assert_close(grads, jax.tree.map(lambda g: g / 4, total))


def test_a_teacher_may_start_from_random_parameters_of_its_own():
    copy = create(METHODS["moco_v3"](transformer()))
    jax.tree.map(np.testing.assert_array_equal, copy.teacher, {k: copy.params[k] for k in copy.teacher})
    fresh = METHODS["moco_v3"](transformer())._replace(fresh_teacher=True)
    state = create(fresh)
    kernels = lambda tree: np.asarray(tree["backbone"]["embed"]["kernel"])
    assert np.abs(kernels(state.teacher) - kernels(state.params)).max() > 0.01
    np.testing.assert_allclose(kernels(state.teacher).std(), kernels(state.params).std(), rtol=0.1)


def test_a_method_of_pairs_refuses_small_crops():
    with pytest.raises(UserError, match="2 in data.crops.views, 6 in data.crops.local: leave one pair"):
        core.two_views({"views": jnp.zeros((4, 2, 8, 8, 3)), "local": jnp.zeros((4, 6, 4, 4, 3))})
