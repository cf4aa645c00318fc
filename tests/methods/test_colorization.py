"""Colorization sees lightness alone, weighs by the colours that were counted, and refuses images without any."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import core, losses, parts, train
from jax_ssl.data import pipeline
from jax_ssl.errors import UserError
from jax_ssl.methods import colorization
from jax_ssl.models.lab import lab_to_rgb, rgb_to_lab
from jax_ssl.visualize import colorization as page
from tests.small import small


def made(*more):
    config = small("colorization", *more)
    data = pipeline.open_data(config)
    method, tx, _ = train.build(config, data.source.count)
    batch = jax.jit(train.preparation(config))(next(data.batches(0)), data.resident)
    return method, jax.jit(lambda b: core.create(method, tx, jax.random.key(0), b))(batch), batch


@pytest.fixture(scope="module")
def classes():
    return made()


def test_the_loss_is_that_of_the_codes_of_every_fourth_pixel_with_grey_images_left_out(classes):
    """An oracle in NumPy on the network's scores, from the paper's Eq. 2, for bins that all count alike."""
    method, state, batch = classes
    views = np.array(batch["views"])
    views[3] = views[3].mean(-1, keepdims=True)  # a grey one
    config = small("colorization")
    net = colorization.Net(
        colorization.input_stage(parts.make_backbone(config), lightness_unit=100.0),
        colorization.Colourer((8,), 313),
    )
    network = jax.jit(lambda variables, images: net.apply(variables, images, train=True, mutable=["batch_stats"]))
    scores, _ = network({"params": state.params, **state.extra["stats"]}, views[:, 0])
    ab = np.asarray(rgb_to_lab(jnp.asarray(views[:, 0])), np.float64)[:, ::4, ::4, 1:]
    bins, scores = losses.colour_bins().astype(np.float64), np.asarray(scores, np.float64)
    distance = np.square(ab[..., None, :] - bins).sum(-1)
    code = np.exp(-distance / 50) * (distance <= np.sort(distance, -1)[..., 9:10])
    surprise = -(code / code.sum(-1, keepdims=True) * (scores - np.log(np.exp(scores).sum(-1, keepdims=True)))).sum(-1)
    surprise[3] = 0
    _, (_, metrics) = jax.jit(method.loss)(state.params, state, {"views": jnp.asarray(views)}, jax.random.key(1))
    np.testing.assert_allclose(metrics["cross_entropy"], surprise.mean(), rtol=1e-5)


def test_rare_colours_move_the_network_more_once_they_are_counted(classes):
    method, state, batch = classes
    images = np.round(255 * np.asarray(batch["views"][:, 0])).astype(np.uint8)
    counts = method.tallies["counts"](images)
    assert counts.sum() == 32 * 64
    told = lambda counts: state.replace(extra=state.extra | {"counts": counts})
    loss = jax.jit(lambda counts: method.loss(state.params, told(counts), batch, jax.random.key(1)))
    (even, (extra, _)), (weighed, (_, metrics)) = loss(state.extra["counts"]), loss(counts)
    assert not np.isclose(even, weighed) and np.isfinite(weighed)
    np.testing.assert_array_equal(extra["counts"], 0)  # counted once, and not by a step
    weights = losses.colour_weights(losses.smooth_prior(counts, losses.colour_bins()))
    code = losses.colour_code(rgb_to_lab(batch["views"][:, 0])[:, ::4, ::4, 1:], losses.colour_bins())
    share = weights[jnp.argmax(code, -1)].mean()
    np.testing.assert_allclose(weighed / metrics["cross_entropy"], share, rtol=0.05)  # scores are nearly even at first


def test_the_network_is_read_on_grey_images(classes):
    _, state, batch = classes
    config = small("colorization")
    network = parts.network_of(config)
    assert network.protocol == {"input": "grey"}
    lab = rgb_to_lab(batch["views"][:, 0])
    variables = {"params": state.params["backbone"], "batch_stats": state.extra["stats"]["batch_stats"]["backbone"]}
    read = jax.jit(lambda images: network.apply(variables, images).pooled)
    grey = lab_to_rgb(lab * jnp.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(read(batch["views"][:, 0]), read(grey), atol=1e-3)


@pytest.mark.parametrize("objective, titles", [("classes", 4), ("regression", 3)])
def test_what_is_shown_begins_grey_and_ends_with_the_truth(objective, titles, classes):
    method, state, batch = classes if objective == "classes" else made("--config.method.objective=regression")
    shown = jax.jit(method.show)(state.params, state, batch, jax.random.key(0))["colouring"]
    assert shown.shape == (8, titles, 32, 32, 3)
    np.testing.assert_allclose(np.ptp(np.asarray(shown[:, 0]), axis=-1), 0, atol=2e-3)
    np.testing.assert_array_equal(shown[:, -1], batch["views"][:8, 0])
    np.testing.assert_allclose(rgb_to_lab(shown[:, 1])[..., 0], rgb_to_lab(shown[:, -1])[..., 0], atol=3)
    assert page.draw({"colouring": np.asarray(shown)})["colouring"].width > 4 * 32


def test_regression_is_half_the_squared_distance(classes):
    method, state, batch = made("--config.method.objective=regression")
    assert method.task.metric == "rmse" and method.task.better == "lower"
    value, (_, metrics) = jax.jit(method.loss)(state.params, state, batch, jax.random.key(1))
    ab = np.asarray(rgb_to_lab(batch["views"][:, 0]))[:, ::4, ::4, 1:]
    np.testing.assert_allclose(metrics["uniform_loss"], np.square(ab / 20).sum(-1).mean() / 2, rtol=1e-5)
    assert np.isfinite(value)


def test_the_number_that_decides_follows_the_aim(classes):
    assert classes[0].task.metric == "auc_rebalanced"
    config = small("colorization", "--config.method.rebalance=0.0")
    assert train.build(config, 100)[0].task.metric == "cross_entropy"


def test_images_without_colour_are_refused():
    grey = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8).repeat(3, axis=-1)
    with pytest.raises(UserError, match="all grey"):
        colorization.look(grey)
    grey[2, 3, 4, 0] ^= 128
    colorization.look(grey)


def test_a_transformers_tokens_have_a_colour_each():
    backbone = parts.make_backbone(small("mae", "--config.model.patch=4"))
    net = colorization.Net(colorization.input_stage(backbone), colorization.Colourer((), 313))
    scores = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, 32, 32, 3)))
    assert scores.shape == (2, 8, 8, 313)
