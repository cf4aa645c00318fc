"""The context encoder paints what it does not see, and plays against its critic as two optimisers would."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_ssl import config as config_files
from jax_ssl import core, losses, masking, parts, train
from jax_ssl.data import pipeline
from jax_ssl.errors import UserError
from jax_ssl.methods import context_encoder
from jax_ssl.models import nin, painting
from jax_ssl.visualize import context_encoder as page
from tests.small import small

ALONE = "--config.method.share=1.0"
SQUARE = painting.Hole(False, 16, 1, 0.25, 8)
RANDOM = ["--config.method.region=random", "--config.method.critic=(4,8,8)"]


def made(*more):
    config = small("context_encoder", *more)
    data = pipeline.open_data(config)
    method, tx, _ = train.build(config, data.source.count)
    batch = jax.jit(train.preparation(config))(next(data.batches(0)), data.resident)
    return method, tx, jax.jit(lambda b: core.create(method, tx, jax.random.key(0), b))(batch), batch


@pytest.fixture(scope="module")
def game():
    return made()


def test_nothing_of_the_hidden_pixels_reaches_the_painting(game):
    method, _, state, batch = game
    show = jax.jit(lambda views: method.show(state.params, state, {"views": views}, jax.random.key(0))["holes"])
    hidden = masking.centre_square(32, 14)
    changed = jnp.where(hidden[..., None], 0.3, batch["views"])
    seen, painted, truth = np.moveaxis(np.asarray(show(batch["views"])), 1, 0)
    np.testing.assert_array_equal(np.asarray(show(changed))[:, 1][:, hidden], painted[:, hidden])
    np.testing.assert_array_equal(painted[:, ~hidden], truth[:, ~hidden])
    np.testing.assert_allclose(seen[:, hidden], np.broadcast_to(2 * np.array([117, 104, 123]) / 255 - 1, (8, 196, 3)),
                               rtol=1e-6)  # fmt: skip
    assert page.draw({"holes": np.moveaxis([seen, painted, truth], 0, 1)})["holes"].width > 3 * 32


def test_both_players_step_as_by_optimisers_of_their_own():
    """One step of the library's optimiser, with the critic's rate by its name, against an Adam for each player."""
    method, tx, state, batch = made("--config.optim.warmup_epochs=0.0", "--config.optim.schedule=constant")
    rng = jax.random.fold_in(state.rng, state.step)
    grads = jax.jit(jax.grad(lambda params: method.loss(params, state, batch, rng)[0]))(state.params)
    moved, _ = jax.jit(lambda s, b: core.train_step(method, tx, s, b))(state, batch)
    for player, rate in {"critic": 2e-4, "painter": 2e-3, "backbone": 2e-3}.items():
        adam = optax.adam(rate, b1=0.5)
        updates, _ = adam.update(grads[player], adam.init(state.params[player]))
        expected = optax.apply_updates(state.params[player], updates)
        # An entry whose gradient is nearly nothing steps by its sign, which rounding decides.
        sure = jax.tree.map(lambda g: jnp.abs(g) > 1e-5, grads[player])
        jax.tree.map(lambda a, b, s: np.testing.assert_allclose(jnp.where(s, a, 0), jnp.where(s, b, 0), atol=1e-6),
                     moved.params[player], expected, sure)  # fmt: skip


def test_without_a_critic_it_is_the_weighted_squared_error(game):
    method, _, state, batch = made(ALONE)
    assert state.params["critic"] == {} and "critic_stats" not in state.extra
    value, (_, metrics) = jax.jit(method.loss)(state.params, state, batch, jax.random.key(1))
    both = state.params | {"critic": game[2].params["critic"]}
    parts, _ = jax.jit(game[0].loss)(both, game[2], batch, jax.random.key(1))
    assert 1.0 < float(value) / float(metrics["painting_error"]) < 10.0 and float(parts) > float(value)


def test_a_random_region_is_painted_in_the_whole_image():
    method, _, state, batch = made(*RANDOM)
    value, (extra, metrics) = jax.jit(method.loss)(state.params, state, batch, jax.random.key(1))
    assert np.isfinite(value) and "critic_stats" in extra
    seen, painted, truth = np.moveaxis(
        np.asarray(jax.jit(method.show)(state.params, state, batch, jax.random.key(0))["holes"]), 1, 0
    )
    hidden = (seen != truth).any(-1)
    assert (hidden.sum((1, 2)) >= 250).all() and (painted[~hidden] == truth[~hidden]).all()


def test_its_own_ruler_and_the_cheap_ways(game):
    method, _, state, batch = game
    key = jax.random.key(0)
    batch = {"views": batch["views"]}
    ours = method.task.summary({k: float(v) for k, v in method.task.measure(state.params, state, batch, key).items()})
    for name, fit in method.task.baselines.items():
        found = method.task.summary({k: float(v) for k, v in fit([batch], key, None)(batch, key).items()})
        assert set(found) == set(ours) == {"l2", "gradient_energy"}
        if name == "nearest":  # each image is among those that it is filled from
            assert found["l2"] == 0 and found["gradient_energy"] == pytest.approx(1)
        else:
            assert 0 < found["l2"] < ours["l2"] and found["gradient_energy"] < 0.5


def test_runs_that_see_other_holes_have_theirs_beside_them(monkeypatch):
    titles = []
    monkeypatch.setattr(page.pictures, "sheet", lambda columns, names: titles.append((list(names), len(columns))))
    one, other = np.zeros((2, 3, 8, 8, 3), np.float32), np.zeros((2, 3, 16, 16, 3), np.float32)
    page.compare({"L2": {"holes": one}, "both": {"holes": one}})
    page.compare({"L2": {"holes": one}, "large": {"holes": other}})
    assert titles == [(["seen", "L2", "both", "truth"], 4), (["L2 sees", "L2", "large sees", "large", "truth"], 5)]


@pytest.mark.parametrize("flag, sentence", [
    ("hole=33", "larger than the images of 32 pixels"),
    ("overlap=8", "leaves nothing of method.hole=16"),
    ("critic=(4,4,4,4,4)", "can't halve 16 pixels so often"),
    ("painter=(4,4,4) bottleneck=8", "paints 32 pixels, not 16"),
    ("region=corner", "choose one of centre, random"),
    ("region=random density=0.0001", "hides 0 of 32 x 32 pixels"),
    ("region=random density=0.9999", "hides 1024 of 32 x 32 pixels"),
])  # fmt: skip
def test_what_can_not_be_painted_is_refused(flag, sentence):
    with pytest.raises(UserError, match=sentence):
        made(*(f"--config.method.{part}" for part in flag.split()))


def test_a_network_that_rounds_the_side_of_its_map_is_refused_and_not_painted_askew():
    net = context_encoder.Net(nin.make(blocks=2, width=1 / 96, norm_groups=1, dtype="float32"), SQUARE, 0, (8,))
    with pytest.raises(UserError, match="8 x 8 places, which can't paint equal squares of 30 pixels"):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((2, 30, 30, 3)))


def test_images_that_are_smaller_than_the_hole_are_told_when_they_are_measured(game):
    method, _, state, _ = game
    with pytest.raises(UserError, match="method.hole=16 is larger than the images of 12 pixels"):
        jax.eval_shape(method.task.measure, state.params, state, {"views": jnp.zeros((8, 1, 12, 12, 3))}, state.rng)


def test_random_regions_have_no_square_that_overlap_could_use_up():
    train.build(small("context_encoder", "--config.method.region=random", "--config.method.hole=2"), 100)


def test_the_official_network_paints_the_hole_alone():
    settings = config_files.load("context_encoder")
    keys = settings.method
    hole = painting.Hole(False, keys.hole, keys.overlap, keys.density, keys.cells)
    net = context_encoder.Net(parts.make_backbone(settings), hole, keys.bottleneck, tuple(keys.painter))
    painted = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, 128, 128, 3)))
    assert painted.shape == (2, 64, 64, 3)


def test_a_hole_weighs_what_is_seen_ten_times():
    hole = painting.Hole(False, 8, 1, 0.25, 4)
    weight = hole.weight(hole.hidden(jax.random.key(0), 16))
    np.testing.assert_array_equal(weight, losses.hole_weight(8, 1))
    assert (painting.Hole(False, 8, 0, 0.25, 4).weight(hole.hidden(jax.random.key(0), 16)) == 1).all()


def test_a_transformer_can_be_the_encoder():
    backbone = parts.make_backbone(small("mae", "--config.model.patch=4"))
    net = context_encoder.Net(backbone, SQUARE, 0, (8,))
    painted = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, 32, 32, 3)))
    assert painted.shape == (2, 16, 16, 3)
